"""Many events at once, and their outcomes as they come."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.events.outcome import Failed, Outcome
from ai_ticket_daemon.pipeline.intake import forgotten
from ai_ticket_daemon.pipeline.waiters import Watch

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.pipeline.intake import Reception
    from ai_ticket_daemon.pipeline.observer import PipelineObserver
    from ai_ticket_daemon.pipeline.submission import Submission


async def iter_responses(
    reception: Reception,
    observer: PipelineObserver,
    events: Sequence[Event],
    earlier: dict[str, str] | None,
    on_accepted: Callable[[], None] | None,
) -> AsyncGenerator[tuple[str, Outcome], None]:
    """See :meth:`AsyncInferencePipeline.iter_responses`."""
    send, receive = trio.open_memory_channel[tuple[str, Outcome]](len(events))
    if len({event.event_id for event in events}) != len(events):
        raise ValueError("each event of a batch needs an id of its own")
    waiting: dict[str, Submission] = {}
    began_at = trio.current_time()

    def report(event_id: str, outcome: Outcome) -> None:
        send.send_nowait((event_id, outcome))

    watches = {event.event_id: Watch(partial(report, event.event_id)) for event in events}
    for event_id, watch in watches.items():
        reception.board.watch(event_id, watch)
    try:
        try:
            receipts = await reception.accept(events, owned=True)
        except trio.Cancelled:  # the store may have them or not
            for event in events:
                reception.unwanted(event)
            raise
        for event, receipt in zip(events, receipts, strict=True):
            watch = watches[event.event_id]
            if receipt.refusal is not None:
                report(event.event_id, Failed.from_error(receipt.refusal))
            elif receipt.replayed:
                reception.board.unwatch(event.event_id, watch)
                if earlier is not None:
                    earlier[event.event_id] = receipt.event_id
                found = await reception.join(receipt.event_id, replayed=True, watch=watch)
                if found is None:
                    report(event.event_id, Failed.from_error(forgotten()))
                else:
                    waiting[event.event_id] = found
            else:
                waiting[event.event_id] = reception.submission(
                    reception.queued(event, receipt), watch, replayed=False
                )
        size = len(events)
        del events  # their texts are in the store
        if on_accepted is not None:
            on_accepted()
        for left in reversed(range(size)):
            event_id, outcome = await receive.receive()
            waiting.pop(event_id, None)
            if left == 0:
                observer.batch_ended(size, trio.current_time() - began_at)
            yield event_id, outcome
            if event_id in watches:
                watches[event_id].release()
    finally:
        for event_id, watch in watches.items():
            reception.board.unwatch(event_id, watch)
        for submission in waiting.values():
            submission.abandon()
