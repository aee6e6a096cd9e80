"""The report on a load test: what was measured, and whether that is good enough. No I/O."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.ctl.load.durations import Durations

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ai_ticket_daemon.ctl.load.objectives import Slo
    from ai_ticket_daemon.ctl.load.traffic import Sent


_ADVICE = {
    "rate_limited": "the limit of requests per client was met, not that of the servers: give the "
    "test a token of its own, raise rate_limit.requests, or test over the control socket",
    "not_sent": "as many events were under way as the generator allows: the servers are far "
    "behind; over the control socket these are few, --url allows more",
    "unanswered": "some events had no answer when the test ended: --wait waits longer",
    "unauthorised": "the token is missing or wrong: --token-file FILE",
    "queue_full": "the queue was full: store.max_queued",
}
_LATE_SECONDS = 0.1


class Tally:
    """Counts what came back, in memory that does not grow with the number of events."""

    def __init__(self) -> None:
        self.events = 0
        self.errors: Counter[str] = Counter()
        self.answers = Durations()
        self.first_texts = Durations()
        self.late = Durations()

    def take(self, sent: Sent) -> None:
        """Take in one event that has ended."""
        self.events += 1
        if sent.error != "not_sent":
            self.late.add(sent.sent_at - sent.due_at)
        if sent.error is not None:
            self.errors[sent.error] += 1
            return
        self.answers.add(sent.seconds)
        if sent.first_text_at is not None:
            self.first_texts.add(sent.first_text_at - sent.due_at)


def judge(
    tally: Tally,
    gauges: Mapping[str, Any] | None,
    slo: Slo,
    *,
    open_loop: bool,
    seconds: float,
    took_seconds: float,
) -> dict[str, Any]:
    """Return the report.

    Args:
        tally: what came back.
        gauges: what the daemon said of itself while events arrived; None if it was not asked.
        slo: the objectives.
        open_loop: events arrived whatever came back, so the queue tells whether that was too much.
        seconds: how long events arrived.
        took_seconds: how long it took until all had ended.
    """
    failed = tally.errors.total()
    missed = [*_missed(tally, slo)]
    if gauges is not None:
        missed += _missed_queue(gauges, slo)
        if open_loop:
            missed += _outrun(tally, gauges, seconds)
    return {
        "verdict": "missed" if missed else "met",
        "missed": missed,
        "events": tally.events,
        "succeeded": len(tally.answers),
        "failed": failed,
        "error_share": round(failed / tally.events, 4) if tally.events else 0.0,
        "errors": dict(tally.errors.most_common()),
        "arrived_per_second": round(tally.events / seconds, 3),
        "succeeded_per_second": round(len(tally.answers) / took_seconds, 3),
        "took_seconds": round(took_seconds, 3),
        "answer_seconds": tally.answers.summary(),
        "first_text_seconds": tally.first_texts.summary() if len(tally.first_texts) else None,
        "daemon": gauges,
        "generator_late_seconds": tally.late.summary(),
        "advice": list(_advice(tally, gauges)),
    }


def _missed(tally: Tally, slo: Slo) -> Iterator[str]:
    if not len(tally.answers):
        yield "no event succeeded"
    p95 = tally.answers.percentile(0.95)
    if p95 > slo.p95_seconds:
        yield f"p95 of {p95:.3g} s is above {slo.p95_seconds:g} s"
    share = tally.errors.total() / tally.events if tally.events else 0.0
    if share > slo.error_share:
        yield f"{share:.1%} errors are more than {slo.error_share:.1%}"
    if slo.first_text_p95_seconds is not None:
        first = tally.first_texts.percentile(0.95)
        if not len(tally.first_texts):
            yield "no stream brought any text"
        elif first > slo.first_text_p95_seconds:
            yield f"p95 of the first text, {first:.3g} s, is above {slo.first_text_p95_seconds:g} s"


def _missed_queue(gauges: Mapping[str, Any], slo: Slo) -> Iterator[str]:
    oldest = gauges["oldest_queued_seconds"]
    if oldest > slo.queue_age_seconds:
        yield f"an event was queued for {oldest:.3g} s, longer than {slo.queue_age_seconds:g} s"


def _outrun(tally: Tally, gauges: Mapping[str, Any], seconds: float) -> Iterator[str]:
    """Tell a queue that grows with what arrives from one that is longer or shorter by chance.

    Chance makes it longer by about the root of what arrives.
    """
    grown = gauges["queued_at_end"] - gauges["queued_at_start"]
    if grown > 0.1 * tally.events + 2 * math.sqrt(tally.events):
        yield (
            f"the queue grew by {grown} within {seconds:.3g} s: more came in than the servers can "
            "do"
        )


def _advice(tally: Tally, gauges: Mapping[str, Any] | None) -> Iterator[str]:
    yield from (advice for code, advice in _ADVICE.items() if tally.errors[code])
    if tally.late.percentile(0.95) > _LATE_SECONDS:
        yield (
            "the generator itself was late: its host is too slow for this rate, and its time is "
            "part of what was measured"
        )
    if gauges is None:
        yield (
            "slot use and queue are not known: name the metrics page with --metrics, or the control"
            " socket with --socket"
        )
