"""Every recording of the real KoboldCPP, 1.76 and 1.115, replayed against the simulated one.

Each recording names a scenario: what the server is, what goes on there when the request arrives,
and what happens while it is under way. Recordings without an entry need an idle server only.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

import pytest
import trio

from ai_ticket_daemon.testing.kobold import (
    KoboldSettings,
    SimulatedKobold,
    open_simulated_kobold,
)
from ai_ticket_daemon.testing.recordings import (
    NEWER_VARYING,
    Answer,
    Recording,
    differences,
    load_recordings,
    parse_answer,
    receive,
)
from tests.support.project import ROOT

NEWER = "1.115 "
"""Before the names of the recordings of 1.115."""
OLDER_RECORDINGS = load_recordings(ROOT / "tests" / "fixtures" / "kobold")
NEWER_RECORDINGS = load_recordings(ROOT / "tests" / "fixtures" / "kobold-1.115")
RECORDINGS = OLDER_RECORDINGS | {
    NEWER + name: recording for name, recording in NEWER_RECORDINGS.items()
}
GUARD_SECONDS = 60
SILENCE_SECONDS = 0.1
SETTINGS = replace(
    KoboldSettings().scaled(0.1),
    multiuser=5,
    tokens_per_second=400,
    prompt_tokens_per_second=20_000,
    natural_tokens=(5000, 5000),
    overtake=False,
)
SLOW_PROMPT = replace(SETTINGS, prompt_seconds=0.2)
LOCKED = replace(SETTINGS, password="secret")
EMPTY = replace(SETTINGS, has_model=False)
HOLDER = {"prompt": "soup", "max_length": 2000, "genkey": "H"}
STAND_INS = {
    # Their long prompts were shortened when they were recorded.
    "abort_prompt_phase_result": json.dumps({"prompt": "item " * 400, "genkey": "E1"}),
    "disconnect_stream_prompt_phase": json.dumps(
        {"prompt": "item " * 400, "max_length": 400, "genkey": "E2"}
    ),
    # Its chunks were not recorded.
    NEWER + "error_chunked_request": json.dumps(
        {"messages": [{"role": "user", "content": "x"}], "max_tokens": 4}
    ),
}


def has_waiting(number: int, sim: SimulatedKobold) -> bool:
    return sim.waiting == number


class Stage:
    """A simulated server and the other clients it has."""

    def __init__(self, sim: SimulatedKobold, nursery: trio.Nursery) -> None:
        self.sim = sim
        self.nursery = nursery

    async def post(self, path: str, body: object) -> bytes:
        stream = await trio.open_tcp_stream("127.0.0.1", self.sim.port)
        async with stream:
            data = json.dumps(body).encode()
            head = f"POST {path} HTTP/1.1\r\ncontent-length: {len(data)}\r\n\r\n"
            await stream.send_all(head.encode() + data)
            try:
                return await receive(stream)
            except trio.BrokenResourceError:
                return b""

    async def generate(self, genkey: str = "", max_length: int = 4) -> None:
        body = {"prompt": "earlier", "max_length": max_length, "genkey": genkey}
        await self.post("/api/v1/generate", body)

    async def abort(self, genkey: str) -> None:
        await self.post("/api/extra/abort", {"genkey": genkey})

    async def occupy(self, genkey: str = "H", waiting: int = 0) -> None:
        """One long generation, and others waiting behind it."""
        body = HOLDER | {"genkey": genkey}
        self.nursery.start_soon(self.post, "/api/v1/generate", body)
        await self.sim.wait_for(lambda sim: sim.running == 1)
        for number in range(waiting):
            self.nursery.start_soon(self.generate, f"W{number}")
            await self.sim.wait_for(partial(has_waiting, number + 1))

    async def some_tokens(self) -> None:
        await self.sim.wait_for(lambda sim: sim.tokens_written >= 20)

    async def free(self) -> None:
        await self.sim.wait_for(lambda sim: sim.running == sim.waiting == 0)


Step = Callable[[Stage], Awaitable[None]]


async def nothing(stage: Stage) -> None:
    await trio.lowlevel.checkpoint()


async def remember_abort(stage: Stage) -> None:
    """Leave the key B9 in the server's memory, and nothing running."""
    await stage.occupy(waiting=1)
    await stage.abort("B9")
    await stage.abort("H")
    await stage.free()


