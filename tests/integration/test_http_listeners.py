"""Where the server listens, how much it takes at a time, and how it stops."""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio
import trio.testing
import trustme

from ai_ticket_daemon.config.http import HttpConfig
from ai_ticket_daemon.config.values.addresses import FdBind, TcpBind, UnixBind
from ai_ticket_daemon.server.listen.protocols import Protocol
from ai_ticket_daemon.server.listen.sockets import (
    ListenerUnavailable,
    open_listeners,
    watch_peer,
)
from ai_ticket_daemon.server.listen.tls import ServedCertificate
from ai_ticket_daemon.testing.http import serving
from ai_ticket_daemon.testing.pipeline import GUARD_SECONDS, ScriptedPipeline, succeeded

if TYPE_CHECKING:
    from pathlib import Path

    from ai_ticket_daemon.testing.http import RawClient

LOOPBACK = TcpBind("127.0.0.1", 0)
GET = b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n"
POST = (
    b"POST /event HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    b'content-length: 16\r\n\r\n{"content": "a"}'
)


async def is_served(client: RawClient) -> bool:
    await client.send(GET)
    return (await client.reply()).status == 200


async def test_all_addresses_are_served_at_once(tmp_path: Path) -> None:
    path = tmp_path / "http"
    with socket.create_server(("127.0.0.1", 0)) as handed_over:
        binds = (LOOPBACK, TcpBind("::1", 0), UnixBind(path), FdBind(handed_over.fileno()))
        async with serving(HttpConfig(bind=binds)) as served:
            v4, v6, unix, fd = served.addresses
            assert v4.startswith("127.0.0.1:")
            assert v6.startswith("[::1]:")
            assert unix == f"unix:{path}"
            assert fd == f"127.0.0.1:{handed_over.getsockname()[1]}"
            assert path.stat().st_mode & 0o777 == 0o660
            for address in (v4, v6, fd):
                host, _, port = address.rpartition(":")
                stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
                assert await is_served(served.client(stream))
            assert await is_served(served.client(await trio.open_unix_socket(str(path))))
    assert not path.exists()


