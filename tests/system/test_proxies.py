"""The recipes of docs/proxies.md, each on the real proxy."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import TYPE_CHECKING

import httpx
import pytest
import trio
import trustme

from ai_ticket_daemon.config.http import HttpConfig
from ai_ticket_daemon.config.rate_limit import RateLimitConfig
from ai_ticket_daemon.config.values.addresses import TcpBind
from ai_ticket_daemon.testing.http import serving
from ai_ticket_daemon.testing.pipeline import ScriptedPipeline, succeeded
from tests.support.system.ports import free_port
from tests.support.system.proxies import HAPROXY, HOST, KINDS, NGINX, Kind, need_proxy, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from ai_ticket_daemon.testing.http import RawClient, Served

pytestmark = pytest.mark.system

GUARD_SECONDS = 60
ONCE = RateLimitConfig(requests=1, window_seconds=3600)


class Front:
    """A proxy with a daemon behind it."""

    def __init__(self, served: Served, port: int, authority: trustme.CA) -> None:
        self.served = served
        self._port = port
        self._context = ssl.create_default_context()
        authority.configure_trust(self._context)

    def client(self, address: str = "127.0.0.1", *, http2: bool = False) -> httpx.AsyncClient:
        """Return a client that comes from this address."""
        return httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{self._port}",
            headers={"host": HOST},
            transport=_Named(
                verify=self._context, local_address=address, http2=http2, trust_env=False
            ),
            timeout=GUARD_SECONDS,
        )

    async def read_stream(
        self, until: bytes = b": heartbeat", *, encrypted: bool = True
    ) -> RawClient:
        """Ask for a stream, and return who reads it, once so much of it has come."""
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
        stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        if encrypted:
            stream = trio.SSLStream(
                stream, self._context, server_hostname=HOST, https_compatible=True
            )
        reader = self.served.client(stream)
        body = b'{"content": "a", "stream": true}'
        head = f"POST /event HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\n"
        length = f"content-length: {len(body)}\r\n\r\n"
        await reader.send(head.encode() + length.encode() + body)
        if until:
            await reader.until(until)
        return reader


class _Named(httpx.AsyncHTTPTransport):
    """Asks for the certificate of the host, though it connects to an address."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["sni_hostname"] = HOST
        return await super().handle_async_request(request)


@asynccontextmanager
async def in_front(
    kind: Kind,
    folder: Path,
    *,
    pipeline: ScriptedPipeline | None = None,
    rate_limit: RateLimitConfig | None = None,
    changes: Mapping[str, str] | None = None,
) -> AsyncIterator[Front]:
    need_proxy(kind)
    authority = trustme.CA()
    leaf = authority.issue_cert(HOST)
    leaf.private_key_and_cert_chain_pem.write_to_path(str(folder / "ai-ticket.pem"))
    leaf.private_key_pem.write_to_path(str(folder / "privkey.pem"))
    for blob in leaf.cert_chain_pems:
        blob.write_to_path(str(folder / "fullchain.pem"), append=True)
    http = HttpConfig(
        bind=(TcpBind("127.0.0.1", 0),), trusted_proxies=(ip_network("127.0.0.1/32"),)
    )
    port = free_port()
    async with serving(http, pipeline=pipeline, rate_limit=rate_limit) as served:
        address = f"127.0.0.1:{served.port}"
        async with running(kind, folder, port=port, daemon=address, changes=changes or {}):
            yield Front(served, port, authority)


def unanswered() -> ScriptedPipeline:
    """Return a pipeline that leaves the end of each event to the test."""
    pipeline = ScriptedPipeline()
    pipeline.answer = None
    return pipeline


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.mark.parametrize("http2", [False, True])
async def test_an_event_is_answered_over_tls(kind: Kind, http2: bool, tmp_path: Path) -> None:
    async with in_front(kind, tmp_path) as front, front.client(http2=http2) as client:
        answer = await client.post("/event", json={"content": "a" * 200_000})

        assert answer.status_code == 200
        assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        assert answer.json()["completion"] == "done"


async def test_a_piece_of_a_stream_arrives_before_the_next_one_is_made(
    kind: Kind, tmp_path: Path
) -> None:
    pipeline = unanswered()
    async with in_front(kind, tmp_path, pipeline=pipeline) as front:
        reader = await front.read_stream()
        submission = await pipeline.submission()
        for piece in ("one", "two"):
            submission.say(piece)
            assert f'"delta":"{piece}"'.encode() in await reader.until(b'"done":false}')
        submission.end(succeeded("onetwo"))
        assert b'"done":true' in await reader.until(b'"done":true')


async def test_each_client_is_known_by_its_own_address_whatever_it_claims(
    kind: Kind, tmp_path: Path
) -> None:
    async with (
        in_front(kind, tmp_path, rate_limit=ONCE) as front,
        front.client("127.0.0.2") as one,
        front.client("127.0.0.3") as other,
    ):
        event = {"content": "a"}
        claims = {"x-forwarded-for": "203.0.113.7"}
        assert (await one.post("/event", json=event)).status_code == 200
        assert (await one.post("/event", json=event, headers=claims)).status_code == 429
        assert (await other.post("/event", json=event)).status_code == 200


async def test_a_client_that_leaves_is_seen_to_leave(kind: Kind, tmp_path: Path) -> None:
    pipeline = unanswered()
    async with in_front(kind, tmp_path, pipeline=pipeline) as front:
        reader = await front.read_stream()
        submission = await pipeline.submission()
        await trio.aclose_forcefully(reader.stream)
        with trio.fail_after(GUARD_SECONDS):
            await submission.abandoned.wait()


async def test_with_another_line_nginx_keeps_a_stream_back(tmp_path: Path) -> None:
    """So that the test of streams is known to notice."""
    pipeline = unanswered()
    changes = {"proxy_buffering off;": "proxy_ignore_headers X-Accel-Buffering;"}
    async with in_front(NGINX, tmp_path, pipeline=pipeline, changes=changes) as front:
        reader = await front.read_stream(until=b"")
        submission = await pipeline.submission()
        submission.say("one")
        came = b""
        with trio.move_on_after(1):
            came = await reader.until(b'"delta":"one"')
        assert came == b""
        submission.end(succeeded("one"))
        await reader.until(b'"done":true')


async def test_without_its_line_haproxy_keeps_each_piece_back_where_it_speaks_plain_http(
    tmp_path: Path,
) -> None:
    """The page says so. The kernel sends after 0.2 seconds what it was told to wait with."""
    pipeline = unanswered()
    changes = {
        "    option http-no-delay\n": "",
        "ssl crt /etc/ssl/ai-ticket/ai-ticket.pem alpn h2,http/1.1": "",
    }
    took_seconds = []
    async with in_front(HAPROXY, tmp_path, pipeline=pipeline, changes=changes) as front:
        reader = await front.read_stream(encrypted=False)
        submission = await pipeline.submission()
        for piece in ("one", "two", "three"):
            began = trio.current_time()
            submission.say(piece)
            await reader.until(f'"delta":"{piece}"'.encode())
            took_seconds.append(trio.current_time() - began)
        submission.end(succeeded("onetwothree"))
        await reader.until(b'"done":true')
    assert min(took_seconds) > 0.15
