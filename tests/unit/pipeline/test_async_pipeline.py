"""The pipeline as a whole: from an event to its completion, and how it stops."""

from __future__ import annotations

import ast
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest
import trio

from ai_ticket_daemon import pipeline
from ai_ticket_daemon.config.pipeline import PipelineConfig
from ai_ticket_daemon.errors import (
    ErrorCode,
    RequestRefused,
)
from ai_ticket_daemon.events.outcome import Failed, Succeeded
from ai_ticket_daemon.events.state import EventState
from tests.support.pipeline_house import event, failure, running

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_an_event_becomes_a_completion(autojump_clock: MockClock) -> None:
    async with running() as house:
        outcome = await (await house.pipeline.submit(event("good day"))).outcome()
    assert isinstance(outcome, Succeeded)
    assert outcome.text == "GOOD DAY"
    assert outcome.backend == "primary"
    assert [a.error for a in outcome.attempts] == [None]
    assert house.ends.states == {"id-good day": EventState.SUCCEEDED}


async def test_drain_runs_what_clients_wait_for_and_leaves_the_rest_in_the_queue(
    autojump_clock: MockClock,
) -> None:
    async with running() as house:
        runs = await house.pipeline.submit(event("runs"))
        await trio.sleep(0.1)
        waits = await house.pipeline.submit(event("waits"))
        await house.pipeline.enqueue([event("later")])
        await house.pipeline.drain()
        assert trio.current_time() == pytest.approx(2.0)
        outcomes = await runs.outcome(), await waits.outcome()
        with pytest.raises(RequestRefused) as refused:
            await house.pipeline.submit(event("new"))
        await trio.sleep(5)
        status = await house.pipeline.status("id-later")
    assert all(isinstance(outcome, Succeeded) for outcome in outcomes)
    assert refused.value.code is ErrorCode.DRAINING
    assert status is not None
    assert status.state is EventState.QUEUED


async def test_who_waits_beyond_the_drain_is_told_and_the_event_goes_on_later(
    autojump_clock: MockClock,
) -> None:
    async with running() as house:
        await house.pipeline.submit(event("runs"))
        waits = await house.pipeline.submit(event("waits"))
        with trio.move_on_after(0.5):
            await house.pipeline.drain()
        house.pipeline.send_waiters_away()
        outcome = await waits.outcome()
        house.scope.cancel()
    assert isinstance(outcome, Failed)
    assert outcome.code is ErrorCode.DRAINING
    record = await house.store.get("id-waits")
    assert record is not None
    assert record.state is EventState.QUEUED


async def test_a_client_that_leaves_ends_the_drain(autojump_clock: MockClock) -> None:
    async with running() as house:
        house.primary.probe_error = failure()
        await trio.sleep(10)
        waits = await house.pipeline.submit(event("waits", seconds=1000), fail_fast=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(house.pipeline.drain)
            await trio.sleep(5)
            assert nursery.child_tasks
            waits.abandon()
        assert trio.current_time() == 15


async def test_an_event_retried_by_the_operator_starts_with_fresh_attempts(
    autojump_clock: MockClock,
) -> None:
    async with running(PipelineConfig(max_attempts=1)) as house:
        house.primary.answers = [failure()]
        [failed] = await house.pipeline.run_batch([event("a")])
        assert isinstance(failed, Failed)
        assert await house.pipeline.retry("id-a") is not None
        await trio.sleep(5)
        status = await house.pipeline.status("id-a")
    assert status is not None
    assert isinstance(status.outcome, Succeeded)
    assert [attempt.counted for attempt in status.attempts] == [False, True]


LAYERS = (
    ("async_pipeline",),
    ("intake", "maintenance"),
    ("dispatcher",),
    ("worker",),
    ("outcome_writer",),
    ("in_flight", "retry", "counters"),
    ("queue", "observer"),
    ("waiters", "turns"),
)
"""The modules of the package, from the top down, as the architecture draws them."""


def test_an_event_goes_one_way_and_each_module_knows_only_those_below() -> None:
    package = files(pipeline)
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    assert {f"{name}.py" for name in level} | {"__init__.py"} == {
        path.name for path in package.iterdir() if path.name.endswith(".py")
    }
    for name, above in level.items():
        tree = ast.parse(package.joinpath(f"{name}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                f"{pipeline.__name__}."
            ):
                imported = (node.module or "").rpartition(".")[2]
                assert level[imported] > above, f"{name} imports {imported}"
