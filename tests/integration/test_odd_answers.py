"""What odd servers answer, to both kinds of client, plain and streamed, and to probes."""

from __future__ import annotations

import gc
import json
import logging
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from ai_ticket_daemon.backends import factory
from ai_ticket_daemon.backends.failure import BackendError
from ai_ticket_daemon.backends.generation import GenerationRequest
from ai_ticket_daemon.config.backends import BackendKind, BackendsConfig, ServerConfig
from ai_ticket_daemon.events.event import Message, Role, Sampling
from ai_ticket_daemon.pool import prober
from ai_ticket_daemon.pool.backend import PoolObserver
from ai_ticket_daemon.pool.health import HealthState
from ai_ticket_daemon.pool.persistence import decode, encode
from ai_ticket_daemon.pool.pool import BackendPool
from tests.support.hostile_server import Odd, Then, open_hostile_server
from tests.support.odd_answers import ANY, PLAIN, STREAMED, Case, answer
from tests.support.well_server import CHAT, MODELS, PERF, WELL, probe_path, with_name

if TYPE_CHECKING:
    from pathlib import Path

    from ai_ticket_daemon.backends.generation import BackendClient

GUARD_SECONDS = 60.0
"""For a machine that does other things, too; each case is over within the time limits below."""
LIMIT_SECONDS = 1.2
"""Long enough for a good answer on a machine that does other things, too."""
KINDS = pytest.mark.parametrize("kind", BackendKind)


def config_of(kind: BackendKind, url: str) -> ServerConfig:
    return ServerConfig(
        name="p",
        url=url,
        kind=kind,
        first_token_timeout_seconds=LIMIT_SECONDS,
        idle_timeout_seconds=LIMIT_SECONDS,
        total_timeout_seconds=60.0,
    )


def open_client(config: ServerConfig) -> BackendClient:
    return factory.open_client(
        config, stall_seconds=lambda: 60.0, on_abort=lambda _reason, _end: None
    )


async def check(kind: BackendKind, case: Case, *, stream: bool) -> None:
    request = GenerationRequest(
        (Message(Role.USER, "Please greet me"),), Sampling(max_tokens=16), stream=stream
    )
    pieces: list[str] = []
    error: BackendError | None = None
    text: str | None = None
    async with open_hostile_server({**WELL, CHAT: case.odd}) as server:
        client = open_client(config_of(kind, server.url))
        with trio.fail_after(GUARD_SECONDS):
            try:
                text = (await client.generate(request, pieces.append)).text
            except BackendError as caught:
                error = caught
            await client.aclose()
    if case.text is not None:
        assert error is None, error
        assert text == case.text
        if stream:
            assert "".join(pieces) == text
        return
    assert error is not None, text
    code = case.kobold if kind is BackendKind.KOBOLDCPP and case.kobold else case.code
    assert error.code is code, error
    assert case.says in error.message
    assert error.message.isprintable()
    assert len(error.message) < 600
    assert "greet" not in error.message


@KINDS
@pytest.mark.parametrize("name", PLAIN)
async def test_a_plain_answer_is_a_completion_or_a_precise_error(
    name: str, kind: BackendKind, caplog: pytest.LogCaptureFixture
) -> None:
    await check(kind, PLAIN[name], stream=False)
    assert [line for line in caplog.records if line.levelno >= logging.WARNING] == []


@KINDS
@pytest.mark.parametrize("name", STREAMED)
async def test_a_stream_is_a_completion_or_a_precise_error(
    name: str, kind: BackendKind, caplog: pytest.LogCaptureFixture
) -> None:
    await check(kind, STREAMED[name], stream=True)
    assert [line for line in caplog.records if line.levelno >= logging.WARNING] == []


