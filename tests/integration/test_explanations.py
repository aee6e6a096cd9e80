"""Why an event took so long: ``why``, the spans and the error tell the same decisions."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ai_ticket_daemon.config.pipeline import PipelineConfig
from ai_ticket_daemon.config.telemetry import TelemetryConfig
from ai_ticket_daemon.events.outcome import Waste
from ai_ticket_daemon.testing.otlp import http_collector
from tests.support.control_house import QUICK, House, open_house
from tests.support.store.store_support import opened

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.config.tree import Config
    from ai_ticket_daemon.testing.otlp import Collector, ReceivedSpan

DECISIONS = frozenset(
    {
        "waited", "overtaken", "taken_ahead", "switched", "busy", "attempt_failed",
        "retry_scheduled", "given_up", "put_back",
    }
)  # fmt: skip
MOST_COUNTED = 3
"""Of each token made, where the server's statistics came too late: the simulated tokenizer counts
pieces of words, and the simulated model makes whole ones."""


@pytest.fixture(autouse=True)
def quick_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")


def change(config: Config, *, endpoint: str, servers: int) -> Config:
    backends = replace(config.backends, servers=config.backends.servers[:servers])
    telemetry = TelemetryConfig(otlp_endpoint=endpoint)
    pipeline = PipelineConfig(max_attempts=2, backoff_seconds=0.01, drain_seconds=0.3)
    return replace(config, backends=backends, telemetry=telemetry, pipeline=pipeline)


@dataclass
class Told:
    """What three sources say of one event."""

    lines: list[dict[str, Any]]
    turns: list[ReceivedSpan]
    answer: dict[str, Any]

    @property
    def by_why(self) -> list[str]:
        return [line["name"] for line in self.lines if line["name"] in DECISIONS]

    @property
    def causes(self) -> list[str]:
        """Say what was decided; how long a slow host lets an event wait is not the subject."""
        return [name for name in self.by_why if name != "waited"]

    @property
    def by_spans(self) -> list[str]:
        events = [event for span in self.turns for event in span.events]
        return [event.name for event in events if event.name in DECISIONS]

    @property
    def texts(self) -> list[str]:
        return [line["text"] for line in self.lines]

    def attributes(self, *names: str) -> list[dict[str, Any]]:
        """Return the attributes of the events of these names, in order."""
        events = [event for span in self.turns for event in span.events]
        return [dict(event.attributes) for event in events if event.name in names]

    def check(self) -> None:
        """Compare the three."""
        assert self.by_why == self.by_spans
        reasons = [
            a["ai_ticket.because"]
            for a in self.attributes("retry_scheduled", "given_up", "put_back")
        ]
        for because in reasons:
            assert any(because in text for text in self.texts), because
        if "error" not in self.answer:
            return
        tried = self.answer["details"]["tried"]
        failed = [
            (a["ai_ticket.backend"], a["error.type"], a.get("ai_ticket.tokens"))
            for a in self.attributes("attempt_failed")
        ]
        assert failed == [(a["backend"], a["error"], a["tokens"]) for a in tried]
        assert [a["because"] for a in tried] == reasons


async def explained(
    captured: pytest.CaptureFixture[str],
    cause: Callable[[House], None],
    body: dict[str, Any],
    *,
    servers: int = 1,
) -> tuple[Told, list[dict[str, Any]]]:
    """Send one event into a fault, and return what is told of it and what is wasted."""
    with http_collector() as collector:
        settle = partial(change, endpoint=collector.endpoint, servers=servers)
        async with (
            open_house(captured, QUICK, settle) as house,
            httpx.AsyncClient(base_url=house.running.url, timeout=60) as client,
        ):
            cause(house)
            answer = await client.post("/event", json={"content": "Hello there.", **body})
            told = json.loads(answer.text.removesuffix("\n\n").rpartition("data: ")[2])
            lines = (await house.json("why", told["event_id"]))["lines"]
            wasted = (await house.json("status"))["wasted"]
            house.running.stop()
            await house.running.stopped.wait()
        turns = await trio.to_thread.run_sync(turns_of, collector, told["event_id"])
    return Told(lines, turns, told), wasted


def turns_of(collector: Collector, event_id: str) -> list[ReceivedSpan]:
    return [
        span
        for span in collector.wait_for("pipeline.handle_event")
        if span.name == "pipeline.handle_event"
        and span.attributes["ai_ticket.event_id"] == event_id
    ]


async def test_a_stream_that_breaks_says_after_how_many_tokens(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told, [waste] = await explained(
        capsys,
        lambda house: house.primary.faults.cut_stream(after_events=5, reset=True),
        {"stream": True, "max_tokens": 40},
    )
    told.check()
    assert told.answer["error"] == "api_connection_error"
    [attempt] = told.answer["details"]["tried"]
    made = attempt["tokens"]
    assert made >= 5
    assert attempt["tokens_estimated"]
    assert any(f"and about {made} tokens: api_connection_error" in text for text in told.texts)
    assert attempt["because"] == "a part of the completion was already delivered"
    assert (waste["cause"], waste["tokens"], waste["unknown"]) == ("api_connection_error", made, 0)


async def test_a_failover_is_told_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    told, [waste] = await explained(
        capsys,
        lambda house: house.primary.faults.script("reset", times=1),
        {"max_tokens": 4},
        servers=2,
    )
    told.check()
    assert told.answer["backend"] == "standby"
    assert told.causes == ["attempt_failed", "retry_scheduled", "switched"]
    assert "another attempt: another server can take it" in told.texts
    assert (waste["backend"], waste["cause"]) == ("primary", "api_connection_error")
    assert waste["unknown"] == waste["attempts"] == 1


async def test_attempts_that_are_used_up_are_told_everywhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told, [waste] = await explained(
        capsys, lambda house: house.primary.faults.script("server_error"), {"max_tokens": 4}
    )
    told.check()
    assert told.causes == ["attempt_failed", "retry_scheduled", "attempt_failed", "given_up"]
    assert "another attempt: the retry budget allowed it" in told.texts
    assert "no further attempt: all 2 attempts are used up" in told.texts
    assert waste["attempts"] == 2


async def test_a_deadline_is_told_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    def stall(house: House) -> None:
        house.primary.faults.stall(after_tokens=7, ignores_abort=False)

    body = {"max_tokens": 40, "timeout_seconds": 3}
    told, [waste] = await explained(capsys, stall, body)
    told.check()
    assert told.answer["error"] == "deadline_exceeded"
    assert told.causes == ["attempt_failed", "given_up"]
    # A plain generation returns what it has when it is aborted, and the server counts that.
    assert (waste["cause"], waste["unknown"]) == ("deadline_exceeded", 0)
    assert 7 <= waste["tokens"] <= MOST_COUNTED * 7
    made = f"and {waste['tokens']} tokens: deadline_exceeded"
    assert any(made in text for text in told.texts)


async def test_a_server_that_is_busy_with_others_is_told_everywhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    body = {"max_tokens": 4, "timeout_seconds": 6}
    told, wasted = await explained(capsys, lambda house: house.primary.faults.answer_busy(), body)
    # What a server refuses again and again is one attempt on record, and a turn each on the trace.
    [attempt] = told.answer["details"]["tried"]
    assert (attempt["error"], attempt["tokens"]) == ("api_rate_limited", 0)
    assert attempt["because"] == "the deadline leaves no time for another attempt"
    assert told.causes == ["busy", "given_up"]
    assert told.by_spans[-2:] == told.by_why
    assert len(told.by_spans) > 2
    assert set(told.by_spans) == {"busy", "retry_scheduled", "given_up", "waited"}
    assert any("primary was busy with others for" in text for text in told.texts)
    assert wasted == []


async def test_those_ahead_are_told_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    with http_collector() as collector:
        settle = partial(change, endpoint=collector.endpoint, servers=1)
        async with (
            open_house(capsys, QUICK, settle) as house,
            httpx.AsyncClient(base_url=house.running.url, timeout=60) as client,
        ):
            house.primary.faults.stall(after_tokens=1)
            items = [{"content": str(n), "max_tokens": 4} for n in range(4)]
            headers = {"prefer": "respond-async"}
            accepted = (await client.post("/events", json=items, headers=headers)).json()
            await house.until(lambda r: r["queue"].get("queued") == 3)
            house.primary.faults.clear()
            await house.until(lambda r: r["queue"].get("succeeded") == 4)
            last = accepted[-1]["event_id"]
            lines = (await house.json("why", last))["lines"]
            house.running.stop()
            await house.running.stopped.wait()
        turns = await trio.to_thread.run_sync(turns_of, collector, last)
    told = Told(lines, turns, {})
    told.check()
    [waited] = told.attributes("waited")
    assert waited["ai_ticket.behind"] == 3
    assert any(text.startswith("waited ") and text.endswith(" behind 3") for text in told.texts)


async def test_what_was_taken_ahead_for_its_beginning_is_told_everywhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def grouped(config: Config, endpoint: str) -> Config:
        changed = change(config, endpoint=endpoint, servers=1)
        return replace(changed, pipeline=replace(changed.pipeline, group_by_prefix=True))

    def item(kind: str) -> dict[str, Any]:
        system = {"role": "system", "content": kind * 300}
        messages = [system, {"role": "user", "content": "Hi"}]
        return {"content": {"messages": messages}, "max_tokens": 4}

    with http_collector() as collector:
        async with (
            open_house(capsys, QUICK, partial(grouped, endpoint=collector.endpoint)) as house,
            httpx.AsyncClient(base_url=house.running.url, timeout=60) as client,
        ):
            house.primary.faults.stall(after_tokens=1)
            headers = {"prefer": "respond-async"}
            items = [item(kind) for kind in "abba"]
            accepted = (await client.post("/events", json=items, headers=headers)).json()
            await house.until(lambda r: r["queue"].get("queued") == 3)
            house.primary.faults.clear()
            await house.until(lambda r: r["queue"].get("succeeded") == 4)
            first, last = accepted[1]["event_id"], accepted[3]["event_id"]
            lines = {i: (await house.json("why", i))["lines"] for i in (first, last)}
            metrics = house.running.daemon._look.metrics
            house.running.stop()
            await house.running.stopped.wait()
        turns = {i: await trio.to_thread.run_sync(turns_of, collector, i) for i in lines}
    ahead, passed_over = (Told(lines[i], turns[i], {}) for i in (last, first))
    ahead.check()
    passed_over.check()
    assert ahead.by_why == ["waited", "taken_ahead"]
    [taken] = ahead.attributes("taken_ahead")
    assert taken["ai_ticket.ahead_of"] == 2
    assert any(text.startswith("taken ahead of 2 events: primary had") for text in ahead.texts)
    assert passed_over.by_why == ["waited", "overtaken"]
    assert any(text.startswith("1 event was taken ahead of it") for text in passed_over.texts)
    for place, number in (("ahead", 1), ("in_turn", 1), ("read_anew", 2)):
        name, labels = "ai_ticket_pipeline_grouped_starts_total", {"backend": "primary"}
        labels["place"] = place
        assert metrics.registry.get_sample_value(name, labels) == number


async def test_a_stop_that_interrupts_is_told_everywhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with http_collector() as collector:
        settle = partial(change, endpoint=collector.endpoint, servers=1)
        async with open_house(capsys, QUICK, settle) as house:
            house.primary.faults.stall(after_tokens=6, ignores_abort=False)
            told = await house.json("submit", "Hello", "--no-wait", "--max-tokens", "40")
            await house.primary.wait_for(lambda s: s.faults.stalled_tasks == 1)
            house.running.stop()
            await house.running.stopped.wait()
            metrics = house.running.daemon._look.metrics
            async with opened(house.folder / "store/events.db") as store:
                record = await store.get(told["event_id"])
        turns = await trio.to_thread.run_sync(turns_of, collector, told["event_id"])
    assert [e.name for e in turns[0].events] == ["attempt_failed", "put_back"]
    labels = {"backend": "primary", "cause": "daemon_stopped"}
    name = "ai_ticket_kobold_wasted_tokens_total"
    assert record is not None
    [attempt] = record.attempts
    assert (attempt.waste, attempt.counted) == (Waste.DAEMON_STOPPED, False)
    assert attempt.tokens is not None
    assert 6 <= attempt.tokens <= MOST_COUNTED * 6
    assert metrics.registry.get_sample_value(name, labels) == attempt.tokens
