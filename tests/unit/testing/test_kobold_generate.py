from __future__ import annotations

import re
from dataclasses import replace

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from ai_ticket_daemon.testing.kobold import KoboldSettings, answer_mark, expected_completion
from ai_ticket_daemon.testing.kobold.faults import Faults
from ai_ticket_daemon.testing.kobold.generate import Engine, plan_answer, tokenize

SETTINGS = KoboldSettings(tokens_per_second=10, prompt_tokens_per_second=100)
ECHO = replace(SETTINGS, reply="echo")


class NoProcess:
    def kill(self, *, reset: bool) -> None:
        raise AssertionError

    def stop_listening(self) -> None:
        raise AssertionError

    def start(self, *, after_seconds: float = 0.0) -> None:
        return

    def reload(self, *, model: bool) -> None:
        return


@pytest.fixture
def faults() -> Faults:
    return Faults(NoProcess(), lambda: None)


@pytest.fixture
def engine(faults: Faults) -> Engine:
    return Engine(SETTINGS, faults, lambda: None)


def test_an_answer_begins_with_the_mark_of_its_request() -> None:
    text = expected_completion("hello", settings=SETTINGS, max_tokens=50)
    assert text.startswith(answer_mark("hello"))
    assert answer_mark("hello") != answer_mark("hallo")


def test_a_positive_seed_changes_the_words_and_other_seeds_do_not() -> None:
    texts = [
        expected_completion("x", settings=SETTINGS, max_tokens=20, seed=s) for s in range(-1, 3)
    ]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


@given(st.text(), st.integers(-3, 200), st.booleans())
def test_an_answer_never_exceeds_its_limit(subject: str, limit: int, ban: bool) -> None:
    plan = plan_answer(subject, settings=SETTINGS, max_tokens=limit, ban_end_of_text=ban)
    assert len(plan.tokens) <= max(limit, 0)
    assert plan.text == "".join(plan.tokens)
    if ban and limit > 0:
        assert (len(plan.tokens), plan.stop_reason) == (limit, 0)


def test_an_echo_repeats_the_request_and_ends_by_itself() -> None:
    plan = plan_answer("1, 2, 3, 4", settings=ECHO, max_tokens=50)
    assert (plan.text, plan.stop_reason) == ("1, 2, 3, 4", 1)


def test_a_stop_string_is_cut_off_or_kept_as_asked() -> None:
    def text(trim: bool) -> tuple[str, int]:
        plan = plan_answer(
            "5, 6, 7, 8, 9", settings=ECHO, max_tokens=50, stops=(" 8",), trim_stop=trim
        )
        return plan.text, plan.stop_reason

    assert text(trim=True) == ("5, 6, 7,", 2)
    assert text(trim=False) == ("5, 6, 7, 8,", 2)


@given(st.text("ab ", min_size=1), st.text("ab ", min_size=1, max_size=4))
def test_a_stream_only_ever_adds_to_what_it_has_shown(subject: str, stop: str) -> None:
    plan = plan_answer(subject, settings=ECHO, max_tokens=99, stops=(stop,), trim_stop=True)
    for produced in range(len(plan.tokens) + 1):
        assert plan.text.startswith(plan.shown(produced))
    if plan.stop_reason == 2:
        assert stop not in plan.text


def test_digits_are_tokens_of_their_own() -> None:
    assert tokenize("Hello world, w12") == ["Hello", " world", ",", " w", "1", "2"]
    assert re.fullmatch(r"\[[0-9a-f]{8}\]", answer_mark("\ud800"))


async def test_writing_takes_the_time_of_the_prompt_and_of_each_token(
    engine: Engine, autojump_clock: trio.testing.MockClock
) -> None:
    started = trio.current_time()
    plan = plan_answer("x", settings=SETTINGS, max_tokens=20)
    assert not engine.begin(plan, 300, 7)
    await engine.write()
    assert trio.current_time() - started == pytest.approx(3 + 2)
    assert engine.text == plan.text
    assert engine.last_process_ms == pytest.approx(10)
    assert engine.last_eval_ms == pytest.approx(100)
    assert (engine.last_token_count, engine.last_seed, engine.total_generations) == (20, 7, 1)


