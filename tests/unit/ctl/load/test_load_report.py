from __future__ import annotations

import re
from typing import Any

import pytest

from ai_ticket_daemon.ctl.load.durations import Durations
from ai_ticket_daemon.ctl.load.load_report import Tally, judge
from ai_ticket_daemon.ctl.load.objectives import Slo
from ai_ticket_daemon.ctl.load.traffic import Sent
from tests.support.project import ROOT

PROMETHEUS = ROOT / "ops" / "prometheus"
QUIET = {
    "slots": 1,
    "slot_use": 0.5,
    "queued_at_start": 0,
    "queued_at_most": 3,
    "queued_at_end": 0,
    "oldest_queued_seconds": 1.0,
}


def tally_of(*seconds: float, errors: tuple[str, ...] = ()) -> Tally:
    tally = Tally()
    for value in seconds:
        tally.take(Sent(0.0, 0.0, value))
    for error in errors:
        tally.take(Sent(0.0, 0.0, 0.1, error=error))
    return tally


def report_of(tally: Tally, gauges: dict[str, float] | None = None, **slo: float) -> dict[str, Any]:
    return judge(tally, gauges, Slo(**slo), open_loop=True, seconds=10.0, took_seconds=10.0)


def test_percentiles_are_within_one_percent_and_never_too_small() -> None:
    durations = Durations()
    for millis in range(1, 1001):
        durations.add(millis / 1000)
    assert len(durations) == 1000
    for share in (0.5, 0.9, 0.95, 0.99):
        assert share <= durations.percentile(share) <= share * 1.01
    assert durations.percentile(1.0) == durations.longest == 1.0


def test_a_million_durations_take_no_more_room_than_a_thousand() -> None:
    durations = Durations()
    for number in range(200_000):
        durations.add(1e-6 * 1.0001**number)
    assert len(durations._buckets) <= 2100


def test_of_nothing_every_percentile_is_zero() -> None:
    assert Durations().summary() == {"p50": 0, "p90": 0, "p95": 0, "p99": 0, "max": 0}


def test_the_default_objectives_are_those_of_the_alert_rules() -> None:
    rules = (PROMETHEUS / "recording.rules.yml").read_text()
    found = dict(re.findall(r"record: ai_ticket:objective_(\w+)\n\s+expr: vector\((\d+)\)", rules))
    slo = Slo()
    assert found == {
        "batch_p95_seconds": f"{slo.p95_seconds:g}",
        "queue_age_seconds": f"{slo.queue_age_seconds:g}",
    }
    assert f") > {slo.error_share:g}\n" in (PROMETHEUS / "alerts.rules.yml").read_text()


@pytest.mark.parametrize(
    ("tally", "slo", "missed"),
    [
        (tally_of(1, 1, 1), {}, []),
        (tally_of(), {}, ["no event succeeded"]),
        (tally_of(1, 2, 3), {"p95_seconds": 2.5}, ["p95 of 3 s is above 2.5 s"]),
        (
            tally_of(1, errors=("queue_full",)),
            {},
            ["50.0% errors are more than 5.0%"],
        ),
        (tally_of(1), {"first_text_p95_seconds": 1.0}, ["no stream brought any text"]),
    ],
)
def test_what_is_not_good_enough_is_told(
    tally: Tally, slo: dict[str, float], missed: list[str]
) -> None:
    report = report_of(tally, None, **slo)
    assert report["missed"] == missed
    assert report["verdict"] == ("missed" if missed else "met")


def test_the_first_text_has_an_objective_of_its_own() -> None:
    tally = Tally()
    tally.take(Sent(1.0, 1.0, 9.0, first_text_at=4.0))
    report = report_of(tally, first_text_p95_seconds=2.0)
    assert report["missed"] == ["p95 of the first text, 3 s, is above 2 s"]
    assert report["first_text_seconds"]["max"] == 3.0


def test_a_queue_that_grows_with_what_arrives_is_too_much_and_chance_is_not() -> None:
    tally = tally_of(*[1.0] * 100)
    assert report_of(tally, QUIET | {"queued_at_end": 30})["verdict"] == "met"
    [sentence] = report_of(tally, QUIET | {"queued_at_end": 31})["missed"]
    assert sentence == "the queue grew by 31 within 10 s: more came in than the servers can do"
    closed = judge(
        tally,
        QUIET | {"queued_at_end": 99},
        Slo(),
        open_loop=False,
        seconds=10.0,
        took_seconds=10.0,
    )
    assert closed["missed"] == []


def test_an_event_that_is_queued_too_long_misses_the_objective() -> None:
    report = report_of(tally_of(1), QUIET | {"oldest_queued_seconds": 400.0})
    assert report["missed"] == ["an event was queued for 400 s, longer than 120 s"]


def test_time_counts_from_when_an_event_was_due() -> None:
    tally = Tally()
    tally.take(Sent(due_at=1.0, sent_at=3.0, ended_at=4.0))
    report = report_of(tally)
    assert report["answer_seconds"]["max"] == 3.0
    assert report["generator_late_seconds"]["max"] == 2.0
    assert any("the generator itself was late" in line for line in report["advice"])


def test_what_was_not_sent_is_an_error_and_says_nothing_of_the_generator() -> None:
    report = report_of(tally_of(1, errors=("not_sent", "rate_limited", "not_sent")))
    assert report["errors"] == {"not_sent": 2, "rate_limited": 1}
    assert report["error_share"] == 0.75
    assert [line.split()[0] for line in report["advice"]] == ["the", "as", "slot"]
