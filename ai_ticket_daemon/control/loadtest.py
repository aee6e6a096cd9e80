"""``ai-ticketctl loadtest``: sends events at a steady rate and judges the answers by an SLO."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon.control.ctl import EXIT_OK, EXIT_REFUSED
from ai_ticket_daemon.control.traffic import Traffic, percentile, run_trio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_ticket_daemon.control.client import Client
    from ai_ticket_daemon.control.ctl import Session
    from ai_ticket_daemon.control.traffic import Sent

SAMPLE_SECONDS = 0.5


@dataclass(slots=True)
class Samples:
    """What the daemon said of itself meanwhile."""

    queued: list[int] = field(default_factory=list)
    use: list[float] = field(default_factory=list)

    def take(self, status: dict[str, Any]) -> None:
        """Take in one report."""
        slots = min(status["max_concurrency"], status["capacity"])
        self.queued.append(status["queue"].get("queued", 0))
        self.use.append(status["in_flight"] / slots if slots else 0.0)


def loadtest(session: Session) -> int:
    """Run the test; exit code 1 if the SLO is missed."""
    report = run_trio(_run, session)
    session.say(report)
    return EXIT_OK if report["verdict"] == "met" else EXIT_REFUSED


async def _run(session: Session) -> dict[str, Any]:
    options, samples = session.options, Samples()
    traffic = Traffic(
        session.client.path,
        {"content": options.prompt, "max_tokens": options.max_tokens},
        _ignore,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch, session.client, samples)
        await traffic.run(options.rate, options.seconds, seed=options.seed)
        nursery.cancel_scope.cancel()
    return judge(
        traffic.sent,
        samples,
        seconds=options.seconds,
        slo_p95=options.slo_p95,
        slo_errors=options.slo_errors,
    )


def _ignore(sent: Sent) -> None:
    """Wait for the end: the report is made of all together."""
    del sent


async def _watch(client: Client, samples: Samples) -> None:
    while True:
        samples.take(await trio.to_thread.run_sync(client.look, "status"))
        await trio.sleep(SAMPLE_SECONDS)


def judge(
    sent: Sequence[Sent], samples: Samples, *, seconds: float, slo_p95: float, slo_errors: float
) -> dict[str, Any]:
    """Return the report: what was measured, and whether it is good enough."""
    good = [one.seconds for one in sent if one.status == 200]
    errors = Counter(one.error or str(one.status) for one in sent if one.status != 200)
    share = errors.total() / len(sent) if sent else 0.0
    p95 = percentile(good, 0.95)
    missed = []
    if not good:
        missed.append("no event succeeded")
    if p95 > slo_p95:
        missed.append(f"p95 of {p95:.2f} s is above {slo_p95:g} s")
    if share > slo_errors:
        missed.append(f"{share:.1%} errors are more than {slo_errors:.1%}")
    begin, end = (samples.queued or [0])[0], (samples.queued or [0])[-1]
    return {
        "events": len(sent),
        "offered_per_second": round(len(sent) / seconds, 3),
        "succeeded": len(good),
        "seconds": {
            name: round(percentile(good, level), 3)
            for name, level in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99))
        }
        | {"max": round(max(good, default=0.0), 3)},
        "errors": dict(errors),
        "slot_use": round(sum(samples.use) / len(samples.use), 3) if samples.use else 0.0,
        "queue_at_start": begin,
        "queue_at_most": max(samples.queued, default=0),
        "queue_at_end": end,
        "missed": missed,
        "verdict": "missed" if missed else "met",
    }
