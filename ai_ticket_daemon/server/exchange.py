"""One request from its headers to its last byte, between hypercorn's ASGI and Quart's routing.

Here the client's going away becomes a cancelled handler and an abandoned event, every failure
becomes the one error shape, and whoever observes requests is told of start and end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import trio
from quart import Response
from quart.utils import encode_headers
from quart_trio.asgi import TrioASGIHTTPConnection

from ai_ticket_daemon.errors import ErrorCode, RequestRefused, TicketError
from ai_ticket_daemon.events.outcome import Failed
from ai_ticket_daemon.server.access import ANYBODY
from ai_ticket_daemon.server.answers import (
    JSON_TYPE,
    completion_object,
    error_headers,
    error_object,
    internal_error,
    last_frame,
    status_of,
    to_json,
)
from ai_ticket_daemon.server.ports import RequestEnded, RequestStarted
from ai_ticket_daemon.server.routes import method_label, route_label
from ai_ticket_daemon.server.streaming import relay_deltas
from ai_ticket_daemon.server.trace import trace_of

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping, Sequence

    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
    from quart import Quart
    from quart.wrappers import Request

    from ai_ticket_daemon.config.events import EventsConfig
    from ai_ticket_daemon.config.http import HttpConfig
    from ai_ticket_daemon.config.tokens import Scope
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.server.access import Gate
    from ai_ticket_daemon.server.app import TicketApp
    from ai_ticket_daemon.server.ports import HealthView, Pipeline, RequestObserver, Submission

STATUS_CLIENT_GONE = 499
_SCOPE_KEY = "ai_ticket_exchange"
_STREAM_HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-store",
    "x-accel-buffering": "no",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """What the HTTP surface stands on.

    ``http`` and ``events`` return the settings in force now. ``heartbeat_seconds`` is the longest
    silence in a stream; ``write_timeout_seconds`` how long a client may refuse to read before it
    counts as gone. ``now`` returns seconds since the Unix epoch.
    """

    pipeline: Pipeline
    health: HealthView
    http: Callable[[], HttpConfig]
    events: Callable[[], EventsConfig]
    gate: Gate
    observer: RequestObserver
    logger: logging.Logger
    heartbeat_seconds: float
    write_timeout_seconds: float
    now: Callable[[], float]


class EventStream(Response):
    """Stands for a response whose body is written as the event's completion is made."""

    def __init__(self, event: Event) -> None:
        super().__init__(b"", 200, dict(_STREAM_HEADERS))
        del self.headers["content-length"]
        self.event = event