async def state_after(kind: BackendKind, path: str, odd: Odd) -> tuple[HealthState, str]:
    """Return what one look of the prober makes of a server, and the reason for it."""
    async with open_hostile_server({**WELL, path: odd}) as server:
        config = config_of(kind, server.url)
        rules = BackendsConfig(servers=(config,), probe_timeout_seconds=1.0)
        pool = BackendPool(lambda: rules, open_client=open_client, observer=PoolObserver())
        with trio.fail_after(GUARD_SECONDS):
            async with trio.open_nursery() as nursery:
                await nursery.start(
                    lambda task_status: prober.run(
                        pool=pool, settings=lambda: rules, task_status=task_status
                    )
                )
                nursery.cancel_scope.cancel()
        health = pool["p"].health
        note = encode(pool.active, pool, offset=0.0)
        assert len(note) < 2000
        decode(note, {"p": server.url}, offset=0.0, rise=2)
        assert health.reason.isprintable()
        await pool["p"].client.aclose()
    return health.state, health.reason


LATER = {"429": HealthState.BUSY, "503": HealthState.LOADING, "401": HealthState.UNAUTHORISED}


@KINDS
@pytest.mark.parametrize("name", [name for name in PLAIN if PLAIN[name].text is None])
async def test_a_probe_that_is_answered_oddly_says_what_the_server_is(
    name: str, kind: BackendKind, caplog: pytest.LogCaptureFixture
) -> None:
    state, reason = await state_after(kind, probe_path(kind), PLAIN[name].odd)
    if name == "401" and kind is BackendKind.KOBOLDCPP:
        assert state is HealthState.DOWN, "perf needs no credential: another server answers there"
    elif name == "a limit in an answer of status 200":
        assert state is HealthState.BUSY
    else:
        assert state is LATER.get(name, HealthState.DOWN), reason
    assert [line for line in caplog.records if line.levelno >= logging.WARNING] == []


NAMES: dict[str, tuple[bytes, str | None]] = {
    "half a character": (rb'"m\udcff"', "m\ufffd"),
    "control characters": (rb'"\u0000\u001b[2J"', "\ufffd\ufffd[2J"),
    "direction marks": (rb'"gpt\u202e4"', "gpt\ufffd4"),
    "a long one": (b'"' + b"x" * 300_000 + b'"', "x" * 199 + "…"),
    "ten megabytes": (b'"' + b"x" * 10_000_000 + b'"', None),
    "a number": (b"7", None),
    "null": (b"null", None),
    "a list": (b'["m"]', None),
}


@KINDS
@pytest.mark.parametrize("name", NAMES)
async def test_the_name_of_a_model_is_cleaned_or_refused(name: str, kind: BackendKind) -> None:
    raw, cleaned = NAMES[name]
    path, odd = with_name(kind, raw)
    async with open_hostile_server({**WELL, path: odd}) as server:
        client = open_client(config_of(kind, server.url))
        with trio.fail_after(GUARD_SECONDS):
            if cleaned is None:
                with pytest.raises(BackendError):
                    await client.probe()
            else:
                assert (await client.probe()).model == cleaned
        await client.aclose()
    state, _ = await state_after(kind, path, odd)
    assert state is (HealthState.DOWN if cleaned is None else HealthState.READY)


FIGURES = [-1, 10**300, 1.5, True, "7", None, [], {}]


@pytest.mark.parametrize("figure", [*map(json.dumps, FIGURES), "NaN", "Infinity", "1e999"])
@pytest.mark.parametrize("key", ["uptime", "total_gens", "queue", "idle"])
async def test_odd_figures_of_koboldcpp_are_no_fault_of_the_daemon(key: str, figure: str) -> None:
    perf = {"idle": 1, "queue": 0, "uptime": 5, "total_gens": 3, "stop_reason": 1}
    body = json.dumps(perf | {"last_token_count": 0, key: "@"}).replace('"@"', figure)
    state, _ = await state_after(BackendKind.KOBOLDCPP, PERF, Odd(answer(body)))
    fits = key == "uptime" and figure in ("-1", "1.5")
    assert state is (HealthState.READY if fits else HealthState.DOWN)


@pytest.mark.parametrize("figure", [*map(json.dumps, FIGURES), "NaN", "Infinity", "1e999"])
async def test_an_odd_context_of_an_openai_server_is_not_known(figure: str) -> None:
    body = '{"data":[{"id":"m","meta":{"n_ctx":' + figure + "}}]}"
    async with open_hostile_server({MODELS: Odd(answer(body))}) as server:
        client = open_client(config_of(BackendKind.OPENAI, server.url))
        result = await client.probe()
        await client.aclose()
    assert (result.model, result.context_tokens) == ("m", None)


