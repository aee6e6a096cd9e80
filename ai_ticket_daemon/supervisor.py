"""Who restarts what: each actor runs under a policy, all of them under one budget.

An actor that raises because the host has run out of something
(:mod:`ai_ticket_daemon.host.exhaustion`) waits a moment and is started again, as often as it takes:
no restart heals that, and none is to blame. Any other is logged once with its traceback and started
again after a delay that doubles. More than ``max_restarts`` within ``window_seconds``, all actors
counted, and the fault is not of the passing kind: :class:`RestartBudgetExceeded` goes up, the
process exits 70 and systemd takes over. An actor that fails before it has ever started is not
restarted: that is a fault of the configuration or the host, and the operator at ``systemctl start``
should see it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import trio

from ai_ticket_daemon.host.exhaustion import AGAIN_SECONDS, Exhaustion

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Actor(Protocol):
    """A long-running part: started once usable, runs until cancelled."""

    def __call__(self, *, task_status: trio.TaskStatus[object]) -> Awaitable[None]:
        """Run."""


class RestartBudgetExceeded(Exception):
    """The actors crash faster than restarting them can heal."""


@dataclass(slots=True)
class RestartBudget:
    """Heals over time: only restarts within the last ``window_seconds`` count."""

    max_restarts: int = 5
    window_seconds: float = 60.0
    _times: deque[float] = field(default_factory=deque)

    def take(self, now: float) -> bool:
        """Note a restart at ``now`` (seconds, monotonic); False if it is one too many."""
        while self._times and self._times[0] <= now - self.window_seconds:
            self._times.popleft()
        self._times.append(now)
        return len(self._times) <= self.max_restarts

    @property
    def recent(self) -> int:
        """How many restarts counted at the last one."""
        return len(self._times)


@dataclass(frozen=True, slots=True)
class Supervisor:
    """Starts actors and starts them again.

    Args:
        budget: shared by all actors.
        takes_on: is told the name of each actor, before it is first started.
        crashed: is told the actor's name and the error, before the actor is started again.
        first_delay_seconds: before the first restart; doubles with each recent restart.
        max_delay_seconds: the longest delay.
        exhaustion: is told of what the host lacks.
    """

    crashed: Callable[[str, Exception], None]
    budget: RestartBudget = field(default_factory=RestartBudget)
    takes_on: Callable[[str], object] = lambda _name: None
    first_delay_seconds: float = 0.1
    max_delay_seconds: float = 5.0
    exhaustion: Exhaustion = field(default_factory=Exhaustion)

    async def run(
        self,
        name: str,
        actor: Actor,
        *,
        task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep ``actor`` running until cancelled; started when it first is.

        Raises:
            RestartBudgetExceeded: too many restarts; carries the last error as its cause.
            Exception: whatever the actor raised before it had started.
        """
        self.takes_on(name)
        started = False
        while True:
            try:
                async with trio.open_nursery() as nursery:
                    value = await nursery.start(lambda task_status: _call(actor, task_status))
                    if not started:
                        started = True
                        task_status.started(value)
            except Exception as error:
                # The edge of an actor: whatever it is, it is reported and the actor starts anew.
                error = unwrap(error)
                if not started:
                    raise error from error.__cause__
                if self.exhaustion.meets(error, name) is not None:
                    await trio.sleep(AGAIN_SECONDS)
                    continue
                self._report(name, error)
                if not self.budget.take(trio.current_time()):
                    raise RestartBudgetExceeded(
                        f"{self.budget.recent} restarts within {self.budget.window_seconds:g} s, "
                        f"the last of the actor {name!r}"
                    ) from error
            else:
                return
            delay = self.first_delay_seconds * 2 ** (self.budget.recent - 1)
            await trio.sleep(min(delay, self.max_delay_seconds))

    def _report(self, name: str, error: Exception) -> None:
        """Tell of the crash, if there is memory enough to do so; it counts either way."""
        try:
            self.crashed(name, error)
        except Exception as failure:
            if self.exhaustion.meets(failure, name) is None:
                raise


async def _call(actor: Actor, task_status: trio.TaskStatus[object]) -> None:
    await actor(task_status=task_status)


def unwrap(error: Exception) -> Exception:
    """Take a single error out of the exception groups that nurseries wrap around it."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