async def test_of_a_prompt_that_begins_as_the_last_text_did_only_the_rest_is_read(
    engine: Engine, autojump_clock: trio.testing.MockClock
) -> None:
    system = [" rule"] * 300
    plan = plan_answer("x", settings=SETTINGS, max_tokens=20)

    async def read(prompt: list[str]) -> tuple[int, int]:
        started = trio.current_time()
        engine.begin(plan, len(prompt), 7, prompt)
        await engine.write()
        assert engine.last_input_count == len(prompt)
        assert engine.last_process_ms == pytest.approx(10)
        return engine.to_read, round((trio.current_time() - started - 2) * 1000)

    assert await read([*system, "a"]) == (301, 3010)
    assert await read([*system, "a"]) == (1, 10)
    assert await read([*system, "b", "c"]) == (2, 20)
    assert await read([*system, "b", "c", *plan.tokens, "d"]) == (1, 10)
    assert await read(["other", *system]) == (301, 3010)


async def test_what_was_read_of_a_prompt_before_an_abort_is_known(
    engine: Engine, autojump_clock: trio.testing.MockClock
) -> None:
    prompt = [f" {number}" for number in range(1536)]
    plan = plan_answer("x", settings=SETTINGS, max_tokens=20)
    engine.begin(plan, len(prompt), 7, prompt)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.write)
        await trio.sleep(6)
        engine.abort()
    engine.begin(plan, len(prompt), 7, prompt)
    assert engine.to_read == 512
    engine.abort()


async def test_an_abort_while_writing_leaves_the_text_so_far(
    engine: Engine, autojump_clock: trio.testing.MockClock
) -> None:
    plan = plan_answer("x", settings=SETTINGS, max_tokens=20)
    engine.begin(plan, 0, 7)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.write)
        await trio.sleep(0.55)
        assert engine.text == "".join(plan.tokens[:5])
        engine.abort()
    assert engine.text == "".join(plan.tokens[:5])
    assert (engine.stop_reason, engine.last_token_count) == (0, 5)


async def test_an_abort_while_reading_waits_for_the_batch_in_hand(
    engine: Engine, autojump_clock: trio.testing.MockClock
) -> None:
    started = trio.current_time()
    engine.begin(plan_answer("x", settings=SETTINGS, max_tokens=20), 1536, 7)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.write)
        await trio.sleep(6)
        engine.abort()
    assert trio.current_time() - started == pytest.approx(2 * 5.12)
    assert engine.text == ""


async def test_an_abort_between_generations_is_forgotten(
    engine: Engine, autojump_clock: trio.testing.MockClock
) -> None:
    engine.abort()
    engine.begin(plan_answer("x", settings=SETTINGS, max_tokens=3), 0, 7)
    await engine.write()
    assert engine.last_token_count == 3
    assert not engine.aborted


async def test_a_stalled_generation_goes_on_once_the_fault_is_cleared(
    engine: Engine, faults: Faults, autojump_clock: trio.testing.MockClock
) -> None:
    faults.stall(after_tokens=3)
    engine.begin(plan_answer("x", settings=SETTINGS, max_tokens=9), 0, 7)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.write)
        await trio.sleep(100)
        assert (engine.produced, engine.running) == (3, True)
        faults.clear()
    assert engine.produced == 9


@pytest.mark.parametrize("ignores_abort", [True, False])
async def test_a_stalled_generation_can_be_aborted_only_if_the_fault_allows_it(
    engine: Engine,
    faults: Faults,
    ignores_abort: bool,
    autojump_clock: trio.testing.MockClock,
) -> None:
    faults.stall(after_tokens=3, ignores_abort=ignores_abort)
    engine.begin(plan_answer("x", settings=SETTINGS, max_tokens=9), 0, 7)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.write)
        await trio.sleep(100)
        engine.abort()
        await trio.sleep(1)
        assert engine.running is ignores_abort
        nursery.cancel_scope.cancel()


async def test_slowing_down_bears_on_the_running_generation(
    engine: Engine, faults: Faults, autojump_clock: trio.testing.MockClock
) -> None:
    started = trio.current_time()
    engine.begin(plan_answer("x", settings=SETTINGS, max_tokens=20), 0, 7)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(engine.write)
        await trio.sleep(0.95)
        faults.slow_down(tokens_per_second=1)
    assert trio.current_time() - started == pytest.approx(1 + 10)