class Exchange(TrioASGIHTTPConnection):
    """One request and its response."""

    def __init__(self, app: Quart, scope: HTTPScope) -> None:
        super().__init__(app, scope)
        scope["path"] = _plain_path(scope["path"])
        cast("dict[str, Any]", scope)[_SCOPE_KEY] = self
        self._surface = cast("TicketApp", app).surface
        self._begun_at = trio.current_time()
        self._route = route_label(scope["path"])
        self._method = method_label(scope["method"])
        self._observed = self._surface.observer.started(
            RequestStarted(self._route, self._method, trace_of(scope["headers"]))
        )
        self._headers: Mapping[str, str] = {}
        self.caller = ANYBODY
        self._submission: Submission | None = None
        self._event_id: str | None = None
        self._ended = False
        self._status: int | None = None
        self._error: ErrorCode | None = None
        self._complete = False

    @classmethod
    def of(cls, request: Request) -> Exchange:
        """Return the exchange that ``request`` belongs to."""
        return cast("Exchange", cast("dict[str, Any]", request.scope)[_SCOPE_KEY])

    @property
    def trace_context(self) -> Mapping[str, str]:
        """The W3C headers of the trace that this request belongs to."""
        return self._observed.trace.headers()

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve the request; returns early if the client leaves."""
        # Quart reads its limit here, and only here, so a reload takes effect with the next request.
        self.app.config["MAX_CONTENT_LENGTH"] = self._surface.http().max_body_bytes
        try:
            request = self._create_request_from_scope(send)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.handle_messages, nursery, request, receive)
                nursery.start_soon(self._respond, nursery, request, send)
        finally:
            self._end()

    async def _respond(
        self, nursery: trio.Nursery, request: Request, send: ASGISendCallable
    ) -> None:
        """Route the request and send what comes back."""
        response = cast("Response", await self.app.handle_request(request))

        async def send_in_time(message: dict[str, Any], *, shield: bool = False) -> None:
            seconds = self._surface.write_timeout_seconds
            with trio.move_on_after(seconds, shield=shield) as scope:
                await send(cast("Any", message))
            if scope.cancelled_caught:
                # Whoever does not read is as good as gone; end as if the connection were lost.
                nursery.cancel_scope.cancel()
                await trio.lowlevel.checkpoint()

        async def write(data: bytes) -> None:
            await send_in_time({"type": "http.response.body", "body": data, "more_body": True})

        self._status = response.status_code
        response.headers.update(self._headers)
        await send_in_time(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": encode_headers(response.headers),
            }
        )
        if isinstance(response, EventStream):
            outcome = await self._relay(write)
            body = last_frame(response.event, outcome, self._observed.trace.trace_id)
        else:
            body = await response.get_data(as_text=False)
        # From inside this call hypercorn reports the end of the request, upon which we are
        # cancelled; the shield lets it finish what it does for the connection.
        await send_in_time({"type": "http.response.body", "body": body}, shield=True)
        self._complete = True
        nursery.cancel_scope.cancel()

    def admit(self, scopes: Sequence[Scope]) -> None:
        """Let the request in; its caller is known from here on.

        Raises:
            RequestRefused: the caller lacks the right to ask, or has asked too often.
        """
        client = self.scope["client"]
        verdict = self._surface.gate.judge(
            cast("list[tuple[bytes, bytes]]", self.scope["headers"]),
            None if client is None else client[0],
            scopes,
            trio.current_time(),
        )
        self._headers = verdict.headers
        if verdict.refusal is not None:
            raise verdict.refusal
        self.caller = verdict.caller

    async def read_body(self, request: Request) -> bytes:
        """Return the whole body.

        Raises:
            RequestRefused: it takes longer than the settings allow.
            RequestEntityTooLarge: it is longer than the settings allow.
        """
        timeout_seconds = self._surface.http().body_timeout_seconds
        with trio.move_on_after(timeout_seconds):
            return cast("bytes", await request.body)
        raise RequestRefused(
            ErrorCode.REQUEST_TIMEOUT,
            f"The body did not arrive within {timeout_seconds:g} seconds; send it faster.",
            details={"timeout_seconds": timeout_seconds},
        )

    async def submit(self, event: Event) -> None:
        """Hand ``event`` to the pipeline; from here on it is abandoned if the client leaves."""
        self._submission = await self._surface.pipeline.submit(event)
        self._event_id = event.event_id

    async def answer(self, event: Event) -> Response:
        """Wait until the submitted ``event`` has ended and return what its client is told."""
        assert self._submission is not None  # noqa: S101 - submit() comes first
        outcome = await self._submission.outcome()
        self._note(outcome)
        if isinstance(outcome, Failed):
            return self.refusal(outcome, status_of(outcome))
        return json_response(200, completion_object(event, outcome))

    def refusal(
        self,
        error: TicketError | Failed,
        status: int,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Return ``error`` in the one shape, and remember its code."""
        self._error = error.code
        return json_response(
            status,
            error_object(error, event_id=self._event_id, trace_id=self._observed.trace.trace_id),
            {**error_headers(error, status), **(headers or {})},
        )

    def crashed(self, error: BaseException) -> TicketError:
        """Log an error nobody expected, once; return what the client is told instead."""
        self._surface.logger.error(
            "request_crashed",
            exc_info=error,
            extra={
                "AI_TICKET_ERROR": ErrorCode.INTERNAL_ERROR.value,
                "AI_TICKET_EVENT_ID": self._event_id,
                "TRACE_ID": self._observed.trace.trace_id,
            },
        )
        return internal_error()

    async def _relay(self, write: Callable[[bytes], Any]) -> Outcome:
        assert self._submission is not None  # noqa: S101 - submit() comes first
        try:
            outcome = await relay_deltas(
                self._submission, write, heartbeat_seconds=self._surface.heartbeat_seconds
            )
        except Exception as error:  # noqa: BLE001 - the edge: the status is sent, the stream is not
            self._error = ErrorCode.INTERNAL_ERROR
            return Failed.from_error(self.crashed(error))
        self._note(outcome)
        return outcome

    def _note(self, outcome: Outcome) -> None:
        self._ended = True
        self._error = outcome.code if isinstance(outcome, Failed) else None

    def _end(self) -> None:
        if self._submission is not None and not self._ended:
            self._submission.abandon()
        gone = not self._complete
        self._observed.ended(
            RequestEnded(
                route=self._route,
                method=self._method,
                status=self._status or STATUS_CLIENT_GONE,
                error=ErrorCode.CANCELLED if gone else self._error,
                duration_seconds=trio.current_time() - self._begun_at,
                event_id=self._event_id,
            )
        )


def json_response(status: int, value: object, headers: Mapping[str, str] | None = None) -> Response:
    """Return ``value`` as the whole of a response."""
    return Response(
        to_json(value),
        status,
        {"content-type": JSON_TYPE, "cache-control": "no-store", **(headers or {})},
    )


def _plain_path(path: str) -> str:
    """Return the path alone, also of an absolute target, of ``*`` and of nothing at all."""
    if not path.startswith("/"):
        try:
            path = urlsplit(path).path
        except ValueError:
            path = ""
    return "/" + path.lstrip("/")  # as werkzeug matches it
