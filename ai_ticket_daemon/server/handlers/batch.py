"""``POST /events``: many events in one request, each answered for itself.

What is wrong with one event is answered in its place and keeps none of the others back; what is
wrong with the request, or with the daemon, is answered for all.
"""

from __future__ import annotations

from contextlib import aclosing, nullcontext
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.errors import ErrorCode, RequestRefused, TicketError
from ai_ticket_daemon.events.event import without_text
from ai_ticket_daemon.events.ids import new_event_id
from ai_ticket_daemon.events.outcome import Failed
from ai_ticket_daemon.events.parse import parse_event
from ai_ticket_daemon.events.unknown_fields import likely_mistakes
from ai_ticket_daemon.server.answers import (
    BLANK_LINE,
    accepted_object,
    completion_object,
    error_object,
    status_of,
    to_json,
    to_ndjson,
    with_warnings,
)
from ai_ticket_daemon.server.batch_body import PAUSE, BatchItems
from ai_ticket_daemon.server.body import check_media_type
from ai_ticket_daemon.server.handlers.streaming import Pulse
from ai_ticket_daemon.server.headers import (
    JSON_TYPE,
    NDJSON_TYPE,
    idempotency_key,
    preferences,
    prefers_ndjson,
    value_of,
)
from ai_ticket_daemon.server.response import Response, Streamed, streamed
from ai_ticket_daemon.server.shapes import in_batch
from ai_ticket_daemon.server.slices import Slices, is_heavy

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from msgspec import Struct

    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.server.context import ServerContext
    from ai_ticket_daemon.server.http_exchange import HttpExchange
    from ai_ticket_daemon.server.response import Write
    from ai_ticket_daemon.server.shapes import Accepted, Completion, Error


REFUSED_WITHIN_SECONDS = 1.0
"""How long the status of a streamed batch is held back, to be that of a refusal if there is one."""


async def post_events(context: ServerContext, exchange: HttpExchange) -> Response | Streamed:
    """Take a batch of events, and answer each in its place, or as it completes."""
    headers = exchange.headers
    media_type = check_media_type(
        value_of(headers, b"content-type"),
        value_of(headers, b"content-encoding"),
        allowed=(JSON_TYPE, NDJSON_TYPE),
    )
    key = idempotency_key(headers)
    batch = await _read(context, exchange, media_type, key)
    as_ndjson = prefers_ndjson(value_of(headers, b"accept"))
    if preferences(value_of(headers, b"prefer")).respond_async:
        await batch.enqueue(context)
        applied = {"preference-applied": "respond-async"}
        return await _whole(202, batch.in_order(), applied, as_ndjson=as_ndjson)
    if as_ndjson:
        return _stream(context, exchange, batch)
    await batch.complete(context)
    return await _whole(200, batch.in_order(), {}, as_ndjson=False)


class Batch:
    """The events of one request and their answers so far.

    Args:
        trace_id: the trace of the request.
        on_accepted: called when the events are in the store, or will not be.
    """

    def __init__(self, trace_id: str, on_accepted: Callable[[], None]) -> None:
        self._answers: list[Struct | None] = []
        self._events: list[Event] = []
        self._indices: list[int] = []
        self._warnings: dict[int, Sequence[str]] = {}
        self._trace_id = trace_id
        self._on_accepted = on_accepted

    def add(self, event: Event, warnings: Sequence[str]) -> None:
        """Take the event of the next item, and what is likely to be a mistake in it."""
        if warnings:
            self._warnings[len(self._answers)] = warnings
        self._events.append(event)
        self._indices.append(len(self._answers))
        self._answers.append(None)

    def refuse_next(self, error: TicketError) -> None:
        """Answer the next item with what is wrong with it."""
        self._answers.append(None)
        self.refuse(len(self._answers) - 1, error)

    def refuse(
        self, index: int, error: TicketError | Failed, event_id: str | None = None
    ) -> Struct:
        """Answer item ``index`` with what is wrong with it; return that answer."""
        status = status_of(error) if isinstance(error, Failed) else error.http_status
        answer = error_object(error, event_id=event_id, trace_id=self._trace_id)
        return self._keep(index, status, answer)

    async def enqueue(self, context: ServerContext) -> None:
        """Have all events accepted; nobody waits for them."""
        if not self._events:
            return
        statuses = await context.pipeline.enqueue(self._events)
        self._on_accepted()
        for index, status in zip(self._indices, statuses, strict=True):
            if isinstance(status, RequestRefused):
                self.refuse(index, status)
            else:
                self._accept(index, 202, accepted_object(status))

    async def complete(self, context: ServerContext) -> None:
        """Wait until all events have ended."""
        async with aclosing(self.as_they_end(context)) as answers:
            async for _ in answers:
                pass

    async def as_they_end(self, context: ServerContext) -> AsyncGenerator[Struct, None]:
        """Yield the answer to each event when it has ended; close it to abandon the others."""
        if not self._events:
            return
        places = {
            event.event_id: (index, without_text(event))
            for index, event in zip(self._indices, self._events, strict=True)
        }
        earlier: dict[str, str] = {}
        events, self._events = self._events, []
        responses = context.pipeline.iter_responses(
            events, earlier=earlier, on_accepted=self._on_accepted
        )
        del events  # the pipeline lets go of them once they are in the store
        async with aclosing(responses):
            async for event_id, outcome in responses:
                index, event = places[event_id]
                yield self._end(index, event, outcome, earlier.get(event_id, event_id))

    def _end(self, index: int, event: Event, outcome: Outcome, event_id: str) -> Struct:
        if isinstance(outcome, Failed):
            shown_id = None if outcome.code is ErrorCode.IDEMPOTENCY_CONFLICT else event_id
            return self.refuse(index, outcome, shown_id)
        return self._accept(index, 200, completion_object(event, outcome, event_id))

    def _accept(self, index: int, status: int, answer: Completion | Accepted) -> Struct:
        return self._keep(index, status, with_warnings(answer, self._warnings.get(index, ())))

    def _keep(self, index: int, status: int, answer: Completion | Accepted | Error) -> Struct:
        item = self._answers[index] = in_batch(index, status, answer)
        return item

    def fail_the_rest(self, error: TicketError) -> list[Struct]:
        """Answer whatever is not answered yet with ``error``; return those answers."""
        rest = [index for index, answer in enumerate(self._answers) if answer is None]
        return [self.refuse(index, error) for index in rest]

    def in_order(self) -> list[Struct]:
        """Return the answers there are, in the order of the request."""
        return [answer for answer in self._answers if answer is not None]


