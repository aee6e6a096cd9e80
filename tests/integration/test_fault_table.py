"""The fault table: what each way of each client comes to under each fault, and within what time.

Real sockets, the whole daemon, a simulated primary and standby of version 1.115; what a fault comes
to on 1.76 where the server itself makes the difference. A generation takes 0.7 s, a server
is probed every 0.2 s (0.05 s in doubt) with 0.5 s to answer, a first token has 3.5 s, the next one
1.5 s. The time allowed runs from the fault, or from the request if that came later; each has 3 s in
it for the threads that everything waits for. The cells run side by side and are judged one by one.
Their clock stands still while one of them computes, so a busy machine makes none of them late.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
import trio

from ai_ticket_daemon.backends.kobold.probe import IDENTIFY_EVERY
from ai_ticket_daemon.testing.kobold import VERSIONS
from tests.support.fault_house import (
    CONTENT,
    FIRST_TOKEN_SECONDS,
    GENERATION_SECONDS,
    STALL_SECONDS,
    TOKENS,
    Answer,
    House,
    open_house,
)
from tests.support.idle_clock import IdleClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Fault = Callable[[House], Awaitable[None]]

RATE = 0.75
"""Seconds of the cells' clock for each second in which the cells wait."""
AT_ONCE = 32
"""Cells at a time; each of them has an SQLite of its own, and sockets."""
SLACK = 3.0
SLOW_PROMPT_SECONDS = 2.0
SLOW_TOKENS_A_SECOND = 10.0
SLOWLY_READ_SECONDS = SLOW_PROMPT_SECONDS + TOKENS / 60
SLOWLY_GENERATED_SECONDS = 0.2 + TOKENS / SLOW_TOKENS_A_SECOND
"""How long a generation of a slow server takes."""
MODES = ("waiting", "streaming", "async", "batch")
OLDER, NEWER = VERSIONS
Cell = tuple[str, str, str]
"""The version of the servers, a fault, a mode."""


# The faults. Each strikes before the event is sent, or while it is worked on.


async def refuses(house: House) -> None:
    house.primary.faults.refuse()


async def is_dead(house: House) -> None:
    house.primary.faults.die()


async def dies_reading_the_prompt(house: House) -> None:
    await house.primary_reads_the_prompt()
    house.strikes_now()
    house.primary.faults.die()


async def dies_generating(house: House) -> None:
    await house.primary_is_amid_the_text()
    house.strikes_now()
    house.primary.faults.die(reset=True)


async def refuses_others_generating(house: House) -> None:
    await house.primary_is_amid_the_text()
    house.primary.faults.refuse()
    await house.until_state("primary", "down")
    house.strikes_now()
    house.primary.faults.stall(after_tokens=1000)


async def both_die_under_it(house: House) -> None:
    await house.primary_reads_the_prompt()
    house.strikes_now()
    house.primary.faults.die()
    await house.standby.wait_for(lambda s: s.running)
    house.standby.faults.die()
    house.primary.faults.start_again()
    await house.until_state("primary", "ready")
    house.standby.faults.start_again()


async def freezes_reading_the_prompt(house: House) -> None:
    await house.primary_reads_the_prompt()
    house.strikes_now()
    house.primary.faults.freeze()


async def freezes_generating(house: House) -> None:
    await house.primary_is_amid_the_text()
    house.strikes_now()
    house.primary.faults.freeze()


async def is_frozen(house: House) -> None:
    house.primary.faults.freeze()


async def makes_no_first_token(house: House) -> None:
    house.primary.faults.stall(after_tokens=0)


async def stalls_generating(house: House) -> None:
    house.primary.faults.stall(after_tokens=12)


async def stalls_but_can_be_aborted(house: House) -> None:
    house.primary.faults.stall(after_tokens=12, ignores_abort=False)


async def reads_prompts_slowly(house: House) -> None:
    house.primary.faults.slow_down(tokens_per_second=60, prompt_seconds=SLOW_PROMPT_SECONDS)


async def generates_slowly(house: House) -> None:
    house.primary.faults.slow_down(tokens_per_second=SLOW_TOKENS_A_SECOND, prompt_seconds=0.2)


async def loses_its_model(house: House) -> None:
    house.primary.faults.lose_model()


async def swaps_its_model(house: House) -> None:
    house.primary.faults.swap_model(model="koboldcpp/another")
    with trio.fail_after(IDENTIFY_EVERY * 0.2 + SLACK):
        await house.until_state("primary", "wrong_model")


async def restarts_generating(house: House) -> None:
    await house.primary_reads_the_prompt()
    house.strikes_now()
    house.primary.faults.restart(after_seconds=0.3)


