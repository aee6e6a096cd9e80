"""``POST /event``: one event in; its completion, a stream, or the place to find it later out."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.ids import new_event_id
from ai_ticket_daemon.events.outcome import Failed
from ai_ticket_daemon.events.parse import parse_event
from ai_ticket_daemon.events.unknown_fields import likely_mistakes
from ai_ticket_daemon.server.answers import (
    accepted_object,
    completion_object,
    last_frame,
    status_of,
    with_warnings,
)
from ai_ticket_daemon.server.body import check_media_type, decode_json
from ai_ticket_daemon.server.handlers.streaming import relay_deltas
from ai_ticket_daemon.server.headers import (
    NO_PREFERENCES,
    idempotency_key,
    preferences,
    value_of,
)
from ai_ticket_daemon.server.response import json_response, streamed
from ai_ticket_daemon.server.slices import is_heavy

if TYPE_CHECKING:
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.server.context import ServerContext
    from ai_ticket_daemon.server.headers import Preferences
    from ai_ticket_daemon.server.http_exchange import HttpExchange
    from ai_ticket_daemon.server.ports import Submission
    from ai_ticket_daemon.server.response import Response, Streamed, Write

_STREAM_HEADERS = {"content-type": "text/event-stream", "x-accel-buffering": "no"}


async def post_event(context: ServerContext, exchange: HttpExchange) -> Response | Streamed:
    """Take one event, and answer as its client would like."""
    headers = exchange.headers
    check_media_type(value_of(headers, b"content-type"), value_of(headers, b"content-encoding"))
    submission, wishes, streamed = await _submit(context, exchange, idempotency_key(headers))
    exchange.hold(submission)
    answer_headers = {"idempotency-replayed": "true"} if submission.replayed else {}
    patience_seconds = wishes.patience_seconds
    if streamed:
        return _stream(context, exchange, submission, answer_headers)
    if patience_seconds is None:
        outcome = await submission.outcome()
    else:
        found = await _wait(submission, patience_seconds)
        if found is None:
            return await _accepted(context, exchange, submission, wishes, answer_headers)
        outcome = found
        if wishes.wait_seconds is not None:
            answer_headers["preference-applied"] = f"wait={wishes.wait_seconds}"
    return _answer(exchange, submission, outcome, answer_headers)


async def _submit(
    context: ServerContext, exchange: HttpExchange, key: str | None
) -> tuple[Submission, Preferences, bool]:
    """Read the event and have it accepted; return what to wait for, how, and whether to stream.

    A function of its own, so that body and event are let go of before the waiting begins.
    """
    event = await _read(context, exchange, key)
    exchange.weigh(event)
    # A stream is part of the request, a preference only a wish.
    wishes = NO_PREFERENCES
    if not event.stream:
        wishes = preferences(value_of(exchange.headers, b"prefer"))
    fail_fast = wishes.patience_seconds is None
    submission = await context.pipeline.submit(event, fail_fast=fail_fast)
    exchange.let_go_of_body()
    return submission, wishes, event.stream


async def _read(context: ServerContext, exchange: HttpExchange, key: str | None) -> Event:
    data = await exchange.read_body()
    exchange.charge(1)
    async with context.heavy_work if is_heavy(data) else nullcontext():
        value = decode_json(data)
        exchange.warnings = likely_mistakes(value)
        if is_heavy(data):
            await trio.lowlevel.checkpoint()
        now = context.now()
        return parse_event(
            value,
            limits=context.events(),
            now=now,
            event_id=new_event_id(now),
            trace_context=exchange.trace_context,
            owner=exchange.caller.name,
            best_priority=exchange.caller.best_priority,
            idempotency_key=key,
            client=exchange.client,
        )


async def _wait(submission: Submission, seconds: float) -> Outcome | None:
    """Return the outcome if it comes in time, and before the daemon stops."""
    if not seconds:
        return None
    with trio.move_on_after(seconds):
        outcome = await submission.outcome()
        # The event goes on after the restart, and this client knows how to come back for it.
        sent_away = isinstance(outcome, Failed) and outcome.code is ErrorCode.DRAINING
        return None if sent_away else outcome
    return None


async def _accepted(
    context: ServerContext,
    exchange: HttpExchange,
    submission: Submission,
    wishes: Preferences,
    answer_headers: dict[str, str],
) -> Response:
    """Tell the client where to find the event."""
    status = submission.status
    if wishes.wait_seconds:
        status = await context.pipeline.status(submission.event_id) or status
    exchange.let_go()
    applied = ["respond-async"] if wishes.respond_async else []
    if wishes.wait_seconds is not None:
        applied.append(f"wait={wishes.wait_seconds}")
    return json_response(
        202,
        with_warnings(accepted_object(status), exchange.warnings),
        {
            "location": f"/event/{submission.event_id}",
            "preference-applied": ", ".join(applied),
            **answer_headers,
        },
    )


def _answer(
    exchange: HttpExchange, submission: Submission, outcome: Outcome, answer_headers: dict[str, str]
) -> Response:
    """Tell the client how the event ended."""
    exchange.note(outcome)
    if isinstance(outcome, Failed):
        return exchange.refusal(outcome, status_of(outcome), answer_headers)
    completion = completion_object(submission.status.event, outcome)
    return json_response(200, with_warnings(completion, exchange.warnings), answer_headers)


def _stream(
    context: ServerContext,
    exchange: HttpExchange,
    submission: Submission,
    answer_headers: dict[str, str],
) -> Streamed:
    async def write_body(write: Write) -> bytes:
        try:
            outcome = await relay_deltas(
                submission, write, heartbeat_seconds=context.heartbeat_seconds
            )
        except Exception as error:  # noqa: BLE001 - the edge: the status is sent, the stream is not
            outcome = Failed.from_error(exchange.crashed(error))
        else:
            exchange.note(outcome)
        event = submission.status.event
        return last_frame(event, outcome, exchange.trace_id, exchange.warnings)

    return streamed({**_STREAM_HEADERS, **answer_headers}, write_body)
