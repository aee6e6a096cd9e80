"""Connections to servers over real sockets: which are kept, and what goes over them."""

from __future__ import annotations

import socket
import ssl
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from ai_ticket_daemon.backends import factory
from ai_ticket_daemon.backends.generation import GenerationRequest
from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.transport.connection import PIECE_BYTES
from ai_ticket_daemon.backends.transport.wire import Wire
from ai_ticket_daemon.config.backends import BackendKind, ServerConfig
from ai_ticket_daemon.config.values.secret import Secret
from ai_ticket_daemon.events.event import Message, Role, Sampling
from tests.support.hostile_server import Odd, Then, open_hostile_server
from tests.support.lacks import no_descriptors
from tests.support.odd_answers import HELLO, answer, chat, stream
from tests.support.well_server import CHAT, MODELS, WELL

if TYPE_CHECKING:
    from pathlib import Path

    from ai_ticket_daemon.backends.generation import BackendClient
    from tests.support.hostile_server import HostileServer

GUARD_SECONDS = 60.0
PLAIN = GenerationRequest((Message(Role.USER, "hi"),), Sampling(max_tokens=4))
STREAMED = replace(PLAIN, stream=True)
KEEPS = Odd(answer(chat()), Then.HANG)


@pytest.fixture
def trusted_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Return the TLS of a server whose authority the daemon trusts."""
    authority, tls = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return tls


def in_chunks(raw: bytes) -> bytes:
    """Return an answer that ends with its connection as one in chunks."""
    head, _, body = raw.partition(b"\r\n\r\n")
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    return head + b"\r\ntransfer-encoding: chunked\r\n\r\n" + chunks


def open_client(kind: BackendKind, server: HostileServer) -> BackendClient:
    config = ServerConfig(name="p", url=server.url, kind=kind)
    return factory.open_client(
        config, stall_seconds=lambda: 60.0, on_abort=lambda _reason, _freed: None
    )


async def generate(client: BackendClient, times: int, request: GenerationRequest = PLAIN) -> None:
    with trio.fail_after(GUARD_SECONDS):
        for _ in range(times):
            assert (await client.generate(request)).text == "Hello."


async def seen_of(wire: Wire, path: str = MODELS) -> Seen:
    with trio.fail_after(GUARD_SECONDS), pytest.raises(AttemptFailed) as caught:
        await wire.call("GET", path)
    return caught.value.observation.seen


@pytest.mark.parametrize("request_", [PLAIN, STREAMED], ids=["plain", "streamed"])
async def test_a_server_of_kind_openai_is_asked_again_on_the_same_connection(
    request_: GenerationRequest,
) -> None:
    odd = Odd(in_chunks(stream(*HELLO)), Then.HANG) if request_.stream else KEEPS
    async with open_hostile_server({**WELL, CHAT: odd}) as server:
        client = open_client(BackendKind.OPENAI, server)
        await generate(client, 4, request_)
        assert (len(server.seen), server.opened) == (4, 1)
        assert b"connection" not in server.seen[0].lower()
        await client.aclose()
        with trio.fail_after(GUARD_SECONDS):
            while not server.closed:
                await trio.lowlevel.checkpoint()


async def test_koboldcpp_is_never_asked_twice_on_a_connection() -> None:
    async with open_hostile_server({**WELL, CHAT: KEEPS}) as server:
        client = open_client(BackendKind.KOBOLDCPP, server)
        await generate(client, 3)
        await client.aclose()
        assert server.opened == len(server.seen) >= 3
        assert all(b"\r\nConnection: close\r\n" in head for head in server.seen)


async def test_requests_at_the_same_time_have_connections_of_their_own() -> None:
    async with open_hostile_server({**WELL, CHAT: KEEPS}) as server:
        client = open_client(BackendKind.OPENAI, server)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(generate, client, 2)
        await client.aclose()
        assert (len(server.seen), server.opened) == (6, 3)


async def test_a_kept_connection_that_the_server_closed_meanwhile_costs_no_request() -> None:
    async with open_hostile_server({**WELL, CHAT: Odd(KEEPS.raw)}) as server:
        client = open_client(BackendKind.OPENAI, server)
        for number in range(1, 4):
            await generate(client, 1)
            with trio.fail_after(GUARD_SECONDS):
                while server.closed < number:
                    await trio.lowlevel.checkpoint()
        await client.aclose()
        assert server.opened == len(server.seen) == 3


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_only_what_starts_nothing_is_asked_again_where_a_kept_connection_ends(
    method: str,
) -> None:
    opened = 0

    async def answer_once(peer: trio.SocketStream) -> None:
        nonlocal opened
        opened += 1
        async with peer:
            await peer.receive_some()
            await peer.send_all(answer({"value": 1}))
            await peer.receive_some()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), answer_once, 0)
        wire = Wire(f"http://127.0.0.1:{listener.socket.getsockname()[1]}", keep_alive=True)
        payload: dict[str, object] | None = None if method == "GET" else {}
        with trio.fail_after(GUARD_SECONDS):
            assert await wire.call(method, "/", payload) == {"value": 1}
            if method == "GET":
                assert await wire.call(method, "/") == {"value": 1}
            else:
                with pytest.raises(AttemptFailed) as caught:
                    await wire.call(method, "/", payload)
                assert caught.value.observation.seen in {Seen.NO_BYTE, Seen.BROKEN}
        assert opened == (2 if method == "GET" else 1)
        await wire.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "raw",
    [
        answer(chat(), "200 OK", "connection: close"),
        answer(chat()).replace(b"1.1", b"1.0"),
        answer(chat()) + b"\r\n",
    ],
    ids=["it says so", "HTTP/1.0", "more than its length"],
)
async def test_a_connection_that_may_not_serve_again_is_closed(raw: bytes) -> None:
    async with open_hostile_server({**WELL, CHAT: Odd(raw, Then.HANG)}) as server:
        client = open_client(BackendKind.OPENAI, server)
        await generate(client, 3)
        await client.aclose()
        assert server.opened == len(server.seen) == 3


@pytest.mark.parametrize("behind_tls", [False, True])
async def test_an_answer_that_hides_behind_a_piece_is_never_given_to_the_next_request(
    behind_tls: bool, trusted_tls: ssl.SSLContext
) -> None:
    """TLS has deciphered it by then, so that no socket tells of it."""
    mine = answer(chat())
    room = PIECE_BYTES - len(mine) - len("x: \r\n")
    whole = answer(chat(), "200 OK", "x: " + "y" * room)
    assert len(whole) == PIECE_BYTES
    odd = Odd(whole + answer(chat("Not yours.")), Then.HANG)
    async with open_hostile_server(
        {**WELL, CHAT: odd}, trusted_tls if behind_tls else None
    ) as server:
        client = open_client(BackendKind.OPENAI, server)
        await generate(client, 3)
        await client.aclose()
        assert server.opened == 3


@pytest.mark.parametrize("request_", [PLAIN, STREAMED], ids=["plain", "streamed"])
async def test_a_connection_with_tls_is_kept_like_any_other(
    request_: GenerationRequest, trusted_tls: ssl.SSLContext
) -> None:
    odd = Odd(in_chunks(stream(*HELLO)), Then.HANG) if request_.stream else KEEPS
    async with open_hostile_server({**WELL, CHAT: odd}, trusted_tls) as server:
        client = open_client(BackendKind.OPENAI, server)
        await generate(client, 4, request_)
        await client.aclose()
        assert (len(server.seen), server.opened) == (4, 1)


async def test_what_is_sent_is_one_request_and_no_more_than_it_needs() -> None:
    async with open_hostile_server({"*": Odd(answer({"value": 1}), Then.HANG)}) as server:
        wire = Wire(server.url + "/a/", password=Secret("pass"), keep_alive=True)
        sent: list[int] = []
        with trio.fail_after(GUARD_SECONDS):
            asked = await wire.send(
                "POST", "/b", b"{}", on_send=lambda: sent.append(1), headers={"traceparent": "t"}
            )
            await asked.aclose()
            await wire.call("GET", "/c")
        await wire.aclose()
    host = f"Host: 127.0.0.1:{server.port}\r\nAccept-Encoding: identity\r\n"
    token = "Authorization: Bearer pass\r\n"
    body = "Content-Type: application/json\r\nContent-Length: 2\r\n"
    assert [head.decode() for head in server.seen] == [
        f"POST /a/b HTTP/1.1\r\n{host}{token}{body}traceparent: t\r\n\r\n",
        f"GET /a/c HTTP/1.1\r\n{host}{token}\r\n",
    ]
    assert sent == [1]


@pytest.mark.parametrize("password", ["line\r\nx: y", "nul\0", "trailing "])
async def test_a_credential_that_no_header_may_carry_is_never_sent_nor_told(password: str) -> None:
    async with open_hostile_server(WELL) as server:
        wire = Wire(server.url, password=Secret(password))
        with pytest.raises(AttemptFailed) as caught:
            await wire.call("GET", MODELS)
        assert caught.value.observation.seen is Seen.NOT_HTTP
        assert caught.value.__cause__ is None
        assert not server.seen
        with pytest.raises(AttemptFailed):
            await Wire(server.url).send("GET", MODELS, headers={"tracestate": password})
        assert not server.seen


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_a_server_is_reached_by_name_and_by_address(host: str) -> None:
    local = "::1" if host == "[::1]" else "127.0.0.1"
    with socket.socket(socket.AF_INET6 if host == "[::1]" else socket.AF_INET) as taken:
        taken.bind((local, 0))
        nobody = f"http://{host}:{taken.getsockname()[1]}"
        assert await seen_of(Wire(nobody)) is Seen.UNREACHABLE
    if host == "[::1]":
        return
    async with open_hostile_server(WELL) as server:
        wire = Wire(f"http://{host}:{server.port}")
        with trio.fail_after(GUARD_SECONDS):
            assert await wire.call("GET", MODELS)
        await wire.aclose()


async def test_a_name_that_nobody_has_is_told_as_such() -> None:
    assert await seen_of(Wire("http://nobody.invalid:1")) is Seen.UNREACHABLE


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_host_out_of_descriptors_says_so_of_itself(host: str) -> None:
    async with open_hostile_server(WELL) as server:
        with no_descriptors():
            seen = await seen_of(Wire(f"http://{host}:{server.port}"))
        assert seen is Seen.HOST_EXHAUSTED


async def test_a_connection_that_is_not_accepted_in_time_is_given_up() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        waiting: list[socket.socket] = []
        try:
            for _ in range(3):  # As many as the system queues for somebody who accepts nobody.
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(full.getsockname())
                waiting.append(one)
            wire = Wire(url, connect_timeout_seconds=0.2)
            assert await seen_of(wire) is Seen.CONNECT_TIMEOUT
        finally:
            for one in waiting:
                one.close()


async def test_a_generation_that_is_left_closes_its_connection() -> None:
    async with open_hostile_server({**WELL, CHAT: Odd(then=Then.HANG)}) as server:
        client = open_client(BackendKind.OPENAI, server)
        with trio.fail_after(GUARD_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.generate, PLAIN)
                while not server.seen:
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            while not server.closed:
                await trio.lowlevel.checkpoint()
        await client.aclose()
