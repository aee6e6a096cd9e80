"""One request from its headers to its last byte, between a connection and the handlers.

Here a cancelled request, whose client has gone, becomes an abandoned event, every failure becomes
the one error shape, and whoever observes requests is told of start and end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import trio

from ai_ticket_daemon.errors import FAULTS_OF_PAYLOADS, ErrorCode, TicketError
from ai_ticket_daemon.events.outcome import Failed
from ai_ticket_daemon.server.access.access_control import ANYBODY
from ai_ticket_daemon.server.answers import (
    error_headers,
    error_object,
    host_exhausted,
    internal_error,
)
from ai_ticket_daemon.server.listen.framing import check_size
from ai_ticket_daemon.server.ports import RequestEnded, RequestStarted
from ai_ticket_daemon.server.request_body import RequestBody
from ai_ticket_daemon.server.response import Response, Streamed, json_response
from ai_ticket_daemon.server.routes import method_label
from ai_ticket_daemon.server.target import check_host, path_of
from ai_ticket_daemon.tracecontext import trace_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ai_ticket_daemon.config.values.tokens import Scope
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.server.context import ServerContext
    from ai_ticket_daemon.server.ports import Submission
    from ai_ticket_daemon.server.request import ClientSide, Request

STATUS_CLIENT_GONE = 499
WHERE = "http"


class HttpExchange:
    """One request and its response.

    Args:
        context: what every handler is given.
        request: its head.
        client: the connection it came over.
    """

    def __init__(self, context: ServerContext, request: Request, client: ClientSide) -> None:
        self._context = context
        self._request = request
        self._client_side = client
        self._begun_at = trio.current_time()
        self.headers = request.headers
        self._malformed: TicketError | None = None
        self._path = ""
        try:
            self._path = path_of(request.target)
            check_host(self.headers)
            if request.version == "2":
                check_size(len(request.target) + len(request.query), self.headers)
        except TicketError as error:
            self._malformed = error
        self._place = context.routes.at(self._path)
        self._method = method_label(request.method)
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

    def take(self, data: bytes, *, is_last: bool) -> None:
        """Take in a piece of the body."""
        self._body.add(data, is_last=is_last)

    async def run(self) -> None:
        """Serve the request; it is cancelled if the client leaves."""
        try:
            await self._respond()
        finally:
            self._end()

    async def _handle(self) -> Response | Streamed:
        """Return what the handler of this request answers, or why there is no such answer."""
        if self._malformed is not None:
            return self._failed(self._malformed)
        try:
            route = self._place.route(self._request.method)
            if route.scopes:
                await self._client_side.place()
                self._admit(route.scopes)
            return await route.handler(self._context, self, **self._place.parameters)
        except Exception as error:  # noqa: BLE001 - the edge: whatever it is, the client is answered
            return self._failed(error)

    async def _respond(self) -> None:
        """Have the request handled and send what comes back."""
        response = await self._handle()
        if isinstance(response, Streamed):
            streamed = response

            async def write(data: bytes) -> None:
                if self._status is None:
                    self._start(streamed.status, streamed.headers)
                await self._client_side.send(data, is_last=False)

            try:
                last = await streamed.write_body(write)
            except Exception as error:  # noqa: BLE001 - the edge: see Streamed
                response = self._failed(error)
                last = response.body
        else:
            if response.status == 200 and not self._memory.take_unread(len(response.body)):
                response = self._failed(self._memory.unread())
            last = response.body
        if self._status is None:
            length = {} if isinstance(response, Streamed) else {"content-length": str(len(last))}
            self._start(response.status, {**response.headers, **length})
        await self._client_side.send(last, is_last=True)
        self._complete = True

    def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self._status = status
        if self._answer_headers:
            headers = {**headers, **self._answer_headers}
        self._client_side.start(status, headers)

    def query(self, name: str) -> list[str]:
        """Return all values of one parameter of the query."""
        text = self._request.query.decode("latin-1")
        return parse_qs(text, keep_blank_values=True).get(name, [])

    def _admit(self, scopes: Sequence[Scope]) -> None:
        """Let the request in; its caller is known from here on.

        Raises:
            RequestRefused: the caller lacks the right to ask, or has asked too often.
        """
        decision = self._context.access.decide(
            self.headers, self._request.peer, scopes, trio.current_time()
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
        return self._context.access.client_of(self.headers, self._request.peer)

    async def read_body(self) -> bytes:
        """Return the whole body; a client that waits for the word to send it is given that now.

        Raises:
            RequestRefused: it is longer, or takes longer, than the settings allow, or there is
                no memory for it.
        """
        if self._body.is_awaited:
            await self._client_side.invite()
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
        if self._place.takes_batches:
            limit_bytes = self._context.events().max_batch_bytes
            setting = "events.max_batch_bytes"
        else:
            limit_bytes = self._context.http().max_body_bytes
            setting = "http.max_body_bytes"
        return RequestBody(limit_bytes, setting, self._request.length, self._memory)

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