async def is_busy_for_a_second(house: House) -> None:
    house.primary.faults.answer_busy()
    await house.primary.wait_for(lambda s: s.observations.busy_answers_total >= 2)
    await trio.sleep(0.5)
    house.strikes_now()
    house.primary.faults.clear()


async def refuses_the_credential(house: House) -> None:
    house.primary.faults.reject_credentials()


async def cuts_the_stream_at_its_start(house: House) -> None:
    house.primary.faults.cut_stream(after_events=0)


async def flaps_every_second(house: House) -> None:
    while True:
        house.primary.faults.die()
        await trio.sleep(1)
        house.primary.faults.start_again()
        await trio.sleep(1)


async def both_are_dead(house: House) -> None:
    house.primary.faults.die()
    house.standby.faults.die()
    await house.until_state("primary", "down")
    await house.until_state("standby", "down")


async def both_return_after_a_second(house: House) -> None:
    await trio.sleep(1)
    house.primary.faults.start_again()
    house.standby.faults.start_again()


async def both_die_and_return(house: House) -> None:
    await house.primary_reads_the_prompt()
    house.primary.faults.die()
    house.standby.faults.die()
    await house.until_state("standby", "down")
    house.strikes_now()
    house.primary.faults.start_again()
    house.standby.faults.start_again()


def answers(script: str) -> Fault:
    async def fault(house: House) -> None:
        house.primary.faults.script(script)

    return fault


# What is to come of it.


@dataclass(frozen=True, slots=True)
class Expected:
    """How an event is to end: a completion by one of ``backends``, or one of ``errors``."""

    seconds: float
    backends: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    after_text: bool = False
    why: str | None = None
    generation: float = GENERATION_SECONDS

    def fits(self, answer: Answer) -> bool:
        """Whether it ended so; in time or not."""
        if self.errors:
            return answer.error in self.errors
        return answer.backend in self.backends


def by(*backends: str, within: float = 0.0, generation: float = GENERATION_SECONDS) -> Expected:
    """A whole completion by one of these, a generation and ``within`` seconds after the fault."""
    return Expected(within + generation + SLACK, backends, generation=generation)


def fails(
    *errors: str, within: float = 0.0, after_text: bool = False, why: str | None = None
) -> Expected:
    """One of these errors; ``after_text`` if the client had received a part of the completion."""
    return Expected(within + SLACK, (), errors, after_text, why)


@dataclass(frozen=True, slots=True)
class Row:
    """One fault: how it strikes, what each client gets, and what the operator is told.

    An event for later, and the first event of a batch of two, come to what a waiting one does, or
    to ``patient``, where it pays that nobody waits. So does the second event of the batch, or to
    ``second``.
    """

    waiting: Expected
    streaming: Expected
    patient: Expected | None = None
    second: Expected | None = None
    before: Fault | None = None
    during: Fault | None = None
    events: int = 1
    told: tuple[str, ...] = ()
    state: str | None = None
    may_switch: bool = False

    def expected(self, mode: str, index: int) -> Expected:
        """What the event at ``index`` is to come to."""
        if mode in ("waiting", "streaming"):
            return self.waiting if mode == "waiting" else self.streaming
        first = self.patient or self.waiting
        if index == 0:
            return first
        second = self.second or first
        # One server may have to make both completions, one after the other.
        return replace(second, seconds=max(first.seconds, second.seconds) + second.generation)


STANDBY, PRIMARY = by("standby"), by("primary")
DIED = fails("api_connection_error", after_text=True)
EITHER = by("primary", "standby")
NO_BACKEND = fails("no_backend_available")
POISON = fails("api_connection_error", within=1.0, why="2 backends were lost under this event")
LOOKS = 0.2 + 0.5 + 0.2
"""A frozen server: until its next probe, the time for it, and one look at the generation."""
# Which of two limits notices first is a matter of the moment.
FROZE = fails("api_timeout", "api_stalled", within=STALL_SECONDS + 2.0, after_text=True)

