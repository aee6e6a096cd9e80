"""The HTTP surface over real sockets, with a pipeline that does what a test tells it."""

from __future__ import annotations

import json
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon.config.auth import AuthConfig
from ai_ticket_daemon.config.events import EventsConfig
from ai_ticket_daemon.config.http import HttpConfig
from ai_ticket_daemon.config.rate_limit import RateLimitConfig
from ai_ticket_daemon.config.values.addresses import TcpBind
from ai_ticket_daemon.server.app import create_app
from ai_ticket_daemon.server.listen.listeners import serve
from ai_ticket_daemon.server.listen.tls import ServedCertificate
from ai_ticket_daemon.server.ports import ObservedRequest, RequestObserver
from ai_ticket_daemon.status.snapshot import (
    ActiveSnapshot,
    BackendSnapshot,
    HealthStatus,
    Snapshot,
)
from ai_ticket_daemon.testing.pipeline import GUARD_SECONDS, ScriptedPipeline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ai_ticket_daemon.errors import ErrorCode, TicketError
    from ai_ticket_daemon.server.ports import RequestEnded, RequestStarted


def healthy() -> Snapshot:
    """Return the snapshot of a daemon that is well."""
    return Snapshot(
        status=HealthStatus.HEALTHY,
        ready=True,
        version="0",
        uptime_seconds=1.0,
        active=ActiveSnapshot(role="primary", pinned=None, reason="start", detail=""),
    )


def backend_snapshot(name: str, role: str, state: str, **more: Any) -> BackendSnapshot:
    """Return one backend of a snapshot; ``more`` sets what a test is about."""
    fields: dict[str, Any] = {
        "kind": "koboldcpp",
        "url": f"http://{name}",
        "reason": "",
        "usable": state in ("ready", "busy"),
        "active": False,
        "pinned": False,
        "in_flight": 0,
        "max_in_flight": 1,
        "version": None,
        "features": (),
        "resting_seconds": 0.0,
    }
    return BackendSnapshot(name=name, role=role, state=state, **(fields | more))


@dataclass
class ScriptedHealth:
    """Tells what the test says."""

    current: Snapshot = field(default_factory=healthy)

    def snapshot(self) -> Snapshot:
        """Return how things stand now."""
        return self.current

    async def recent(self) -> Snapshot:
        """Return the same."""
        await trio.lowlevel.checkpoint()
        return self.current