def name_with(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Have every name mean these addresses."""

    async def found(host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        await trio.lowlevel.checkpoint()
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in addresses
        ]

    monkeypatch.setattr(trio.socket, "getaddrinfo", found)


@pytest.mark.parametrize("addresses", [("::1", "127.0.0.1"), ("127.0.0.1", "::1")])
async def test_a_name_is_listened_on_at_all_its_addresses_on_one_port(
    monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, str]
) -> None:
    with monkeypatch.context() as patch:
        name_with(patch, *addresses, addresses[0])  # a hosts file may say it twice
        listeners = await open_listeners([TcpBind("a-name", 0)])
    ports = {listener.address.rpartition(":")[2] for listener in listeners}
    assert (len(listeners), len(ports)) == (2, 1)
    for listener in listeners:
        listener.close()
    async with serving(HttpConfig(bind=(TcpBind("localhost", 0),))) as served:
        for address in served.addresses:
            host, _, port = address.rpartition(":")
            stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
            assert await is_served(served.client(stream))


async def test_a_port_that_is_taken_at_one_address_of_a_name_is_chosen_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel chooses by the first address; whether the others have it free is chance."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, chosen = taken.getsockname()[1], 0
        with trio.socket.socket() as any_socket:
            kind = type(any_socket)
        bind = kind.bind

        async def choose(self: trio.socket.SocketType, address: tuple[Any, ...]) -> None:
            nonlocal chosen
            if address[0] == "::1":
                chosen += 1
                address = ("::1", port if chosen == 1 else 0, 0, 0)
            await bind(self, address)

        name_with(monkeypatch, "::1", "127.0.0.1")
        monkeypatch.setattr(kind, "bind", choose)
        listeners = await open_listeners([TcpBind("a-name", 0)])
        ports = {int(listener.address.rpartition(":")[2]) for listener in listeners}
        for listener in listeners:
            listener.close()
    assert len(listeners) == 2
    assert len(ports) == 1
    assert port not in ports


async def test_a_host_without_ipv6_listens_on_what_a_name_has_besides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name_with(monkeypatch, "2001:db8::1", "127.0.0.1")
    (listener,) = await open_listeners([TcpBind("a-name", 0)])
    assert listener.address.startswith("127.0.0.1:")
    listener.close()
    name_with(monkeypatch, "2001:db8::1")
    with pytest.raises(ListenerUnavailable, match="Cannot assign"):
        await open_listeners([TcpBind("a-name", 0)])


async def test_the_socket_a_killed_daemon_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "http"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    async with serving(HttpConfig(bind=(UnixBind(path),))) as served:
        assert await is_served(served.client(await trio.open_unix_socket(str(path))))


async def test_the_socket_of_another_daemon_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "http"
    async with serving(HttpConfig(bind=(UnixBind(path),))) as served:
        with pytest.raises(ListenerUnavailable, match="already in use; stop what listens there"):
            await open_listeners([UnixBind(path)])
        assert await is_served(served.client(await trio.open_unix_socket(str(path))))


async def test_a_socket_that_took_our_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "http"
    (ours,) = await open_listeners([UnixBind(path)])
    path.rename(tmp_path / "old")
    (theirs,) = await open_listeners([UnixBind(path)])
    ours.close()
    assert path.exists()
    theirs.close()
    assert not path.exists()
    theirs.close()


async def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "http"
    path.write_text("precious")
    with pytest.raises(ListenerUnavailable, match="not a socket"):
        await open_listeners([UnixBind(path)])
    assert path.read_text() == "precious"


async def test_a_taken_port_is_named_with_its_cause_and_nothing_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "http"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenerUnavailable) as caught:
            await open_listeners([UnixBind(path), TcpBind("127.0.0.1", port)])
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{port}: Address already in use; "
        "stop what listens there, or change http.bind"
    )
    assert not path.exists()


async def test_processes_that_share_a_socket_never_hold_each_other_up() -> None:
    """systemd hands one socket to several instances, and starting one may make it block for all.

    Two listeners wait for the one client there is: the second finds that it has gone, and must
    neither stop the loop nor miss the next one.
    """
    with socket.create_server(("127.0.0.1", 0)) as handed_over:
        bind = FdBind(handed_over.fileno())
        async with serving(HttpConfig(bind=(bind,))) as one, serving(HttpConfig(bind=(bind,))):
            port = handed_over.getsockname()[1]
            for _ in range(5):
                await trio.testing.wait_all_tasks_blocked()
                handed_over.setblocking(True)  # what another process does to all of them
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                assert await is_served(one.client(stream))


@pytest.mark.parametrize(
    ("bind", "message"),
    [
        (TcpBind("192.0.2.1", 0), "cannot listen on 192.0.2.1:0: Cannot assign"),
        (TcpBind("no-such-host.invalid", 0), "cannot listen on no-such-host.invalid:0: "),
        (FdBind(9999), "cannot listen on fd://9999: Bad file descriptor"),
    ],
)
async def test_an_address_that_cannot_be_had_is_named(bind: TcpBind | FdBind, message: str) -> None:
    with pytest.raises(ListenerUnavailable) as caught:
        await open_listeners([bind])
    assert str(caught.value).startswith(message)


async def test_a_descriptor_that_does_not_listen_is_refused_and_stays_open() -> None:
    with socket.socket() as handed_over:
        with pytest.raises(ListenerUnavailable, match="no listening stream socket"):
            await open_listeners([FdBind(handed_over.fileno())])
        assert handed_over.fileno() != -1
        handed_over.getsockname()


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA, tmp_path: Path) -> HttpConfig:
    issued = authority.issue_cert("localhost")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.private_key_pem.write_to_path(str(key))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(certificate), append=True)
    return HttpConfig(
        bind=(LOOPBACK,), tls_cert=certificate, tls_key=key, header_timeout_seconds=0.3
    )


@pytest.mark.parametrize("http2", [False, True])
async def test_https_is_served_as_the_client_likes_it(
    tls: HttpConfig, authority: trustme.CA, http2: bool
) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with (
        serving(tls) as served,
        httpx.AsyncClient(
            base_url=f"https://localhost:{served.port}",
            verify=context,
            http2=http2,
            timeout=60,
        ) as client,
    ):
        for _ in range(2):
            reply = await client.post("/event", json={"content": "a" * 100_000})
            assert reply.status_code == 200
            assert reply.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        text = (await client.post("/event", json={"content": "a", "stream": True})).text
        assert text.startswith(": heartbeat\n\n")
        assert '"done":true' in text
        assert (await client.get("/nope")).json()["error"] == "not_found"


async def test_clients_that_do_not_speak_tls_are_let_go(tls: HttpConfig) -> None:
    async with serving(tls) as served:
        talker, silent = await served.connect(), await served.connect()
        await talker.send(GET)
        await talker.until(b"never")
        assert await silent.at_end()


async def test_http_on_a_port_that_speaks_https_gets_a_sentence(tls: HttpConfig) -> None:
    async with serving(tls) as served:
        # More than one segment, so that a careless close would reset the answer away.
        client = await served.connect()
        await client.send(POST + b"a" * 100_000)
        reply = await client.reply()
        assert reply.status == 400
        assert reply.body.startswith(b"This port speaks HTTPS")
        assert reply.headers["connection"] == "close"
        assert await client.at_end()
        assert served.observer.requests == []


async def test_noise_on_a_port_that_speaks_https_is_let_go_without_an_answer(
    tls: HttpConfig,
) -> None:
    async with serving(tls) as served:
        client = await served.connect()
        await client.send(b"\x00\x01nonsense")
        assert await client.at_end()


def test_a_certificate_that_does_not_fit_is_named(tls: HttpConfig, tmp_path: Path) -> None:
    file = tmp_path / "nonsense.pem"
    file.write_text("nonsense")
    for certificate in (file, tmp_path / "missing"):
        http = replace(tls, tls_cert=certificate)
        with pytest.raises(ListenerUnavailable, match=r"http\.tls_cert: "):
            ServedCertificate(partial(replace, http)).start()


async def test_connections_beyond_the_limit_wait_for_their_turn() -> None:
    async with serving(HttpConfig(bind=(LOOPBACK,), max_connections=2)) as served:
        served.pipeline.answer = None
        busy = [await served.connect() for _ in range(2)]
        for number, client in enumerate(busy, start=1):
            await client.send(POST)
            await served.pipeline.submission(number)
        third = await served.connect()
        await third.send(POST)
        # Probes of this host get in all the same, however many connections wait.
        for _ in range(20):
            assert await is_served(await served.connect())
        assert len(served.pipeline.submissions) == 2
        served.pipeline.submissions[0].end(succeeded())
        assert (await busy[0].reply()).status == 200
        await busy[0].stream.aclose()
        (await served.pipeline.submission(3)).end(succeeded())
        assert (await third.reply()).status == 200


async def test_a_connection_that_asks_for_nothing_gives_way_to_one_that_does() -> None:
    async with serving(HttpConfig(bind=(LOOPBACK,), max_connections=3)) as served:
        silent = [await served.connect() for _ in range(3)]
        for client in silent:
            assert await is_served(client)
        for number, client in enumerate(silent, start=1):
            asking = await served.connect()
            await asking.send(POST)
            assert (await asking.reply()).status == 200
            assert len(served.pipeline.submissions) == number
            assert await client.at_end()


async def test_an_address_that_has_all_it_may_have_is_told_and_probes_get_in() -> None:
    http = HttpConfig(bind=(LOOPBACK,), max_connections=10, max_connections_per_address=3)
    async with serving(http) as served:
        for _ in range(3):
            assert await is_served(await served.connect())
        more = await served.connect()
        await more.send(POST)
        reply = await more.reply()
        assert (reply.status, reply.json()["error"]) == (429, "rate_limited")
        assert int(reply.headers["retry-after"]) >= 1
        assert served.pipeline.submissions == []
        assert await is_served(await served.connect())
        # Another address has room.
        other = await trio.open_tcp_stream("127.0.0.1", served.port, local_address="127.0.0.2")
        client = served.client(other)
        await client.send(POST)
        assert (await client.reply()).status == 200
        # So has this one, when it has closed one of its own.
        await served.clients[0].stream.aclose()
        with trio.fail_after(GUARD_SECONDS):
            while True:
                again = await served.connect()
                await again.send(POST)
                if (await again.reply()).status == 200:
                    break


async def test_a_trusted_proxy_and_a_unix_socket_have_no_bound_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "http"
    http = HttpConfig(
        bind=(LOOPBACK, UnixBind(path)),
        max_connections_per_address=1,
        trusted_proxies=(ipaddress.ip_network("127.0.0.0/8"),),
    )
    async with serving(http) as served:
        for _ in range(5):
            client = await served.connect()
            await client.send(POST)
            assert (await client.reply()).status == 200
            local = served.client(await trio.open_unix_socket(str(path)))
            await local.send(POST)
            assert (await local.reply()).status == 200


async def test_a_stop_sends_away_who_waits_for_a_place() -> None:
    async with serving(HttpConfig(bind=(LOOPBACK,), max_connections=1)) as served:
        served.pipeline.answer = None
        busy, waiting = await served.connect(), await served.connect()
        await busy.send(POST)
        submission = await served.pipeline.submission()
        await waiting.send(POST)
        assert await is_served(await served.connect())
        served.stop.set()
        assert (await waiting.reply()).status == 503
        submission.end(succeeded())
        assert (await busy.reply()).status == 200
        with trio.fail_after(GUARD_SECONDS):
            await served.done.wait()


async def test_many_connections_at_once_are_all_served() -> None:
    async with serving() as served, trio.open_nursery() as nursery:

        async def ask() -> None:
            assert await is_served(await served.connect())

        for _ in range(300):
            nursery.start_soon(ask)


@pytest.mark.parametrize("served_before", [False, True])
async def test_a_request_that_crosses_with_the_stop_is_served(served_before: bool) -> None:
    """The client has connected, or has its answer, and cannot know that the daemon stops."""
    async with serving() as served:
        client = await served.connect()
        if served_before:
            assert await is_served(client)
        else:
            await trio.testing.wait_all_tasks_blocked()  # it is accepted
        served.stop.set()
        await trio.testing.wait_all_tasks_blocked()
        await client.send(GET)
        reply = await client.reply()
        assert reply.status == 200
        assert reply.headers["connection"] == "close"
        with trio.fail_after(GUARD_SECONDS):
            await served.done.wait()


async def test_stopping_closes_idle_connections_and_lets_requests_finish() -> None:
    pipeline = ScriptedPipeline()
    pipeline.answer = None
    async with serving(pipeline=pipeline) as served:
        fresh, idle, busy = [await served.connect() for _ in range(3)]
        assert await is_served(idle)
        await busy.send(POST)
        submission = await pipeline.submission()
        served.stop.set()
        assert await fresh.at_end()
        assert await idle.at_end()
        with pytest.raises(OSError, match="127"):
            await served.connect()
        assert not served.done.is_set()
        submission.end(succeeded())
        reply = await busy.reply()
        assert reply.status == 200
        assert reply.headers["connection"] == "close"
        assert await busy.at_end()
        await busy.stream.aclose()
        with trio.fail_after(GUARD_SECONDS):
            await served.done.wait()
        assert not submission.abandoned.is_set()


async def test_a_connection_that_crashes_harms_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def crash(*_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    async with serving() as served:
        before = await served.connect()
        assert await is_served(before)
        with monkeypatch.context() as patch:
            patch.setattr(Protocol, "initiate", crash)
            assert await (await served.connect()).at_end()
        assert await is_served(before)
        assert await is_served(await served.connect())
    assert [record.message for record in caplog.records] == ["connection_crashed"]


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (OSError(errno.ECONNABORTED, "the client left while it waited"), ["accept_failed"]),
        (OSError(errno.EMFILE, "Too many open files"), []),
        (OSError(errno.ENOBUFS, "No buffer space available"), []),
        (MemoryError(), []),
    ],
    ids=["client", "descriptors", "buffers", "memory"],
)
async def test_a_connection_that_cannot_be_had_does_not_stop_the_listener(
    failure: Exception,
    told: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    accept, failures = trio.SocketListener.accept, [failure]

    async def fail_once(listener: trio.SocketListener) -> trio.SocketStream:
        stream = await accept(listener)
        if failures:
            await stream.aclose()
            raise failures.pop()
        return stream

    monkeypatch.setattr(trio.SocketListener, "accept", fail_once)
    async with serving() as served:
        await served.connect()
        assert await is_served(await served.connect())
    # What the host lacks is told elsewhere, and seldom.
    assert [record.message.partition(":")[0] for record in caplog.records] == told


async def test_hypercorn_says_nothing_by_itself(capfd: pytest.CaptureFixture[str]) -> None:
    async with serving() as served:
        client = await served.connect()
        await client.send(b"nonsense\r\n\r\n")
        assert (await client.reply()).status == 400
        assert await is_served(await served.connect())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_the_kernel_watches_over_clients_that_fall_silent(host: str) -> None:
    (listener,) = await open_listeners([TcpBind(host, 0)])
    client = await trio.open_tcp_stream(host, listener.listener.socket.getsockname()[1])
    async with await listener.listener.accept() as stream, client:
        watch_peer(stream.socket, 30.0)
        tcp = socket.IPPROTO_TCP
        assert stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert stream.socket.getsockopt(tcp, socket.TCP_KEEPIDLE) == 10
        assert stream.socket.getsockopt(tcp, socket.TCP_KEEPINTVL) == 10
        assert stream.socket.getsockopt(tcp, socket.TCP_KEEPCNT) == 3
        assert stream.socket.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 30_000
    listener.close()