TABLE = {
    # The server cannot be reached, or dies.
    "refuses": Row(STANDBY, STANDBY, before=refuses, told=("failover",), state="down"),
    # A server that is marked down keeps the generation that gets on there.
    "refuses all others": Row(
        PRIMARY, PRIMARY, second=STANDBY, during=refuses_others_generating,
        told=("failover",), state="down",
    ),
    "is dead": Row(STANDBY, STANDBY, before=is_dead, told=("failover",), state="down"),
    "dies reading the prompt": Row(
        STANDBY, STANDBY, during=dies_reading_the_prompt, told=("failover",), state="down"
    ),
    "dies generating": Row(
        STANDBY, DIED, during=dies_generating, told=("failover",), state="down"
    ),
    "both die under it": Row(
        POISON, POISON, second=EITHER, during=both_die_under_it, told=("failover",)
    ),
    "restarts": Row(STANDBY, STANDBY, during=restarts_generating, told=("failover",)),
    # It is there and says nothing.
    "is frozen": Row(
        by("standby", within=LOOKS), by("standby", within=LOOKS),
        before=is_frozen, told=("failover",), state="down",
    ),
    "freezes reading the prompt": Row(
        by("standby", within=LOOKS), by("standby", within=LOOKS),
        during=freezes_reading_the_prompt, told=("failover",), state="down",
    ),
    "freezes generating": Row(
        by("standby", within=STALL_SECONDS + 2.0), FROZE,
        during=freezes_generating, told=("failover",), state="down",
    ),
    # It generates without getting on; aborting takes 2 s, or 3 s before the first token, in vain.
    "makes no first token": Row(
        by("standby", within=FIRST_TOKEN_SECONDS + 3.0),
        by("standby", within=FIRST_TOKEN_SECONDS + 3.0),
        before=makes_no_first_token, told=("failover", "abort_without_effect"), state="stuck",
    ),
    "stalls generating": Row(
        by("standby", within=0.4 + STALL_SECONDS + 0.2 + 2.0),
        fails("api_stalled", within=0.4 + STALL_SECONDS + 2.0, after_text=True),
        before=stalls_generating, told=("failover", "abort_without_effect"), state="stuck",
    ),
    "stalls, can be aborted": Row(
        by("standby", within=0.4 + STALL_SECONDS + 0.2 + 0.2),
        fails("api_stalled", within=0.4 + STALL_SECONDS + 0.2, after_text=True),
        before=stalls_but_can_be_aborted, told=("failover",),
    ),
    # It is healthy, only slow.
    "reads prompts slowly": Row(
        by("primary", generation=SLOWLY_READ_SECONDS),
        by("primary", generation=SLOWLY_READ_SECONDS),
        before=reads_prompts_slowly,
    ),
    "generates slowly": Row(
        by("primary", generation=SLOWLY_GENERATED_SECONDS),
        by("primary", generation=SLOWLY_GENERATED_SECONDS),
        before=generates_slowly,
    ),
    # It is not what it should be.
    "loses its model": Row(
        STANDBY, STANDBY, before=loses_its_model, told=("failover",), state="wrong_model"
    ),
    "swaps its model": Row(
        STANDBY, STANDBY, before=swaps_its_model, told=("failover",), state="wrong_model"
    ),
    "refuses the credential": Row(
        STANDBY, STANDBY, before=refuses_the_credential,
        told=("failover", "backend_credential_refused"), state="unauthorised",
    ),
    # Others use it, too.
    "is busy for a second": Row(PRIMARY, PRIMARY, during=is_busy_for_a_second),
    # It answers nonsense: the event goes to the standby, the primary goes on serving (until it has
    # failed at three events in a row).
    "answers 404": Row(STANDBY, STANDBY, before=answers("not_found"), told=("guest_sent",)),
    "answers 500": Row(STANDBY, STANDBY, before=answers("server_error"), told=("guest_sent",)),
    "answers garbage": Row(STANDBY, STANDBY, before=answers("garbage"), told=("guest_sent",)),
    "answers html": Row(STANDBY, STANDBY, before=answers("html"), told=("guest_sent",)),
    "answers half a JSON": Row(STANDBY, STANDBY, before=answers("half_json"), told=("guest_sent",)),
    "cuts the stream at its start": Row(PRIMARY, STANDBY, before=cuts_the_stream_at_its_start),
    # It closes without a byte and lives on: it cannot read the request, and nobody could.
    "closes without a byte": Row(
        fails("api_client_error", why="no retry can help"),
        fails("api_client_error", why="no retry can help"),
        before=answers("no_byte"), state="ready",
    ),
    # More than one thing at once.
    "flaps every second": Row(
        by("primary", "standby"), by("primary", "standby"),
        during=flaps_every_second, events=6, told=("failover",),
    ),
    "both are dead": Row(
        NO_BACKEND, NO_BACKEND, patient=by("primary", "standby", within=1.0 + 0.3),
        before=both_are_dead, during=both_return_after_a_second, may_switch=True,
    ),
    "both die and return": Row(
        by("primary", "standby", within=0.2), by("primary", "standby", within=0.2),
        during=both_die_and_return, may_switch=True,
    ),
}  # fmt: skip


