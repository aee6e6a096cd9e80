"""The KoboldCPP client against the simulated server, over real sockets."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

from ai_ticket_daemon.backends import factory
from ai_ticket_daemon.backends.failure import BackendError, RetryRule
from ai_ticket_daemon.backends.generation import BackendClient, GenerationRequest
from ai_ticket_daemon.backends.kobold import admission
from ai_ticket_daemon.backends.observation import SlotEnd
from ai_ticket_daemon.config.backends import BackendKind, Dialect, ServerConfig
from ai_ticket_daemon.config.values.secret import Secret
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.event import Message, Role, Sampling
from ai_ticket_daemon.events.outcome import Waste
from ai_ticket_daemon.pipeline.in_flight import InFlight
from ai_ticket_daemon.pool.identity import Expected, problem_of
from ai_ticket_daemon.testing.kobold import KoboldSettings, answer_mark, open_simulated_kobold
from tests.support.hostile_server import Odd, open_hostile_server
from tests.support.odd_answers import answer, chat
from tests.support.well_server import CHAT, MODELS, PERF, WELL

if TYPE_CHECKING:
    from ai_ticket_daemon.store.port import Lease

QUICK = KoboldSettings().scaled(0.1)


def asks(text: str = "hello", *, stream: bool = False, max_tokens: int = 8) -> GenerationRequest:
    return GenerationRequest(
        (Message(Role.USER, text),), Sampling(max_tokens=max_tokens), stream=stream
    )


def open_client(config: ServerConfig) -> BackendClient:
    return factory.open_client(
        config, stall_seconds=lambda: 60.0, on_abort=lambda _reason, _end: None
    )


async def failure(url: str, request: GenerationRequest, **limits: Any) -> BackendError:
    client = open_client(ServerConfig(name="primary", url=url, **limits))
    with pytest.raises(BackendError) as caught:
        await client.generate(request)
    await client.aclose()
    return caught.value


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", Dialect)
async def test_every_dialect_gives_the_completion_plain_and_streamed(
    dialect: Dialect, stream: bool
) -> None:
    async with open_simulated_kobold(QUICK) as simulated:
        client = open_client(ServerConfig(name="primary", url=simulated.url, dialect=dialect))
        deltas: list[str] = []
        result = await client.generate(asks(stream=stream), deltas.append if stream else None)
        await client.aclose()
        assert result.text.lstrip().startswith(answer_mark("hello"))
        assert result.usage.completion_tokens > 0
        if stream:
            assert "".join(deltas) == result.text
        genkeys = {record.genkey for record in simulated.log}
        assert "" not in genkeys


@pytest.mark.parametrize("stream", [False, True])
async def test_a_generation_that_stalls_is_aborted_and_told_as_such(stream: bool) -> None:
    async with open_simulated_kobold(replace(QUICK, tokens_per_second=50)) as simulated:
        simulated.faults.stall(after_tokens=3, ignores_abort=False)
        error = await failure(
            simulated.url,
            asks(stream=stream, max_tokens=50),
            idle_timeout_seconds=0.6,
            first_token_timeout_seconds=2.0,
        )
        assert error.code in {ErrorCode.API_STALLED, ErrorCode.API_TIMEOUT}
        await simulated.wait_for(lambda s: s.running == 0)


async def test_a_frozen_server_ends_with_a_timeout() -> None:
    async with open_simulated_kobold(QUICK) as simulated:
        simulated.faults.freeze()
        error = await failure(simulated.url, asks(stream=True), first_token_timeout_seconds=0.5)
        assert error.code in {ErrorCode.API_TIMEOUT, ErrorCode.API_CONNECTION_ERROR}
        assert error.failure.retry is not RetryRule.FINAL
        simulated.faults.clear()


async def test_the_total_time_of_a_generation_is_bounded() -> None:
    async with open_simulated_kobold(replace(QUICK, tokens_per_second=20)) as simulated:
        error = await failure(
            simulated.url, asks(max_tokens=200), total_timeout_seconds=0.7,
            first_token_timeout_seconds=0.7, idle_timeout_seconds=0.6,
        )  # fmt: skip
        assert error.code is ErrorCode.API_TIMEOUT
        await simulated.wait_for(lambda s: s.running == 0)


async def test_a_wrong_password_is_the_operators_to_mend() -> None:
    async with open_simulated_kobold(replace(QUICK, password="right")) as simulated:
        error = await failure(simulated.url, asks(), password=Secret("wrong"))
        assert error.code is ErrorCode.API_AUTHENTICATION_ERROR
        assert "wrong" not in f"{error!r} {error.details}"


async def test_a_prompt_beyond_the_context_is_refused_before_generating() -> None:
    async with open_simulated_kobold(QUICK) as simulated:
        error = await failure(simulated.url, asks("word " * 3000))
        assert error.code is ErrorCode.CONTEXT_OVERFLOW
        assert simulated.observations.started_total == 0


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("not_found", ErrorCode.API_CLIENT_ERROR),
        ("server_error", ErrorCode.API_SERVER_ERROR),
        ("rate_limited", ErrorCode.API_RATE_LIMITED),
        ("garbage", ErrorCode.API_RESPONSE_FORMAT_ERROR),
        ("html", ErrorCode.API_RESPONSE_FORMAT_ERROR),
        ("half_json", ErrorCode.API_RESPONSE_FORMAT_ERROR),
        ("wrong_shape", ErrorCode.API_RESPONSE_STRUCTURE_ERROR),
        ("null", ErrorCode.API_CLIENT_ERROR),
        ("no_byte", ErrorCode.API_CLIENT_ERROR),
    ],
)
async def test_strange_answers_have_their_names(answer: str, code: ErrorCode) -> None:
    async with open_simulated_kobold(QUICK) as simulated:
        simulated.faults.script(answer)
        assert (await failure(simulated.url, asks())).code is code


@pytest.mark.parametrize("kind", BackendKind)
async def test_a_server_without_a_model_says_so_to_the_probe_of_either_kind(
    kind: BackendKind,
) -> None:
    for has_model in (True, False):
        async with open_simulated_kobold(replace(QUICK, has_model=has_model)) as simulated:
            client = open_client(ServerConfig(name="primary", url=simulated.url, kind=kind))
            found = await client.probe(identify=True)
            await client.aclose()
            assert found.has_model is has_model
            assert (found.model is not None) is has_model
            problem = problem_of(found, Expected())
            assert problem == (None if has_model else "has no model loaded")


async def test_a_model_that_is_unloaded_and_loaded_again_is_noticed() -> None:
    async with open_simulated_kobold(QUICK) as simulated:
        client = open_client(ServerConfig(name="primary", url=simulated.url))
        for unloaded in (False, True, False):
            simulated.faults.inactive = unloaded
            found = await client.probe(identify=True)
            assert found.has_model is not unloaded
        await client.aclose()


@pytest.mark.parametrize("kind", BackendKind)
async def test_a_server_that_lets_nobody_wait_refuses_once_and_is_waited_for_then(
    kind: BackendKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_LONGEST_SECONDS", 60.0)
    figures = {"queue": 0, "uptime": 1e6, "total_gens": 3, "last_token_count": 2}
    idle, taken = (Odd(answer(figures | {"idle": number})) for number in (1, 0))
    models = {"object": "list", "data": [{"id": "koboldcpp/m", "owned_by": "koboldcpp"}]}
    refuses = Odd(answer({"detail": {"type": "service_unavailable"}}, "503 Busy"))
    odd = {**WELL, MODELS: Odd(answer(models)), PERF: taken, CHAT: refuses}
    async with open_hostile_server(odd) as server:

        def asked(path: str) -> int:
            return sum(f" {path} ".encode() in head for head in server.seen)

        client = open_client(ServerConfig(name="primary", url=server.url, kind=kind))
        await client.probe(identify=True)
        with pytest.raises(BackendError) as refused:
            await client.generate(asks())
        assert refused.value.failure.retry is RetryRule.BUSY
        before = asked(PERF)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.generate, asks())
            with trio.fail_after(60):
                while asked(PERF) < before + 3:  # noqa: ASYNC110 - its list has no event
                    await trio.sleep(0.01)
            assert asked(CHAT) == 1
            server.odd |= {PERF: idle, CHAT: Odd(answer(chat()))}
        assert asked(CHAT) == 2
        await client.aclose()


async def test_a_kobold_behind_the_wrong_kind_is_recognised_and_no_slot_is_called_free() -> None:
    async with open_simulated_kobold(replace(QUICK, tokens_per_second=50)) as simulated:
        config = ServerConfig(name="primary", url=simulated.url, kind=BackendKind.OPENAI)
        client = open_client(config)
        found = await client.probe(identify=True)
        assert found.software.better_kind == "koboldcpp"
        request = asks(max_tokens=50)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.generate, request)
            await simulated.wait_for(lambda s: s.running == 1)
            nursery.cancel_scope.cancel()
        await client.aclose()
        assert request.received.slot is SlotEnd.UNSEEN
        assert simulated.running == 1
        config = ServerConfig(name="primary", url=simulated.url)
        client = open_client(config)
        assert (await client.probe(identify=True)).software.better_kind is None
        await client.aclose()


@pytest.mark.parametrize("kind", list(BackendKind))
@pytest.mark.parametrize("stream", [True, False])
async def test_thinking_cut_short_is_no_answer_of_a_kobold_behind_either_kind(
    kind: BackendKind, stream: bool
) -> None:
    settings = replace(QUICK, version="1.115", thinking=True)
    async with open_simulated_kobold(settings) as simulated:
        client = open_client(ServerConfig(name="primary", url=simulated.url, kind=kind))
        await client.probe(identify=True)
        cut = await client.generate(asks(max_tokens=3, stream=stream))
        assert (cut.text, cut.finish_reason) == ("", "length")
        assert cut.reasoning
        whole = await client.generate(asks(max_tokens=40, stream=stream))
        assert whole.text
        assert whole.reasoning.startswith(cut.reasoning)
        await client.aclose()


@pytest.mark.parametrize("slot", [None, *SlotEnd])
def test_the_record_of_a_stopped_attempt_says_what_was_seen_of_its_slot(
    slot: SlotEnd | None,
) -> None:
    running = InFlight(cast("Lease", SimpleNamespace(ahead_of=0, overtaken=0)))
    running.received.slot = slot
    message = running.cut_short(1.0, Waste.CANCELLED).message
    assert (message == "aborted on the backend") is (slot is SlotEnd.FREE)
