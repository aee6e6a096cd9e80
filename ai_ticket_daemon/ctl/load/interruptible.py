"""Running a load test or a drill so that a signal ends it in order."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

T = TypeVar("T")

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_trio(
    function: Callable[..., Awaitable[T]], *arguments: object, stop: trio.Event | None = None
) -> T:
    """Run a coroutine to its end; of a group of errors only the first one comes out.

    A lost terminal and SIGTERM end it as Ctrl-C does: it is cancelled, and so can clean up. With
    ``stop``, the first of them sets that, and only the second one cancels.

    Raises:
        KeyboardInterrupt: it was cancelled.
    """
    try:
        return trio.run(_until_stopped, function, arguments, stop)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


async def _until_stopped(
    function: Callable[..., Awaitable[T]], arguments: Sequence[object], stop: trio.Event | None
) -> T:
    if threading.current_thread() is not threading.main_thread():
        return await function(*arguments)  # Only the main thread is told of signals.

    async def watch(signals: AsyncIterator[int]) -> None:
        async for _ in signals:
            if stop is None or stop.is_set():
                nursery.cancel_scope.cancel()
            else:
                stop.set()

    with trio.open_signal_receiver(*_STOPS) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, signals)
            result = await function(*arguments)
            nursery.cancel_scope.cancel()
            return result
    raise KeyboardInterrupt
