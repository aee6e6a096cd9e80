"""With ``group_by_prefix`` a server gets prompts that begin alike one after the other."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from msgspec import structs

from ai_ticket_daemon.config.pipeline import PipelineConfig
from ai_ticket_daemon.events.event import Message, Role
from ai_ticket_daemon.pipeline.observer import Place
from tests.support.pipeline_house import PRIMARY, Ends, House, event, failure, running

if TYPE_CHECKING:
    from trio.testing import MockClock

    from ai_ticket_daemon.events.event import Event

GROUPED = PipelineConfig(group_by_prefix=True, group_by_prefix_events=4)
INTERLEAVED = "a1 b1 a2 b2 a3 b3 a4 b4"


def alike(name: str, seconds: float = 300) -> Event:
    """Return an event whose system message follows from the first letter of its name."""
    made = event(name, seconds=seconds)
    return structs.replace(made, messages=(Message(Role.SYSTEM, name[0] * 300), *made.messages))


async def run_all(house: House, names: str = INTERLEAVED) -> str:
    outcomes = await house.pipeline.run_batch([alike(name) for name in names.split()])
    assert len(outcomes) == len(names.split())
    return " ".join(house.primary.prompts)


class Places(Ends):
    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[tuple[str, Place]] = Counter()

    def prompt_placed(self, backend: str, place: Place) -> None:
        self.places[backend, place] += 1


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Places:
    made = Places()
    monkeypatch.setattr("tests.support.pipeline_house.Ends", lambda: made)
    return made


async def test_events_run_in_their_order_unless_they_are_to_be_grouped(
    autojump_clock: MockClock, places: Places
) -> None:
    async with running(PipelineConfig()) as house:
        assert await run_all(house) == INTERLEAVED
    assert not places.places


async def test_a_server_gets_what_begins_as_the_prompt_before_did(
    autojump_clock: MockClock, places: Places
) -> None:
    async with running(GROUPED) as house:
        assert await run_all(house) == "a1 a2 a3 a4 b1 b2 b3 b4"
    # Of the events that follow their like, those of "b" are next anyway.
    assert places.places == {
        ("primary", Place.READ_ANEW): 2,
        ("primary", Place.AHEAD): 3,
        ("primary", Place.IN_TURN): 3,
    }


async def test_no_event_is_overtaken_by_more_than_was_set(autojump_clock: MockClock) -> None:
    async with running(replace(GROUPED, group_by_prefix_events=2)) as house:
        assert await run_all(house) == "a1 a2 a3 b1 b2 b3 b4 a4"


async def test_no_event_is_overtaken_for_longer_than_was_set(autojump_clock: MockClock) -> None:
    async with running(replace(GROUPED, group_by_prefix_seconds=2)) as house:
        # A turn takes a second: a2 and a3 may run before b1, a4 may not.
        assert await run_all(house) == "a1 a2 a3 b1 b2 b3 b4 a4"


async def test_what_was_accepted_before_events_are_grouped_keeps_its_place(
    autojump_clock: MockClock,
) -> None:
    async with running(replace(GROUPED, group_by_prefix=False)) as house:
        chosen = house.pipeline._queue._order()
        await house.pipeline.enqueue([alike(name) for name in ["a1", "b1", "a2"]])
        house.pipeline._queue._order = lambda: replace(chosen, group_by_prefix=True)
        assert await run_all(house, "a3 b2 a4") == "a1 b1 a2 a3 a4 b2"


async def test_after_a_failure_nothing_is_taken_ahead_for_what_was_half_read(
    autojump_clock: MockClock, places: Places
) -> None:
    settings = replace(GROUPED, max_attempts=1)
    async with running(settings) as house:
        house.primary.answers.append(failure())
        assert await run_all(house, "a1 b1 a2") == "a1 b1 a2"
    assert places.places == {("primary", Place.READ_ANEW): 3}


async def test_each_of_several_slots_has_a_prompt_of_its_own(
    autojump_clock: MockClock, places: Places
) -> None:
    async with running(GROUPED, (replace(PRIMARY, max_in_flight=2),)) as house:
        await run_all(house)
    assert places.places["primary", Place.READ_ANEW] == 2


async def test_an_event_says_how_many_it_was_taken_ahead_of(autojump_clock: MockClock) -> None:
    async with running(GROUPED) as house:
        await run_all(house, "a1 b1 b2 a2 a3")
        attempts = {}
        for name in ["a1", "b1", "b2", "a2", "a3"]:
            status = await house.pipeline.status(f"id-{name}")
            assert status is not None
            [attempt] = status.attempts
            attempts[name] = (attempt.ahead_of, attempt.overtaken)
    assert attempts == {"a1": (0, 0), "a2": (2, 0), "a3": (2, 0), "b1": (0, 2), "b2": (0, 2)}