async def use_up_abort(stage: Stage) -> None:
    await remember_abort(stage)
    await stage.generate("B9")


async def write_for_a_while(stage: Stage, genkey: str) -> None:
    await stage.occupy(genkey)
    await stage.some_tokens()


async def abort_while_waiting(stage: Stage, genkey: str) -> None:
    await stage.sim.wait_for(lambda sim: sim.waiting == 1)
    await stage.abort(genkey)
    await stage.abort("H")


async def abort_while_writing(stage: Stage, genkey: str) -> None:
    await stage.some_tokens()
    await stage.abort(genkey)


async def abort_while_reading(stage: Stage, genkey: str) -> None:
    await stage.sim.wait_for(lambda sim: sim.running == 1)
    await stage.abort(genkey)


async def let_holder_end(stage: Stage, waiting: int) -> None:
    await stage.sim.wait_for(lambda sim: sim.waiting == waiting)
    await stage.abort("H")


async def kill_while_waiting(stage: Stage) -> None:
    await stage.sim.wait_for(lambda sim: sim.waiting == 1)
    stage.sim.faults.die()


async def kill_while_writing(stage: Stage) -> None:
    await stage.sim.wait_for(lambda sim: sim.tokens_written >= 60)
    stage.sim.faults.die()


async def crash(stage: Stage) -> None:
    await stage.post("/api/v1/generate", {"prompt": "x", "max_context_length": 0})


async def open_silent_connections(stage: Stage) -> None:
    for _ in range(24):
        stage.nursery.start_soon(hold_open, stage.sim.port)
    await stage.sim.wait_for(lambda sim: sim.observations.open_connections == 24)


async def hold_open(port: int) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", port):
        await trio.sleep_forever()


async def count_beside(stage: Stage) -> None:
    """Count another, longer text just after the recorded request has come in."""
    await stage.sim.wait_for(lambda sim: sim.observations.open_connections == 1)
    await stage.post(
        "/api/extra/tokencount", {"prompt": "one two three four five six seven eight nine"}
    )


@dataclass(frozen=True)
class Scenario:
    settings: KoboldSettings = SETTINGS
    before: Step = nothing
    during: Step = nothing
    exact: bool = False


def occupied(waiting: int = 0, genkey: str = "H", settings: KoboldSettings = SETTINGS) -> Scenario:
    return Scenario(settings, before=partial(Stage.occupy, genkey=genkey, waiting=waiting))


def aborted(
    step: Callable[[Stage, str], Awaitable[None]],
    genkey: str,
    settings: KoboldSettings = SETTINGS,
) -> Scenario:
    return Scenario(settings, during=lambda stage: step(stage, genkey))