# Running it.


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one cell."""

    answers: list[Answer]
    expected_text: str
    told: frozenset[str]
    state: str
    switches: int
    tried: int
    completed: int
    ended: int


# Of the older version only what it does itself, for one client at a time.
OLDER_FAULTS = (
    "dies generating",
    "freezes generating",
    "makes no first token",
    "stalls generating",
    "stalls, can be aborted",
    "reads prompts slowly",
    "generates slowly",
    "loses its model",
    "swaps its model",
    "refuses the credential",
    "is busy for a second",
    "cuts the stream at its start",
)
CELLS: list[Cell] = [
    (NEWER, fault, mode)
    for fault in TABLE
    # What a server answers is the same for everybody who waits for it.
    for mode in (MODES[:2] if fault.startswith("answers ") else MODES)
]
CELLS += [(OLDER, fault, mode) for fault in OLDER_FAULTS for mode in MODES[:2]]


async def run_cell(version: str, row: Row, mode: str) -> Result:
    async with open_house(version) as house:
        if row.before is not None:
            await row.before(house)
        async with trio.open_nursery() as nursery:
            if row.during is not None:
                nursery.start_soon(row.during, house)
            answers = [answer for _ in range(row.events) for answer in await house.ask(mode)]
            if row.during is flaps_every_second:
                nursery.cancel_scope.cancel()
        log = [r for server in (house.primary, house.standby) for r in server.log]
        names = ("failover", "failback", "guest_sent", "abort_without_effect")
        told = (*names, "backend_credential_refused")
        return Result(
            answers,
            house.primary.expected_completion(CONTENT, max_tokens=TOKENS),
            frozenset(name for name in told if house.daemon.log(name)),
            await house.state("primary"),
            len(house.daemon.log("failover")) + len(house.daemon.log("failback")),
            sum(record.started is not None for record in log),
            sum(record.outcome == "completed" and record.tokens > 0 for record in log),
            len(house.daemon.log("event_ended")),
        )


async def run_cells(cells: list[Cell]) -> dict[Cell, Result | Exception]:
    results: dict[Cell, Result | Exception] = {}
    limit = trio.CapacityLimiter(AT_ONCE)

    async def run(cell: Cell) -> None:
        async with limit:
            try:
                with trio.fail_after(60):
                    version, fault, mode = cell
                    results[cell] = await run_cell(version, TABLE[fault], mode)
            except Exception as error:  # noqa: BLE001 - it fails its own cell
                results[cell] = error

    async with trio.open_nursery() as nursery:
        for cell in cells:
            nursery.start_soon(run, cell)
    return results


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> dict[Cell, Result | Exception]:
    """Run the cells that were selected, once."""
    cells: list[Cell] = [
        (
            str(item.callspec.params["version"]),
            str(item.callspec.params["fault"]),
            str(item.callspec.params["mode"]),
        )
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module
    ]
    clock = IdleClock(RATE)
    return trio.run(run_cells, cells, clock=clock, instruments=[clock])


@pytest.mark.parametrize(("version", "fault", "mode"), CELLS)
def test_the_fault_table(
    version: str, fault: str, mode: str, results: dict[Cell, Result | Exception]
) -> None:
    row, result = TABLE[fault], results[version, fault, mode]
    if isinstance(result, Exception):
        raise result
    size = 2 if mode == "batch" else 1
    answers = result.answers
    if size == 2 and row.second is not None:
        # Which of the two began first is a matter of the moment.
        answers = sorted(answers, key=row.expected(mode, 0).fits, reverse=True)
    for index, answer in enumerate(answers):
        expected = row.expected(mode, index % size)
        assert expected.fits(answer), (expected, answer)
        # The answers of a batch come together, with the last one.
        assert answer.seconds <= row.expected(mode, size - 1).seconds, answer
        if answer.error is None:
            assert answer.text == result.expected_text
        assert bool(answer.text) is (answer.error is None or expected.after_text), answer
        assert expected.why is None or answer.why_not_retried == expected.why
    succeeded = sum(answer.error is None for answer in result.answers)
    refused = sum(answer.error == "no_backend_available" for answer in result.answers)
    assert len(result.answers) == row.events * size
    assert result.ended == len(result.answers) - refused, "each accepted event ends once"
    assert result.completed == succeeded, "and is generated to its end once"
    if row.waiting is POISON:
        assert result.tried == 1 + size
    assert result.switches <= 4
    assert set(row.told) <= result.told
    if "failover" not in row.told and not row.may_switch:
        assert "failover" not in result.told
    assert row.state in (None, result.state)