@dataclass
class RecordedRequest(ObservedRequest):
    """A request as an observer saw it; ``end`` is None until it is over."""

    start: RequestStarted
    end: RequestEnded | None = None
    over: trio.Event = field(default_factory=trio.Event)
    refusals: list[tuple[ErrorCode, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.start.trace)

    def refused(self, error: TicketError, payload: object) -> None:
        """Remember what was refused."""
        self.refusals.append((error.code, payload))

    def ended(self, request: RequestEnded) -> None:
        """Remember the end."""
        self.end = request
        self.over.set()


@dataclass
class RecordingObserver(RequestObserver):
    """Remembers all requests."""

    requests: list[RecordedRequest] = field(default_factory=list)

    def started(self, request: RequestStarted) -> ObservedRequest:
        """Remember the start."""
        recorded = RecordedRequest(request)
        self.requests.append(recorded)
        return recorded

    async def only(self) -> RequestEnded:
        """Wait for the end of the only request and return it."""
        (recorded,) = self.requests
        with trio.fail_after(GUARD_SECONDS):
            await recorded.over.wait()
        assert recorded.end is not None
        return recorded.end


@dataclass
class HttpReply:
    """A response as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as decoded JSON."""
        return json.loads(self.body)


class RawClient:
    """A client that sends exactly the bytes it is told to."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.buffer = b""

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        with trio.fail_after(GUARD_SECONDS):
            await self.stream.send_all(data)

    async def until(self, mark: bytes) -> bytes:
        """Return what comes up to and including ``mark``; what comes before the end if it ends."""
        with trio.fail_after(GUARD_SECONDS):
            while mark not in self.buffer:
                data = await self.stream.receive_some(65_536)
                if not data:
                    data, self.buffer = self.buffer, b""
                    return data
                self.buffer += data
        head, _, self.buffer = self.buffer.partition(mark)
        return head + mark

    async def reply(self) -> HttpReply:
        """Return the next response, which has to tell its length."""
        head = (await self.until(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        length = int(headers["content-length"])
        with trio.fail_after(GUARD_SECONDS):
            while len(self.buffer) < length:
                self.buffer += await self.stream.receive_some(65_536)
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return HttpReply(int(first.split()[1]), headers, body)

    async def at_end(self) -> bool:
        """Wait for more; True if the server closed the connection instead."""
        try:
            with trio.fail_after(GUARD_SECONDS):
                return not self.buffer and await self.stream.receive_some(1) == b""
        except trio.BrokenResourceError:
            return True


@dataclass
class Served:
    """A running server and everything it stands on."""

    pipeline: ScriptedPipeline
    health: ScriptedHealth
    observer: RecordingObserver
    stop: trio.Event
    done: trio.Event
    http: HttpConfig
    events: EventsConfig
    auth: AuthConfig
    rate_limit: RateLimitConfig
    addresses: tuple[str, ...] = ()
    clients: list[RawClient] = field(default_factory=list)

    @property
    def port(self) -> int:
        """The first TCP port."""
        return int(self.addresses[0].rpartition(":")[2])

    @property
    def url(self) -> str:
        """The first address, for a client."""
        return f"http://{self.addresses[0]}"

    async def connect(self) -> RawClient:
        """Return a new connection; it is closed with the server at the latest."""
        return self.client(await trio.open_tcp_stream("127.0.0.1", self.port))

    def client(self, stream: trio.abc.Stream) -> RawClient:
        """Return a client over ``stream``; it is closed with the server at the latest."""
        self.clients.append(RawClient(stream))
        return self.clients[-1]


@asynccontextmanager
async def serving(
    http: HttpConfig | None = None,
    events: EventsConfig | None = None,
    *,
    auth: AuthConfig | None = None,
    rate_limit: RateLimitConfig | None = None,
    pipeline: ScriptedPipeline | None = None,
    heartbeat_seconds: float = 10.0,
    write_timeout_seconds: float = 30.0,
    logger: logging.Logger | None = None,
    certificate: ServedCertificate | None = None,
) -> AsyncIterator[Served]:
    """Serve the HTTP surface on a port of loopback while the block runs.

    ``certificate`` is one that the test has started; None for that of ``http``.
    """
    served = Served(
        pipeline=pipeline or ScriptedPipeline(),
        health=ScriptedHealth(),
        observer=RecordingObserver(),
        stop=trio.Event(),
        done=trio.Event(),
        http=http or HttpConfig(bind=(TcpBind("127.0.0.1", 0),)),
        events=events or EventsConfig(),
        auth=auth or AuthConfig(),
        rate_limit=rate_limit or RateLimitConfig(requests=0),
    )
    logger = logger or logging.getLogger("ai_ticket_daemon.server")
    app = create_app(
        pipeline=served.pipeline,
        health=served.health,
        http=lambda: served.http,
        events=lambda: served.events,
        auth=lambda: served.auth,
        rate_limit=lambda: served.rate_limit,
        observer=served.observer,
        logger=logger,
        heartbeat_seconds=heartbeat_seconds,
        write_timeout_seconds=write_timeout_seconds,
    )

    async def run(*, task_status: trio.TaskStatus[tuple[str, ...]]) -> None:
        shown = certificate
        if shown is None:
            shown = ServedCertificate(lambda: served.http)
            shown.start()
        await serve(
            app,
            served.http,
            tls=lambda: shown.context,
            stop_accepting=served.stop,
            all_in=trio.Event(),
            logger=logger,
            trusted_proxies=lambda: served.http.trusted_proxies,
            write_timeout_seconds=write_timeout_seconds,
            task_status=task_status,
        )
        served.done.set()

    try:
        async with trio.open_nursery() as nursery:
            served.addresses = await nursery.start(run)
            yield served
            nursery.cancel_scope.cancel()
    finally:
        # After the server: its end must not depend on its clients.
        for client in served.clients:
            await trio.aclose_forcefully(client.stream)