SCENARIOS = {
    "abort_idle_last_key": Scenario(before=partial(Stage.generate, genkey="A1")),
    "abort_no_key_while_queued": occupied(1),
    "abort_pending_key_hits_later": Scenario(before=remember_abort),
    "abort_pending_key_used_up": Scenario(before=use_up_abort),
    "abort_prompt_phase_result": Scenario(
        SLOW_PROMPT, during=partial(abort_while_reading, genkey="E1")
    ),
    "abort_queued_key": occupied(2),
    "abort_queued_key_result": Scenario(
        before=Stage.occupy, during=partial(abort_while_waiting, genkey="B2")
    ),
    "abort_queued_stream_result_stale": Scenario(
        before=partial(write_for_a_while, genkey="H"),
        during=partial(abort_while_waiting, genkey="B4"),
    ),
    "abort_running_chat_stream_result": aborted(abort_while_writing, "A2"),
    "abort_running_key": occupied(genkey="A1"),
    "abort_running_key_result": aborted(abort_while_writing, "A1"),
    "abort_running_native_stream_result": aborted(abort_while_writing, "A3"),
    "abort_running_no_key": occupied(),
    "abort_running_other_key": occupied(),
    "abort_unknown_key_while_queued": occupied(1),
    "auth_abort_missing_401": Scenario(LOCKED),
    "auth_check_missing_401": Scenario(LOCKED),
    "auth_missing_401": Scenario(LOCKED),
    "auth_ok": Scenario(LOCKED),
    "auth_scheme_lowercase_401": Scenario(LOCKED),
    "auth_stream_missing_401": Scenario(LOCKED),
    "auth_tokencount_missing_401": Scenario(LOCKED),
    "auth_wrong_401": Scenario(LOCKED),
    "busy_503": occupied(4),
    "busy_503_chat": occupied(4),
    "busy_503_multiuser0": occupied(settings=replace(SETTINGS, multiuser=0)),
    "busy_503_stream": occupied(4),
    "busy_503_unknown_path": occupied(4),
    "check_idle_no_key": Scenario(before=Stage.generate),
    "check_running_key": Scenario(before=partial(write_for_a_while, genkey="P0")),
    "check_running_wrong_key": Scenario(before=partial(write_for_a_while, genkey="P0")),
    "extra_version_nomodel": Scenario(replace(EMPTY, password="secret")),
    "extra_version_password": Scenario(LOCKED),
    "generate_queued_last": Scenario(
        before=partial(Stage.occupy, waiting=3), during=partial(let_holder_end, waiting=4)
    ),
    "model_nomodel": Scenario(EMPTY),
    "model_password_masked": Scenario(LOCKED),
    "model_password_ok": Scenario(LOCKED),
    "model_while_running": occupied(),
    "nomodel_chat": Scenario(EMPTY),
    "nomodel_chat_stream": Scenario(EMPTY),
    "nomodel_generate": Scenario(EMPTY),
    "nomodel_tokencount": Scenario(EMPTY, exact=True),
    "openai_models_nomodel": Scenario(EMPTY),
    "openai_models_password_open": Scenario(LOCKED),
    "perf_busy_no_queue": occupied(),
    "perf_busy_queue_full": occupied(4),
    "perf_busy_queued": occupied(3),
    "perf_fresh": Scenario(exact=True),
    "perf_idle": Scenario(before=Stage.generate),
    "perf_nomodel": Scenario(EMPTY, exact=True),
    "perf_password_open": Scenario(LOCKED),
    "perf_prompt_processing": occupied(settings=SLOW_PROMPT),
    "pool_exhausted_probe": Scenario(before=open_silent_connections),
    "post_unknown_404_waits": Scenario(
        before=Stage.occupy, during=partial(let_holder_end, waiting=1)
    ),
    "refused_after_crash": Scenario(before=crash),
    "restart_queued_cut": Scenario(before=Stage.occupy, during=kill_while_waiting),
    "restart_stream_cut": Scenario(during=kill_while_writing),
    "tokencount_concurrent_wrong": Scenario(
        replace(SETTINGS, tokencount_seconds=0.2, wrong_count_chance=1.0), during=count_beside
    ),
    "tokencount_while_running": occupied(),
}

