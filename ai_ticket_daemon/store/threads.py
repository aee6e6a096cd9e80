"""Threads that are kept: who has one never has to wait for the host to have another.

trio's own threads end when they have had nothing to do for a while, and a host that is out of
threads gives none back. What makes events durable must not depend on that.
"""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

import outcome
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class KeptThread:
    """One thread, from :meth:`start` to :meth:`end`; does what it is given, one after the other.

    Args:
        name: what it is called in a debugger.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
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
        token = trio.lowlevel.current_trio_token()
        done = trio.Event()
        came_of_it: list[outcome.Outcome[T]] = []

        def job() -> None:
            came_of_it.append(outcome.capture(do, *args))
            token.run_sync_soon(done.set)

        self._jobs.put(job)
        with trio.CancelScope(shield=True):
            await done.wait()
        return came_of_it[0].unwrap()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except trio.RunFinishedError:
                return
