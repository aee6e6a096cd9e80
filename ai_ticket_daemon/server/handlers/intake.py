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
from ai_ticket_daemon.server.http_exchange import Exchange, Streamed, json_response
from ai_ticket_daemon.server.routes import POST_EVENT
from ai_ticket_daemon.server.slices import is_heavy

if TYPE_CHECKING:
    from quart import Response

    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Outcome
    from ai_ticket_daemon.server.context import Surface
    from ai_ticket_daemon.server.headers import Preferences
    from ai_ticket_daemon.server.http_exchange import Write
    from ai_ticket_daemon.server.ports import Submission

_STREAM_HEADERS = {"content-type": "text/event-stream", "x-accel-buffering": "no"}


async def post_event(surface: Surface, exchange: Exchange) -> Response:
    """Take one event, and answer as its client would like."""
    exchange.admit(POST_EVENT.scopes)
    headers = exchange.headers
    check_media_type(value_of(headers, b"content-type"), value_of(headers, b"content-encoding"))
    submission, wishes, streamed = await _submit(surface, exchange, idempotency_key(headers))
    exchange.hold(submission)
    told = {"idempotency-replayed": "true"} if submission.replayed else {}
    patience_seconds = wishes.patience_seconds
    if streamed:
        return _stream(surface, exchange, submission, told)
    if patience_seconds is None:
        outcome = await submission.outcome()
    else:
        found = await _wait(submission, patience_seconds)
        if found is None:
            return await _accepted(surface, exchange, submission, wishes, told)
        outcome = found
        if wishes.wait_seconds is not None:
            told["preference-applied"] = f"wait={wishes.wait_seconds}"
    return _answer(exchange, submission, outcome, told)


async def _submit(
    surface: Surface, exchange: Exchange, key: str | None
) -> tuple[Submission, Preferences, bool]:
    """Read the event and have it accepted; return what to wait for, how, and whether to stream.

    A function of its own, so that body and event are let go of before the waiting begins.
    """
    event = await _read(surface, exchange, key)
    exchange.weigh(event)
    # A stream is part of the request, a preference only a wish.
    wishes = NO_PREFERENCES
    if not event.stream:
        wishes = preferences(value_of(exchange.headers, b"prefer"))
    fail_fast = wishes.patience_seconds is None
    submission = await surface.pipeline.submit(event, fail_fast=fail_fast)
    exchange.let_go_of_body()
    return submission, wishes, event.stream


async def _read(surface: Surface, exchange: Exchange, key: str | None) -> Event:
    data = await exchange.read_body()
    exchange.charge(1)
    async with surface.heavy_work if is_heavy(data) else nullcontext():
        value = decode_json(data)
        exchange.warnings = likely_mistakes(value)
        if is_heavy(data):
            await trio.lowlevel.checkpoint()
        now = surface.now()
        return parse_event(
            value,
            limits=surface.events(),
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
    surface: Surface,
    exchange: Exchange,
    submission: Submission,
    wishes: Preferences,
    told: dict[str, str],
) -> Response:
    """Tell the client where to find the event."""
    status = submission.status
    if wishes.wait_seconds:
        status = await surface.pipeline.status(submission.event_id) or status
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
            **told,
        },
    )


def _answer(
    exchange: Exchange, submission: Submission, outcome: Outcome, told: dict[str, str]
) -> Response:
    """Tell the client how the event ended."""
    exchange.note(outcome)
    if isinstance(outcome, Failed):
        return exchange.refusal(outcome, status_of(outcome), told)
    completion = completion_object(submission.status.event, outcome)
    return json_response(200, with_warnings(completion, exchange.warnings), told)


def _stream(
    surface: Surface, exchange: Exchange, submission: Submission, told: dict[str, str]
) -> Response:
    async def write_body(write: Write) -> bytes:
        try:
            outcome = await relay_deltas(
                submission, write, heartbeat_seconds=surface.heartbeat_seconds
            )
        except Exception as error:  # noqa: BLE001 - the edge: the status is sent, the stream is not
            outcome = Failed.from_error(exchange.crashed(error))
        else:
            exchange.note(outcome)
        event = submission.status.event
        return last_frame(event, outcome, exchange.trace_id, exchange.warnings)

    return Streamed({**_STREAM_HEADERS, **told}, write_body)
