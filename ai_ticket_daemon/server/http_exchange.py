"""One request from its headers to its last byte, between hypercorn's ASGI and the handlers.

Here the client's going away becomes a cancelled handler and an abandoned event, every failure
becomes the one error shape, and whoever observes requests is told of start and end.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs

import trio
from quart import Response
from quart.utils import encode_headers

from ai_ticket_daemon.errors import FAULTS_OF_PAYLOADS, ErrorCode, TicketError
from ai_ticket_daemon.events.outcome import Failed
from ai_ticket_daemon.server.access.access_control import ANYBODY
from ai_ticket_daemon.server.answers import (
    error_headers,
    error_object,
    host_exhausted,
    internal_error,
    to_json,
)
from ai_ticket_daemon.server.headers import JSON_TYPE, value_of
from ai_ticket_daemon.server.listen.connection_state import INVITE, PLACE, ask
from ai_ticket_daemon.server.listen.framing import check_size
from ai_ticket_daemon.server.ports import RequestEnded, RequestStarted
from ai_ticket_daemon.server.request_body import RequestBody
from ai_ticket_daemon.server.routes import method_label
from ai_ticket_daemon.server.target import check_host, path_of
from ai_ticket_daemon.tracecontext import trace_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from hypercorn.typing import (
        ASGIReceiveCallable,
        ASGIReceiveEvent,
        ASGISendCallable,
        HTTPScope,
    )

    from ai_ticket_daemon.config.values.tokens import Scope
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.server.context import ServerContext
    from ai_ticket_daemon.server.ports import Submission

    Write = Callable[[bytes], Awaitable[None]]

STATUS_CLIENT_GONE = 499
WHERE = "http"


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


class HttpExchange:
    """One request and its response.

    Args:
        context: what every handler is given.
        scope: the request as ASGI has it.
    """

    def __init__(self, context: ServerContext, scope: HTTPScope) -> None:
        self._context = context
        self._scope = scope
        self._begun_at = trio.current_time()
        self.headers = cast("list[tuple[bytes, bytes]]", scope["headers"])
        self._malformed: TicketError | None = None
        self._path = ""
        try:
            self._path = path_of(scope["raw_path"])
            check_host(self.headers)
            if scope["http_version"] == "2":
                check_size(len(scope["raw_path"]) + len(scope["query_string"]), self.headers)
        except TicketError as error:
            self._malformed = error
        self._place = context.routes.at(self._path)
        self._method = method_label(scope["method"])
        route = self._place.find(self._method)
        self._observed = self._context.observer.started(
            RequestStarted(
                self._place.label,
                self._method,
                trace_of(self.headers),
                is_traced=route is not None and route.is_traced,
            )
        )
        self._memory = self._context.memory.share()
        self._body = self._expected_body()
        self._answer_headers: Mapping[str, str] = {}
        self.caller = ANYBODY
        self._client = ""
        self.warnings: Sequence[str] = ()
        self._held: Submission | None = None
        self._event_id: str | None = None
        self._status: int | None = None
        self._error: ErrorCode | None = None
        self._complete = False

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
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, nursery, receive)
                nursery.start_soon(self._respond, nursery, send)
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

    async def _handle(self) -> Response:
        """Return what the handler of this request answers, or why there is no such answer."""
        if self._malformed is not None:
            return self._failed(self._malformed)
        try:
            route = self._place.route(self._scope["method"])
            if route.scopes:
                await ask(self._scope, PLACE)
                self._admit(route.scopes)
            return await route.handler(self._context, self, **self._place.parameters)
        except Exception as error:  # noqa: BLE001 - the edge: whatever it is, the client is answered
            return self._failed(error)

    async def _respond(self, nursery: trio.Nursery, send: ASGISendCallable) -> None:
        """Have the request handled and send what comes back."""
        response = await self._handle()

        async def send_in_time(message: dict[str, Any], *, shield: bool = False) -> None:
            seconds = self._context.write_timeout_seconds
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
            if response.status_code == 200 and not self._memory.take_unread(len(body)):
                response = self._failed(self._memory.unread())
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
        text = self._scope["query_string"].decode("latin-1")
        return parse_qs(text, keep_blank_values=True).get(name, [])

    def _admit(self, scopes: Sequence[Scope]) -> None:
        """Let the request in; its caller is known from here on.

        Raises:
            RequestRefused: the caller lacks the right to ask, or has asked too often.
        """
        decision = self._context.access.decide(
            self.headers, self._peer, scopes, trio.current_time()
        )
        self._answer_headers = decision.headers
        self._client = decision.client
        if decision.refusal is not None:
            raise decision.refusal
        self.caller = decision.caller

    def charge(self, events: int) -> None:
        """Count ``events`` for the client of this request, which was let in before.

        Raises:
            RequestRefused: these are more than it may hand over now, or ever at once.
        """
        self._context.access.charge(self._client, events, trio.current_time())

    @property
    def client(self) -> str | None:
        """The address of the client; None if it is not to be recorded."""
        return self._context.access.client_of(self.headers, self._peer)

    @property
    def _peer(self) -> str | None:
        client = self._scope["client"]
        return None if client is None else str(client[0])

    async def read_body(self) -> bytes:
        """Return the whole body; a client that waits for the word to send it is given that now.

        Raises:
            RequestRefused: it is longer, or takes longer, than the settings allow, or there is
                no memory for it.
        """
        if self._body.is_awaited:
            await ask(self._scope, INVITE)
        return await self._body.read(self._context.http().body_timeout_seconds)

    def weigh(self, event: Event) -> None:
        """Count what ``event`` takes until it is in the store.

        Raises:
            RequestRefused: ``memory_exhausted``.
        """
        self._memory.take_event(event)

    def let_go_of_body(self) -> None:
        """Give the memory back that the body and what was made of it took."""
        self._body.release()

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

    def _failed(self, error: Exception) -> Response:
        """Return the answer to a request that cannot be served."""
        while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if not isinstance(error, TicketError):
            error = self.crashed(error)
        if error.code in FAULTS_OF_PAYLOADS and (payload := self._body.so_far):
            self._observed.refused(error, payload)
        self._body.release()
        return self.refusal(error, error.http_status)

    def refused(self, error: TicketError, item: object) -> None:
        """Take note of one item of the body that was refused; the others go on."""
        self._observed.refused(error, item)

    def crashed(self, error: BaseException) -> TicketError:
        """Log an error nobody expected, once; return what the client is told instead.

        What the host lacks is no fault of the program, and told as what it is.
        """
        lacking = self._context.exhaustion.meets(error, WHERE)
        if lacking is not None:
            self._error = ErrorCode.HOST_EXHAUSTED
            return host_exhausted(lacking)
        self._error = ErrorCode.INTERNAL_ERROR
        self._context.logger.error(
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
        if self._place.takes_batches:
            limit_bytes = self._context.events().max_batch_bytes
            setting = "events.max_batch_bytes"
        else:
            limit_bytes = self._context.http().max_body_bytes
            setting = "http.max_body_bytes"
        return RequestBody(limit_bytes, setting, announced_bytes, self._memory)

    def _end(self) -> None:
        if self._held is not None:
            self._held.abandon()
        self._body.release()
        gone = not self._complete
        self._observed.ended(
            RequestEnded(
                route=self._place.label,
                method=self._method,
                status=self._status or STATUS_CLIENT_GONE,
                error=ErrorCode.CANCELLED if gone else self._error,
                duration_seconds=trio.current_time() - self._begun_at,
                event_id=self._event_id,
                client=self.client,
            )
        )


def json_response(status: int, value: object, headers: Mapping[str, str] | None = None) -> Response:
    """Return ``value`` as the whole of a response."""
    return Response(
        to_json(value),
        status,
        {"content-type": JSON_TYPE, "cache-control": "no-store", **(headers or {})},
    )
