"""Threads that are kept: who has one never has to wait for the host to have another.

trio's own threads end when they have had nothing to do for a while, and a host that is out of
threads gives none back. What makes events durable must not depend on that.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import outcome
import trio

from ai_ticket_daemon.host.exhaustion import AGAIN_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

LOOK_SECONDS = 5.0


class KeptThread:
    """One thread, from :meth:`start` to :meth:`end`; does what it is given, one after the other.

    Args:
        name: what it is called in a debugger.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._runs = False

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: the host has none left.
        """
        # A daemon's: whatever it is stuck in must not keep the process from ending.
        threading.Thread(target=self._run, name=self._name, daemon=True).start()
        self._runs = True

    def end(self) -> None:
        """Let the thread end once it is done with what it was given."""
        if self._runs:
            self._runs = False
            self._jobs.put(None)

    async def run(self, do: Callable[..., T], *args: object) -> T:
        """Call ``do`` in the thread and return what it returns, or raise what it raises.

        As :func:`trio.to_thread.run_sync` does, it cannot be cancelled once it has begun.
        """
        if not self._runs:
            raise RuntimeError("the thread does not run")
        await trio.lowlevel.checkpoint_if_cancelled()
        job = _Job(partial(do, *args))
        self._jobs.put(job)
        # Looked at now and then, too: a loop that failed for want of memory is not woken.
        while not job.is_over:
            with trio.CancelScope(deadline=trio.current_time() + LOOK_SECONDS, shield=True):
                await job.done.wait()
        return job.came_of_it.unwrap()

    def _run(self) -> None:
        while True:
            # Whatever memory is lacking for: whoever waits for a job is told, or waits for ever.
            try:
                job = self._jobs.get()
                if job is None:
                    return
            except MemoryError:
                time.sleep(AGAIN_SECONDS)
                continue
            job.carry_out()
            while not job.tell():
                time.sleep(AGAIN_SECONDS)


class _Job(Generic[T]):
    """Something to do, and what came of it; all that takes memory is there before it begins."""

    def __init__(self, do: Callable[[], T]) -> None:
        self._do = do
        self._token = trio.lowlevel.current_trio_token()
        self.done = trio.Event()
        self._tell = self.done.set
        self.is_over = False
        self.came_of_it: outcome.Outcome[T] = outcome.Error(MemoryError())

    def carry_out(self) -> None:
        with suppress(MemoryError):
            self.came_of_it = outcome.capture(self._do)
        self.is_over = True

    def tell(self) -> bool:
        """Wake whoever waits; False if that has to be tried again."""
        try:
            self._token.run_sync_soon(self._tell)
        except MemoryError:
            return False
        except trio.RunFinishedError:  # nobody waits any more
            pass
        return True
