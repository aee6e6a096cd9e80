"""What a generation is said to have cost, by what the server tells of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import trio

from ai_ticket_daemon.backends.dialects import wire_dialect
from ai_ticket_daemon.backends.generation import GenerationRequest
from ai_ticket_daemon.backends.generation_stream import Completion
from ai_ticket_daemon.backends.kobold.features import Features, Told, features_of
from ai_ticket_daemon.backends.kobold.probe import KoboldProbe
from ai_ticket_daemon.backends.kobold.usage import Bill
from ai_ticket_daemon.backends.tokens import TokenCounter
from ai_ticket_daemon.backends.transport.wire import Wire
from ai_ticket_daemon.config.backends import Dialect, ServerConfig
from ai_ticket_daemon.events.event import Message, Role, Sampling
from ai_ticket_daemon.events.outcome import Usage
from tests.support.hostile_server import Odd, open_hostile_server
from tests.support.odd_answers import answer
from tests.support.well_server import PERF, WELL

OLD = features_of(Told({"version": "1.76"}))
NEW = features_of(Told({"version": "1.115.1"}))
UNKNOWN = features_of(Told({}))
MADE = Completion("Hello.", "stop", None, stopped=False, characters=6)


async def usage_of(
    completion: Completion,
    *,
    features: Features = OLD,
    dialect: Dialect = Dialect.OPENAI_CHAT,
    in_flight: int = 1,
    prompt_tokens: int | None = None,
    took: float = 1.0,
    late: bool = False,
    **figures: Any,
) -> Usage:
    """Return the usage by a server whose statistics say this; it counts 3 tokens in any text."""
    told = {"idle": 1, "queue": 0, "uptime": 1e6, "total_gens": 3, "stop_reason": 1}
    perf = Odd(answer(told | {"last_token_count": 9} | figures))
    async with open_hostile_server({**WELL, PERF: perf}) as server:
        wire = Wire(server.url, password=None, connect_timeout_seconds=60.0, keep_alive=False)
        probe = KoboldProbe(wire, on_change=lambda: None)
        probe.features = features
        config = ServerConfig("p", url=server.url, dialect=dialect, max_in_flight=in_flight)
        counter = TokenCounter(wire)
        bill = Bill(config, wire_dialect(dialect), wire=wire, counter=counter, probe=probe)
        _, usage = await bill.settle(
            completion,
            GenerationRequest((Message(Role.USER, "Please greet me"),), Sampling(max_tokens=16)),
            prompt_tokens=prompt_tokens,
            took_seconds=took,
            # However busy this machine is, it is soon enough, or too late.
            ended_at=trio.current_time() + (-3600.0 if late else 3600.0),
            began_at=trio.current_time() - 1800.0 if late else None,
        )
    return usage


async def test_the_counters_of_the_server_are_taken_where_it_tells_no_usage() -> None:
    assert await usage_of(MADE, last_input_count=14) == Usage(14, 9)
    assert await usage_of(MADE) == Usage(3, 9)
    assert await usage_of(replace(MADE, usage=Usage(100, 100))) == Usage(3, 9)
    assert await usage_of(replace(MADE, usage=Usage(14, 24))) == Usage(14, 24)


async def test_a_prompt_counted_by_a_layout_that_is_not_known_is_called_an_estimate() -> None:
    assert await usage_of(MADE, features=UNKNOWN) == Usage(3, 9, estimated=True)
    assert await usage_of(MADE, features=UNKNOWN, dialect=Dialect.KOBOLD) == Usage(3, 9)
    assert await usage_of(MADE, features=NEW) == Usage(3, 9, estimated=True)
    assert await usage_of(MADE, features=NEW, prompt_tokens=17) == Usage(17, 9)
    assert await usage_of(MADE, features=UNKNOWN, last_input_count=14) == Usage(14, 9)


async def test_counters_read_late_are_taken_if_nobody_got_the_lock_since() -> None:
    assert await usage_of(MADE, late=True, idletime=1900.0) == Usage(3, 9)
    assert await usage_of(MADE, late=True, idletime=1700.0) == Usage(3, 3)
    assert await usage_of(MADE, late=True, idletime=None) == Usage(3, 3)


async def test_counters_that_stand_still_are_not_taken() -> None:
    assert await usage_of(MADE, last_token_count=0, last_input_count=0) == Usage(3, 3)


async def test_counters_that_cannot_be_of_this_generation_are_not_taken() -> None:
    assert await usage_of(MADE, last_token_count=4000, last_input_count=14) == Usage(3, 3)
    assert await usage_of(MADE, last_input_count=10**9) == Usage(3, 9)


async def test_counters_of_a_server_that_makes_several_at_once_are_not_taken() -> None:
    usage = await usage_of(MADE, features=NEW, in_flight=4, prompt_tokens=17, last_input_count=14)
    assert usage == Usage(17, 3)


async def test_what_was_too_quick_to_be_counted_is_called_an_estimate() -> None:
    assert await usage_of(MADE, took=0.0) == Usage(12, 2, estimated=True)
    assert await usage_of(replace(MADE, usage=Usage(14, 24)), took=0.0) == Usage(14, 24)