NOT_CALLED = "the daemon never calls it"
NO_TOOLS = "the daemon offers no tools"
NO_LOGPROBS = "the daemon never asks for them"
NOT_REPLAYED = {
    "chat_ignored_fields": NO_LOGPROBS,
    "chat_logprobs": NO_LOGPROBS,
    "chat_response_format": "the simulated model knows no schema; only its text differs",
    "chat_tools": NO_TOOLS,
    "chat_tools_stream": NO_TOOLS,
    "completion_placeholders_expanded": "the recorded model had nothing to say to it",
    "detokenize": NOT_CALLED,
    "json_to_grammar": NOT_CALLED,
    "last_logprobs": NOT_CALLED,
    "messages_plain": NOT_CALLED,
    "ollama_chat": NOT_CALLED,
    "ollama_generate": NOT_CALLED,
    "post_embeddings_404": NOT_CALLED,
    "responses_plain": NOT_CALLED,
}
"""Recordings of 1.115 that cannot be replayed, and why."""


async def abort_batched(stage: Stage) -> None:
    await stage.some_tokens()
    await stage.abort("P0")


async def reload(stage: Stage) -> None:
    await stage.some_tokens()
    await stage.post("/api/admin/reload_config", {"filename": "small.kcpps"})


async def unload(stage: Stage) -> None:
    stage.sim.faults.unload()
    await stage.sim.wait_for(SimulatedKobold.is_back)


async def unload_while_writing(stage: Stage) -> None:
    await stage.some_tokens()
    stage.sim.faults.unload()


async def be_away(stage: Stage) -> None:
    stage.sim.faults.reload()
    await stage.sim.wait_for(lambda sim: not sim.is_back())


async def die(stage: Stage) -> None:
    stage.sim.faults.die()


async def leave_out_ends(stage: Stage) -> None:
    stage.sim.faults.leave_out_end()


async def context_zero(stage: Stage) -> None:
    await stage.post("/api/v1/generate", {"prompt": "x", "max_context_length": 0})


LATER = replace(SETTINGS, version="1.115")
ADMIN, ROUTER = replace(LATER, admin=True), replace(LATER, router=True, admin=True)
BATCH = replace(LATER, parallel=4)
NEWER_SCENARIOS = {
    name: replace(scenario, settings=replace(scenario.settings, version="1.115"))
    for name, scenario in SCENARIOS.items()
} | {
    "abort_idle_last_key": Scenario(LATER, before=partial(Stage.generate, genkey="A0x")),
    "abort_running_key": occupied(genkey="A0x", settings=LATER),
    "abort_running_native_result": aborted(abort_while_writing, "A0x", LATER),
    "abort_running_chat_stream_result": replace(
        aborted(abort_while_writing, "A2", LATER), before=leave_out_ends
    ),
    "abort_running_native_stream_result": replace(
        aborted(abort_while_writing, "A3", LATER), before=leave_out_ends
    ),
    "admin_list_options": Scenario(ADMIN),
    "admin_reload_running": Scenario(ADMIN, before=Stage.occupy),
    "admin_reload_running_result": Scenario(ADMIN, during=reload),
    "admin_reload_unknown": Scenario(ADMIN),
    "admin_unload_timeout_kills_running": Scenario(replace(LATER, unload_after_seconds=0.3)),
    "admin_unloaded_model": Scenario(LATER, before=unload),
    "busy_503_default": occupied(9, settings=replace(LATER, multiuser=None)),
    "chat_reasoning_stream": Scenario(LATER, before=leave_out_ends),
    "chat_stream_without_end": Scenario(LATER, before=leave_out_ends),
    "check_idle_no_key": Scenario(LATER),
    "check_running_key": Scenario(LATER, before=partial(write_for_a_while, genkey="A0x")),
    "disconnect_nonstream_then_abort": occupied(genkey="W1", settings=LATER),
    "crash_context_zero_perf_after": Scenario(LATER, before=context_zero),
    "parallel_abort_result": Scenario(BATCH, during=abort_batched),
    "parallel_abort_running": occupied(genkey="P0", settings=BATCH),
    "parallel_check_running": Scenario(BATCH, before=partial(write_for_a_while, genkey="P0")),
    "parallel_perf_after": Scenario(BATCH, before=Stage.generate, exact=True),
    "parallel_perf_fresh": Scenario(BATCH, exact=True),
    "parallel_perf_running": replace(occupied(settings=BATCH), exact=True),
    "parallel_props": Scenario(BATCH),
    "perf_busy_queued": occupied(1, settings=LATER),
    "perf_after_oversized": Scenario(LATER, before=Stage.generate),
    "refused_after_crash": Scenario(LATER, before=die),
    "restart_queued_cut": Scenario(LATER, before=Stage.occupy, during=kill_while_waiting),
    "restart_stream_cut": Scenario(LATER, during=kill_while_writing),
    "tokencount_concurrent_wrong": Scenario(
        replace(LATER, tokencount_seconds=0.2, wrong_count_chance=0.0), during=count_beside
    ),
    **{name: Scenario(ROUTER) for name in NEWER_RECORDINGS if name.startswith("router_")},
    "router_reloading_502": Scenario(ROUTER, before=be_away),
    "router_unload_running_result": Scenario(ROUTER, during=unload_while_writing),
    "router_unloaded_chat_initial_model": Scenario(ROUTER, before=unload),
    "router_unloaded_chat_no_model": Scenario(ROUTER, before=unload),
    "router_unloaded_model": Scenario(ROUTER, before=unload),
}