async def _read(
    context: ServerContext, exchange: HttpExchange, media_type: str, key: str | None
) -> Batch:
    """Read the body; what is wrong with one item is its answer."""
    data = await exchange.read_body()
    async with context.heavy_work if is_heavy(data) else nullcontext():
        items = BatchItems(
            data,
            media_type,
            max_items=context.events().max_batch,
            max_item_bytes=context.http().max_body_bytes,
        )
        return await _parse(context, exchange, items, key)


async def _parse(
    context: ServerContext, exchange: HttpExchange, items: BatchItems, key: str | None
) -> Batch:
    limits, now, owner = context.events(), context.now(), exchange.caller.name
    trace_context, client = exchange.trace_context, exchange.client
    batch = Batch(exchange.trace_id, exchange.let_go_of_body)
    slices, index = Slices(), -1
    for item in items:
        await slices.rest()
        if item is PAUSE:
            continue
        index += 1
        if isinstance(item, RequestRefused):
            batch.refuse_next(item)
            exchange.refused(item, None)  # of what is no JSON, there is nothing but the error
            continue
        try:
            event = parse_event(
                item,
                limits=limits,
                now=now,
                event_id=new_event_id(now),
                trace_context=trace_context,
                owner=owner,
                best_priority=exchange.caller.best_priority,
                idempotency_key=None if key is None else f"{key}/{index}",
                client=client,
            )
            if event.stream:
                raise _no_stream()
        except RequestRefused as error:
            batch.refuse_next(items.placed(error))
            exchange.refused(error, item)
        else:
            exchange.weigh(event)
            batch.add(event, likely_mistakes(item))
        await slices.rest()
    exchange.charge(index + 1)
    return batch


async def _whole(
    status: int, answers: list[Struct], headers: dict[str, str], *, as_ndjson: bool
) -> Response:
    slices, pieces = Slices(), []
    for answer in answers:
        pieces.append(to_json(answer))
        await slices.rest()
    body = b"\n".join([*pieces, b""]) if as_ndjson else b"[" + b",".join(pieces) + b"]"
    media_type = NDJSON_TYPE if as_ndjson else JSON_TYPE
    return Response(
        status, {"content-type": media_type, "cache-control": "no-store", **headers}, body
    )


def _stream(context: ServerContext, exchange: HttpExchange, batch: Batch) -> Streamed:
    """Write each answer when there is one."""

    async def write_body(write: Write) -> bytes:
        known = to_ndjson(batch.in_order())

        async def write_known_first(data: bytes) -> None:
            nonlocal known
            data, known = known + data, b""
            await write(data)

        pulse = Pulse(write_known_first, BLANK_LINE, context.heartbeat_seconds)
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            # The status goes with the first thing written. So nothing is, until the daemon had
            # time to refuse the batch as a whole.
            nursery.start_soon(pulse.beat, REFUSED_WITHIN_SECONDS)
            try:
                async with aclosing(batch.as_they_end(context)) as answers:
                    slices = Slices()
                    async for answer in answers:
                        await pulse.write(to_ndjson([answer]))
                        await slices.rest()  # neither writing nor the next answer need wait
            except Exception as caught:  # noqa: BLE001 - the edge: part of the answer may be sent
                failure = caught
            nursery.cancel_scope.cancel()
        if failure is None:
            return known
        if not pulse.has_begun:
            raise failure
        error = failure if isinstance(failure, TicketError) else exchange.crashed(failure)
        return to_ndjson(batch.fail_the_rest(error))

    return streamed({"content-type": NDJSON_TYPE, "x-accel-buffering": "no"}, write_body)


def _no_stream() -> RequestRefused:
    return RequestRefused(
        ErrorCode.INVALID_PARAMETER,
        '"stream" cannot be true in a batch; ask for NDJSON to get each completion at once.',
        details={"field": "stream", "got": "true"},
    )
