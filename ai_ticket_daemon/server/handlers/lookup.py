"""``GET`` and ``DELETE /event/{event_id}``: how an event stands, and the wish that it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from msgspec.structs import replace

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events.ids import is_event_id
from ai_ticket_daemon.events.outcome import Succeeded
from ai_ticket_daemon.events.state import FINAL_STATES
from ai_ticket_daemon.server.answers import status_object
from ai_ticket_daemon.server.headers import wait_seconds
from ai_ticket_daemon.server.response import json_response

if TYPE_CHECKING:
    from ai_ticket_daemon.events.status import EventStatus
    from ai_ticket_daemon.server.context import ServerContext
    from ai_ticket_daemon.server.http_exchange import HttpExchange
    from ai_ticket_daemon.server.response import Response


async def get_event(context: ServerContext, exchange: HttpExchange, event_id: str) -> Response:
    """Tell how an event stands; wait for its end first, if the client asks for that."""
    seconds = wait_seconds(exchange.query("wait"))
    status = await _find(context, exchange, event_id)
    if seconds and status.state not in FINAL_STATES:
        del status  # it has the whole text of the event
        await _wait(context, event_id, seconds)
        status = await _find(context, exchange, event_id)
    return json_response(200, status_object(status))


async def delete_event(context: ServerContext, exchange: HttpExchange, event_id: str) -> Response:
    """Cancel an event; one that has ended stays as it is, which the answer tells."""
    await _find(context, exchange, event_id)
    status = await context.pipeline.cancel(event_id)
    if status is None:
        raise _not_found(event_id)
    answer = status_object(status)
    if isinstance(status.outcome, Succeeded) and not exchange.caller.may_read:
        answer = replace(answer, outcome=None)  # to cancel is no way to read a completion
    return json_response(200, answer)


async def _find(context: ServerContext, exchange: HttpExchange, event_id: str) -> EventStatus:
    """Return how an event stands that the caller may touch.

    Raises:
        RequestRefused: there is none of this id, as far as the caller is concerned.
        StoreUnavailable: the store cannot be read.
    """
    status = await context.pipeline.status(event_id) if is_event_id(event_id) else None
    # Who may not see an event must not learn that there is one.
    if status is None or not exchange.caller.may_touch(status.event.owner):
        raise _not_found(event_id)
    exchange.concerns(event_id)
    return status


async def _wait(context: ServerContext, event_id: str, seconds: float) -> None:
    """Return when the event has ended, the time is over, or the daemon stops."""
    submission = await context.pipeline.watch(event_id)
    if submission is None:
        return
    try:
        with trio.move_on_after(seconds):
            await submission.outcome()
    finally:
        submission.release()


def _not_found(event_id: str) -> RequestRefused:
    # A made-up id is not repeated.
    details = {"event_id": event_id} if is_event_id(event_id) else None
    return RequestRefused(
        ErrorCode.EVENT_NOT_FOUND,
        "There is no such event: it never was, it has been forgotten, or it is somebody else's.",
        details=details,
    )