def scenario_of(name: str) -> Scenario:
    if not name.startswith(NEWER):
        return SCENARIOS.get(name, Scenario())
    return NEWER_SCENARIOS.get(name.removeprefix(NEWER), Scenario(LATER))


def compared(name: str, answer: Answer, *, exact: bool = False) -> list[str]:
    if not name.startswith(NEWER):
        return differences(RECORDINGS[name], answer, exact=exact)
    varying = NEWER_VARYING
    if "messages" in (RECORDINGS[name].body or "") and "tokencount" in name:
        varying |= {"value"}  # The recorded model has other tokens.
    return differences(RECORDINGS[name], answer, exact=exact, varying=varying)


class Exchange:
    """A recorded request under way, and what has come back so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.recording = RECORDINGS[name]
        self.received = b""
        self.something = trio.Event()
        self.two_events = trio.Event()
        self.refused = False
        self.ended = False

    def on_data(self, piece: bytes) -> None:
        self.received += piece
        self.something.set()
        if self.received.count(b"data: ") >= 2:
            self.two_events.set()

    async def run(self, port: int) -> None:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            self.refused = True
            return
        async with stream:
            body = STAND_INS.get(self.name, STAND_INS.get(self.recording.name))
            await stream.send_all(self.recording.wire_request(body=body))
            await receive(stream, self.on_data)
            self.ended = True


def settings_for(recording: Recording, settings: KoboldSettings) -> KoboldSettings:
    """Let the model end its text where the recorded one did."""
    ended_by_itself = recording.answer and '"finish_reason": "stop"' in recording.answer.body
    return replace(settings, natural_tokens=(3, 3)) if ended_by_itself else settings


def replayed(outcome: str) -> list[str]:
    return [
        name
        for name, recording in RECORDINGS.items()
        if recording.outcome == outcome and name.removeprefix(NEWER) not in left_out(name)
    ]


def left_out(name: str) -> Collection[str]:
    return NOT_REPLAYED if name.startswith(NEWER) else ()


async def start(stage: Stage, name: str, scenario: Scenario, nursery: trio.Nursery) -> Exchange:
    exchange = Exchange(name)
    await scenario.before(stage)
    nursery.start_soon(exchange.run, stage.sim.port)
    await scenario.during(stage)
    return exchange


@pytest.mark.parametrize("name", replayed("complete"))
async def test_the_simulated_server_answers_as_recorded(name: str) -> None:
    recording, scenario = RECORDINGS[name], scenario_of(name)
    settings = settings_for(recording, scenario.settings)
    with trio.fail_after(GUARD_SECONDS):
        async with open_simulated_kobold(settings) as sim, trio.open_nursery() as others:
            async with trio.open_nursery() as nursery:
                exchange = await start(Stage(sim, others), name, scenario, nursery)
            others.cancel_scope.cancel()
    assert exchange.ended
    assert compared(name, parse_answer(exchange.received), exact=scenario.exact) == []


@pytest.mark.parametrize("name", replayed("eof_no_response"))
async def test_the_simulated_server_closes_without_a_byte_as_recorded(name: str) -> None:
    scenario = scenario_of(name)
    with trio.fail_after(GUARD_SECONDS):
        async with open_simulated_kobold(scenario.settings) as sim, trio.open_nursery() as others:
            async with trio.open_nursery() as nursery:
                exchange = await start(Stage(sim, others), name, scenario, nursery)
            others.cancel_scope.cancel()
            dies = name.removeprefix(NEWER).startswith(("crash_", "restart_", "admin_"))
            assert sim.observations.deaths_total == dies
    assert exchange.ended
    assert exchange.received == b""


@pytest.mark.parametrize("name", replayed("connection_refused"))
async def test_the_simulated_server_refuses_the_connection_as_recorded(name: str) -> None:
    scenario = scenario_of(name)
    with trio.fail_after(GUARD_SECONDS):
        async with open_simulated_kobold(scenario.settings) as sim, trio.open_nursery() as others:
            exchange = await start(Stage(sim, others), name, scenario, others)
    assert exchange.refused


@pytest.mark.parametrize("name", replayed("hang_no_response"))
async def test_the_simulated_server_stays_silent_as_recorded(name: str) -> None:
    scenario = scenario_of(name)
    with trio.fail_after(GUARD_SECONDS):
        async with open_simulated_kobold(scenario.settings) as sim, trio.open_nursery() as others:
            exchange = await start(Stage(sim, others), name, scenario, others)
            with trio.move_on_after(SILENCE_SECONDS):
                await exchange.something.wait()
            assert not exchange.ended
            others.cancel_scope.cancel()
    assert exchange.received == b""


@pytest.mark.parametrize("name", replayed("hang_after_headers"))
async def test_the_simulated_stream_hangs_after_its_headers_as_recorded(name: str) -> None:
    with trio.fail_after(GUARD_SECONDS):
        async with open_simulated_kobold(SETTINGS) as sim, trio.open_nursery() as others:
            stage = Stage(sim, others)
            exchange = await start(stage, name, Scenario(), others)
            await exchange.something.wait()
            await stage.free()
            with trio.move_on_after(SILENCE_SECONDS):
                await trio.sleep_forever()
            assert not exchange.ended
            assert sim.observations.open_connections == 1
            others.cancel_scope.cancel()
    assert compared(name, parse_answer(exchange.received)) == []


@pytest.mark.parametrize("name", replayed("truncated_stream"))
async def test_the_simulated_stream_is_cut_as_recorded(name: str) -> None:
    scenario = scenario_of(name)
    with trio.fail_after(GUARD_SECONDS):
        async with open_simulated_kobold(scenario.settings) as sim, trio.open_nursery() as others:
            exchange = await start(Stage(sim, others), name, scenario, others)
    answer = parse_answer(exchange.received)
    assert exchange.ended
    assert "[DONE]" not in answer.body
    assert answer.body == "" or answer.body.endswith("\n\n")
    assert compared(name, answer) == []


async def events_seen(exchange: Exchange, stage: Stage) -> None:
    await exchange.two_events.wait()


async def lock_held(exchange: Exchange, stage: Stage) -> None:
    await stage.sim.wait_for(lambda sim: sim.running == 1)


async def some_written(exchange: Exchange, stage: Stage) -> None:
    await stage.some_tokens()


async def in_queue(exchange: Exchange, stage: Stage) -> None:
    await stage.sim.wait_for(lambda sim: sim.waiting == 1)


async def let_holder_go(stage: Stage) -> None:
    await stage.abort("H")


@dataclass(frozen=True)
class Departure:
    """A client that closes: when, what follows, and how its generation ends."""

    when: Callable[[Exchange, Stage], Awaitable[None]]
    outcome: str
    tokens: range
    settings: KoboldSettings = SETTINGS
    before: Step = nothing
    after: Step = nothing


DEPARTURES = {
    "disconnect_nonstream": Departure(some_written, "completed", range(150, 151)),
    "disconnect_nonstream_then_abort": Departure(
        some_written, "aborted", range(20, 400), after=partial(Stage.abort, genkey="D2")
    ),
    "disconnect_queued": Departure(
        in_queue, "completed", range(60, 61), before=Stage.occupy, after=let_holder_go
    ),
    "disconnect_queued_stream": Departure(
        in_queue, "aborted", range(1, 400), before=Stage.occupy, after=let_holder_go
    ),
    "disconnect_stream": Departure(events_seen, "aborted", range(1, 400)),
    "parallel_disconnect_stream": Departure(
        events_seen, "aborted", range(1, 400), replace(SETTINGS, version="1.115", parallel=4)
    ),
    "disconnect_stream_prompt_phase": Departure(
        lock_held, "aborted", range(1, 400), settings=SLOW_PROMPT
    ),
}


@pytest.mark.parametrize("name", replayed("client_closed"))
async def test_the_simulated_server_treats_clients_that_leave_as_recorded(name: str) -> None:
    recording, departure = RECORDINGS[name], DEPARTURES[name.removeprefix(NEWER)]
    version = "1.115" if name.startswith(NEWER) else departure.settings.version
    settings = replace(departure.settings, version=version)
    with trio.fail_after(GUARD_SECONDS):
        async with open_simulated_kobold(settings) as sim, trio.open_nursery() as others:
            stage = Stage(sim, others)
            await departure.before(stage)
            exchange = Exchange(name)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(exchange.run, sim.port)
                await departure.when(exchange, stage)
                nursery.cancel_scope.cancel()
            await departure.after(stage)
            await stage.free()
            record = sim.log[-1]
    assert not exchange.ended
    assert record.outcome == departure.outcome
    if departure.outcome == "completed":
        assert record.tokens == json.loads(recording.body or "{}")["max_length"]
    else:
        assert record.tokens in departure.tokens
    assert sim.observations.max_running == 1


async def test_a_stream_aborted_while_waiting_shows_the_text_of_another_client() -> None:
    name = "abort_queued_stream_result_stale"
    scenario = scenario_of(name)
    with trio.fail_after(GUARD_SECONDS):
        async with open_simulated_kobold(scenario.settings) as sim, trio.open_nursery() as others:
            async with trio.open_nursery() as nursery:
                exchange = await start(Stage(sim, others), name, scenario, nursery)
            others.cancel_scope.cancel()
    beginning_of_holder = sim.expected_completion("soup", max_tokens=1)
    assert beginning_of_holder in exchange.received.decode()


def test_every_recording_is_replayed_and_every_scenario_has_its_recording() -> None:
    outcomes = {
        "complete",
        "eof_no_response",
        "connection_refused",
        "hang_no_response",
        "hang_after_headers",
        "truncated_stream",
        "client_closed",
    }
    assert {recording.outcome for recording in RECORDINGS.values()} == outcomes
    assert (len(OLDER_RECORDINGS), len(NEWER_RECORDINGS)) == (142, 206)
    assert SCENARIOS.keys() <= OLDER_RECORDINGS.keys()
    assert NEWER_SCENARIOS.keys() | NOT_REPLAYED.keys() <= NEWER_RECORDINGS.keys()
    assert not NEWER_SCENARIOS.keys() & NOT_REPLAYED.keys()
    departures = {name.removeprefix(NEWER) for name in replayed("client_closed")}
    assert DEPARTURES.keys() == departures