async def test_a_name_that_had_to_be_cleaned_is_not_sent_back() -> None:
    models = Odd(answer(rb'{"data":[{"id":"m\udcff"}]}'))
    completion = PLAIN["a completion"].odd
    async with open_hostile_server({MODELS: models, CHAT: completion}) as server:
        client = open_client(config_of(BackendKind.OPENAI, server.url))
        await client.probe()
        result = await client.generate(
            GenerationRequest((Message(Role.USER, "hi"),), Sampling(max_tokens=4))
        )
        await client.aclose()
    assert result.text == "Hello."


async def test_an_answer_nobody_asked_for_is_never_given_to_the_next_request() -> None:
    """A second answer behind the first would be taken for that of another ticket."""
    mine, strange = answer(PLAIN_CHAT), answer(STRANGE_CHAT)
    odd = Odd(mine + strange, then=Then.HANG)
    async with open_hostile_server({**WELL, CHAT: odd}) as server:
        client = open_client(config_of(BackendKind.OPENAI, server.url))
        request = GenerationRequest((Message(Role.USER, "hi"),), Sampling(max_tokens=4))
        with trio.fail_after(GUARD_SECONDS):
            texts = [(await client.generate(request)).text for _ in range(3)]
        await client.aclose()
    assert texts == ["Hello."] * 3


PLAIN_CHAT = {"choices": [{"message": {"content": "Hello."}, "finish_reason": "stop"}]}
STRANGE_CHAT = {"choices": [{"message": {"content": "Not yours."}, "finish_reason": "stop"}]}


@KINDS
async def test_crumbs_do_not_hold_up_everything_else(kind: BackendKind) -> None:
    """A body in chunks of one byte lies there as a whole: reading it must let others run."""
    chunks = b"1\r\nx\r\n" * 60_000
    raw = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with open_hostile_server({**WELL, CHAT: Odd(raw)}) as server:
        client = open_client(config_of(kind, server.url))
        request = GenerationRequest((Message(Role.USER, "hi"),), Sampling(max_tokens=4000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            with pytest.raises(BackendError), trio.fail_after(GUARD_SECONDS):
                await client.generate(replace(request, stream=True))
            nursery.cancel_scope.cancel()
        await client.aclose()
    assert turns > 10


def test_the_table_covers_plain_and_streamed_answers_alike() -> None:
    assert ANY.keys() <= PLAIN.keys() & STREAMED.keys()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_behind_tls_is_read_like_any_other(
    stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, tls = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    case = STREAMED["a stream"] if stream else PLAIN["a completion"]
    odd = replace(case.odd, then=Then.HANG)
    async with open_hostile_server({**WELL, CHAT: odd}, tls) as server:
        client = open_client(config_of(BackendKind.OPENAI, server.url))
        request = GenerationRequest(
            (Message(Role.USER, "hi"),), Sampling(max_tokens=4), stream=stream
        )
        with trio.fail_after(GUARD_SECONDS):
            for _ in range(3):
                assert (await client.generate(request)).text == "Hello."
        await client.aclose()
        monkeypatch.delenv("SSL_CERT_FILE")
        client = open_client(config_of(BackendKind.OPENAI, server.url))
        with pytest.raises(BackendError, match="cannot be reached"):
            await client.generate(request)
        await client.aclose()


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_tls_handshake_that_is_given_up_leaves_no_socket_open(cancelled: bool) -> None:
    """One that is left to the garbage collector is an error: a ResourceWarning."""
    async with open_hostile_server(WELL) as server:
        url = server.url.replace("http:", "https:")
        config = config_of(BackendKind.OPENAI, url)
        limit = GUARD_SECONDS if cancelled else LIMIT_SECONDS
        client = open_client(replace(config, connect_timeout_seconds=limit))
        with trio.move_on_after(LIMIT_SECONDS if cancelled else GUARD_SECONDS) as scope:
            with pytest.raises(BackendError, match="did not accept a connection"):
                await client.probe()
        assert scope.cancelled_caught is cancelled
        await client.aclose()
    del client
    gc.collect()
