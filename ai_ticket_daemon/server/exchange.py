"""One request from its headers to its last byte, between hypercorn's ASGI and Quart's routing.

Here the client's going away becomes a cancelled handler and an abandoned event, every failure
becomes the one error shape, and whoever observes requests is told of start and end.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, urlsplit

import trio
from quart import Response
from quart.utils import encode_headers
from quart_trio.asgi import TrioASGIHTTPConnection

from ai_ticket_daemon.errors import FAULTS_OF_PAYLOADS, ErrorCode, TicketError
from ai_ticket_daemon.events.outcome import Failed
from ai_ticket_daemon.server.access import ANYBODY
from ai_ticket_daemon.server.answers import (
    error_headers,
    error_object,
    internal_error,
    to_json,
)
from ai_ticket_daemon.server.headers import JSON_TYPE, value_of
from ai_ticket_daemon.server.ports import RequestEnded, RequestStarted
from ai_ticket_daemon.server.request_body import RequestBody
from ai_ticket_daemon.server.routes import POST_EVENTS, method_label, route_label
from ai_ticket_daemon.server.trace import trace_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from hypercorn.typing import (
        ASGIReceiveCallable,
        ASGIReceiveEvent,
        ASGISendCallable,
        HTTPScope,
    )
    from quart import Quart
    from quart.wrappers import Request

    from ai_ticket_daemon.config.tokens import Scope
    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.server.app import TicketApp
    from ai_ticket_daemon.server.ports import Submission

    Write = Callable[[bytes], Awaitable[None]]

STATUS_CLIENT_GONE = 499
_SCOPE_KEY = "ai_ticket_exchange"


class Streamed(Response):
    """Stands for a response whose body is written as it is made.

    Args:
        headers: of the response; its status is 200.
        write_body: writes the body and returns its last piece. The headers go out with the first
            piece; what it raises before that is answered with a status of its own.
    """

    def __init__(
        self, headers: Mapping[str, str], write_body: Callable[[Write], Awaitable[bytes]]
    ) -> None:
        super().__init__(b"", 200, {"cache-control": "no-store", **headers})
        del self.headers["content-length"]
        self.write_body = write_body


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
        self.headers = cast("list[tuple[bytes, bytes]]", scope["headers"])
        self._observed = self._surface.observer.started(
            RequestStarted(self._route, self._method, trace_of(self.headers))
        )
        self._body = self._expected_body()
        self._answer_headers: Mapping[str, str] = {}
        self.caller = ANYBODY
        self._held: Submission | None = None
        self._event_id: str | None = None
        self._status: int | None = None
        self._error: ErrorCode | None = None
        self._complete = False

    @classmethod
    def of(cls, request: Request) -> Exchange:
        """Return the exchange that ``request`` belongs to."""
        return cast("Exchange", cast("dict[str, Any]", request.scope)[_SCOPE_KEY])

    @property
    def trace_context(self) -> Mapping[str, str]:
        """The trace that this request belongs to, as it is kept with its events."""
        return self._observed.trace.kept()

    @property
    def trace_id(self) -> str:
        """The id of the trace that this request belongs to."""
        return self._observed.trace.trace_id

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve the request; returns early if the client leaves."""
        try:
            if not self._take_what_is_here(receive):
                return
            request = self._create_request_from_scope(send)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, nursery, receive)
                nursery.start_soon(self._respond, nursery, request, send)
        finally:
            self._end()

    async def _listen(self, nursery: trio.Nursery, receive: ASGIReceiveCallable) -> None:
        """Take in the body, then wait; when the client leaves, so does the handler."""
        while self._take(await receive()):
            pass
        nursery.cancel_scope.cancel()

    def _take_what_is_here(self, receive: ASGIReceiveCallable) -> bool:
        """Take in what hypercorn has for us already; False if the client has left.

        Most bodies are here before anything else happens, and waiting for them all the same would
        cost several turns of the event loop.
        """
        channel = getattr(receive, "__self__", None)
        if isinstance(channel, trio.MemoryReceiveChannel):
            with suppress(trio.WouldBlock):
                while True:
                    if not self._take(channel.receive_nowait()):
                        return False
        return True

    def _take(self, message: ASGIReceiveEvent) -> bool:
        if message["type"] != "http.request":
            return False
        self._body.add(message["body"], is_last=not message["more_body"])
        return True

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

        async def start(response: Response) -> None:
            self._status = response.status_code
            response.headers.update(self._answer_headers)
            await send_in_time(
                {
                    "type": "http.response.start",
                    "status": response.status_code,
                    "headers": encode_headers(response.headers),
                }
            )

        async def write(data: bytes) -> None:
            if self._status is None:
                await start(response)
            await send_in_time({"type": "http.response.body", "body": data, "more_body": True})

        if isinstance(response, Streamed):
            try:
                body = await response.write_body(write)
            except Exception as error:  # noqa: BLE001 - the edge: see Streamed
                response = self._failed(error)
                body = await response.get_data(as_text=False)
        else:
            body = await response.get_data(as_text=False)
        if self._status is None:
            await start(response)
        # From inside this call hypercorn reports the end of the request, upon which we are
        # cancelled; the shield lets it finish what it does for the connection.
        await send_in_time({"type": "http.response.body", "body": body}, shield=True)
        self._complete = True
        nursery.cancel_scope.cancel()

    def query(self, name: str) -> list[str]:
        """Return all values of one parameter of the query."""
        text = self.scope["query_string"].decode("latin-1")
        return parse_qs(text, keep_blank_values=True).get(name, [])

    def admit(self, scopes: Sequence[Scope]) -> None:
        """Let the request in; its caller is known from here on.

        Raises:
            RequestRefused: the caller lacks the right to ask, or has asked too often.
        """
        client = self.scope["client"]
        verdict = self._surface.gate.judge(
            self.headers, None if client is None else client[0], scopes, trio.current_time()
        )
        self._answer_headers = verdict.headers
        if verdict.refusal is not None:
            raise verdict.refusal
        self.caller = verdict.caller

    async def read_body(self) -> bytes:
        """Return the whole body.

        Raises:
            RequestRefused: it is longer, or takes longer, than the settings allow.
        """
        return await self._body.read(self._surface.http().body_timeout_seconds)

    def hold(self, submission: Submission) -> None:
        """Take charge of a submitted event: it is abandoned if the client leaves."""
        self._held = submission
        self._event_id = submission.event_id

    def let_go(self) -> None:
        """Leave the event to itself: its client is about to be told where to find it."""
        if self._held is not None:
            self._held.release()
            self._held = None

    def concerns(self, event_id: str) -> None:
        """Take note of the event that this request is about."""
        self._event_id = event_id

    def note(self, outcome: Outcome) -> None:
        """Take note of how the event ended that the client is about to be told of."""
        self.let_go()
        self._error = outcome.code if isinstance(outcome, Failed) else None

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
            error_object(error, event_id=self._event_id, trace_id=self.trace_id),
            {**error_headers(error, status), **(headers or {})},
        )

    def failed(self, error: TicketError) -> Response:
        """Return the answer to a request that cannot be served."""
        if error.code in FAULTS_OF_PAYLOADS and (payload := self._body.so_far):
            self._observed.refused(error, payload)
        return self.refusal(error, error.http_status)

    def refused(self, error: TicketError, item: object) -> None:
        """Take note of one item of the body that was refused; the others go on."""
        self._observed.refused(error, item)

    def crashed(self, error: BaseException) -> TicketError:
        """Log an error nobody expected, once; return what the client is told instead."""
        self._error = ErrorCode.INTERNAL_ERROR
        self._surface.logger.error(
            "request_crashed",
            exc_info=error,
            extra={
                "AI_TICKET_ERROR": ErrorCode.INTERNAL_ERROR.value,
                "AI_TICKET_EVENT_ID": self._event_id,
                "TRACE_ID": self.trace_id,
            },
        )
        return internal_error()

    def _expected_body(self) -> RequestBody:
        length = value_of(self.headers, b"content-length")
        announced_bytes = int(length) if length.isdecimal() else None
        if self._route == POST_EVENTS.path:
            limit_bytes = self._surface.events().max_batch_bytes
            return RequestBody(limit_bytes, "events.max_batch_bytes", announced_bytes)
        limit_bytes = self._surface.http().max_body_bytes
        return RequestBody(limit_bytes, "http.max_body_bytes", announced_bytes)

    def _failed(self, error: Exception) -> Response:
        if isinstance(error, TicketError):
            return self.failed(error)
        return self.refusal(self.crashed(error), 500)

    def _end(self) -> None:
        if self._held is not None:
            self._held.abandon()
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
