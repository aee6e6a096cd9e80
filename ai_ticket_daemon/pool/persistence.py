"""The keeper: an actor that writes down what of the pool must outlive the process.

It owns one note in the store. Dispatch never waits for it: a note that comes late costs no more
than a probe, or a hold-down that starts anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.host.exhaustion import exhausted
from ai_ticket_daemon.pool.record import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import FilteringBoundLogger

    from ai_ticket_daemon.pool.pool import BackendPool
    from ai_ticket_daemon.store.port import EventStore

NOTE = "backends"
"""The key of the note."""
LEAST_GAP_SECONDS = 0.5
"""Between two notes, so that servers that flap do not keep the disk busy."""
WRITE_SECONDS = 10.0
READ_SECONDS = 10.0


async def restore(
    *,
    pool: BackendPool,
    store: EventStore,
    rise: int,
    log: FilteringBoundLogger,
    now: Callable[[], float],
) -> None:
    """Let the pool know what an earlier process knew; to be called before the first probe.

    Without a note that can be read, the pool starts as if it were new.
    """
    try:
        with trio.fail_after(READ_SECONDS):
            text = await store.recall(NOTE)
    except (StoreUnavailable, trio.TooSlowError) as error:
        log.warning("backends_not_recalled", reason=str(error))
        return
    if text is None:
        return
    offset = now() - trio.current_time()
    try:
        active, healths = decode(
            text, {b.name: b.config.url for b in pool}, offset=offset, rise=rise
        )
    except ValueError as error:
        log.warning("backends_not_recalled", reason=str(error))
        return
    pool.restore(active, healths)


async def run(
    *,
    pool: BackendPool,
    store: EventStore,
    log: FilteringBoundLogger,
    now: Callable[[], float],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Write a note whenever what is worth keeping has changed; runs until cancelled.

    A store that cannot be written is tried again with the next gap; a note that no store would take
    is given up, and said once.
    """
    task_status.started()
    offset = now() - trio.current_time()
    written: str | None = None
    refused: str | None = None
    while True:
        seen = pool.record_changed.version
        failed = False
        try:
            text = encode(pool.active, pool, offset=offset)
            if text != written:
                with trio.fail_after(WRITE_SECONDS):
                    await store.remember(NOTE, text)
                written, refused = text, None
        except (StoreUnavailable, trio.TooSlowError):
            failed = True
        # A note is a convenience: whatever is wrong with it, the next one may be well.
        except Exception as error:  # noqa: BLE001
            failed = exhausted(error) is not None
            reason = f"{type(error).__name__}: {error}"
            if not failed and reason != refused:
                log.warning("backends_not_kept", reason=reason)
                refused = reason
        await trio.sleep(LEAST_GAP_SECONDS)
        if not failed:
            await pool.record_changed.wait(seen)
