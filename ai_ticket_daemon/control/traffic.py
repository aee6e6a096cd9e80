"""Traffic at a steady rate over the control socket, measured: for load tests and drills.

Open-loop: events arrive when they arrive, whether the earlier ones have ended or not, as the events
of real clients do. A generator that waits for answers measures a slow server as a busy one with few
clients (Schroeder et al., "Open Versus Closed", NSDI 2006).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

T = TypeVar("T")

MAX_OPEN = 1000
"""More events than these at a time are not sent, and counted as errors."""
_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Sent:
    """One event: when it went out and came back (seconds since the start), and what came."""

    at: float
    ended_at: float
    status: int
    backend: str | None = None
    error: str | None = None
    event_id: str | None = None
    attempts: int = 0

    @property
    def seconds(self) -> float:
        """How long its client waited."""
        return self.ended_at - self.at


@dataclass(slots=True)
class Traffic:
    """Sends events over the socket ``path``.

    Args:
        path: the control socket.
        body: what each event asks for.
        on_sent: told of each event that has ended.
    """

    path: Path
    body: dict[str, Any]
    on_sent: Callable[[Sent], None]
    sent: list[Sent] = field(default_factory=list)
    open: int = 0
    arriving: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def run(self, rate: float, seconds: float, *, seed: int) -> None:
        """Let events arrive at ``rate`` per second, at random as a Poisson process does.

        Returns when all have ended. Cancelling ``arriving`` lets no more arrive.
        """
        chance = random.Random(seed)  # noqa: S311 - arrivals, no secrets
        transport = httpx.AsyncHTTPTransport(uds=str(self.path))
        async with (
            httpx.AsyncClient(
                transport=transport, base_url="http://localhost", timeout=_SECONDS
            ) as client,
            trio.open_nursery() as nursery,
        ):
            begin = at = trio.current_time()
            with self.arriving:
                while (at := at + chance.expovariate(rate)) < begin + seconds:
                    await trio.sleep_until(at)
                    if self.open >= MAX_OPEN:
                        self._note(Sent(at - begin, at - begin, 0, error="not_sent"))
                    else:
                        nursery.start_soon(self._send, client, begin)

    async def _send(self, client: httpx.AsyncClient, begin: float) -> None:
        at = trio.current_time() - begin
        self.open += 1
        try:
            answer = await client.post("/event", json=self.body)
            told = answer.json()
            status, error = answer.status_code, told.get("error")
        except (httpx.HTTPError, ValueError) as problem:
            told, status, error = {}, 0, type(problem).__name__
        finally:
            self.open -= 1
        self._note(
            Sent(
                at,
                trio.current_time() - begin,
                status,
                told.get("backend"),
                error,
                told.get("event_id"),
                told.get("attempts", 0),
            )
        )

    def _note(self, sent: Sent) -> None:
        self.sent.append(sent)
        self.on_sent(sent)


def run_trio(function: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """Run a coroutine to its end; of a group of errors only the first one comes out."""
    try:
        return trio.run(function, *arguments)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of all are not above; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
