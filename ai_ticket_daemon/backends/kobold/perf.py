"""``GET /api/extra/perf``: what KoboldCPP says of itself without taking a generation slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon.backends.observation import BUSY_STATUSES, Aftermath, AttemptFailed, Seen
from ai_ticket_daemon.backends.text.cleaning import LARGEST_NUMBER, whole_number
from ai_ticket_daemon.backends.transport.wire import CALL_TIMEOUT_SECONDS

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.transport.wire import Wire

PERF_PATH = "/api/extra/perf"
STOPPED_BY_LIMIT, STOPPED_BY_END, STOPPED_BY_STRING = 0, 1, 2
"""Why a generation ended; an aborted one says that it reached its limit."""

_LEAST_MILLISECONDS = 1e-6
"""No server reads or writes a token in less: its speed would have no bound."""


@dataclass(frozen=True, slots=True)
class Perf:
    """The fields that are used; the ``last_`` ones describe the last finished generation.

    ``idle``: nothing holds the generation lock. ``queue``: requests waiting for it.
    """

    idle: bool
    queue: int
    uptime_seconds: float
    total_gens: int
    last_stop_reason: int
    last_token_count: int
    last_input_count: int | None = None
    """None: this version does not tell."""
    lock_age_seconds: float = 0.0
    """How long ago a generation got the lock, the last one that did."""
    prompt_token_seconds: float = 0.0
    written_token_seconds: float = 0.0
    """How long a token took to read and to write; 0 where nothing was measured."""

    @property
    def prompt_tokens_per_second(self) -> float | None:
        """How fast it read; None where nothing was measured."""
        return 1 / self.prompt_token_seconds if self.prompt_token_seconds else None

    @property
    def written_tokens_per_second(self) -> float | None:
        """How fast it wrote; None where nothing was measured."""
        return 1 / self.written_token_seconds if self.written_token_seconds else None

    def restarted_since(self, before: Perf) -> bool:
        """Whether another process gave this than gave ``before``."""
        return self.uptime_seconds < before.uptime_seconds or self.total_gens < before.total_gens


async def read_perf(wire: Wire, *, timeout_seconds: float = CALL_TIMEOUT_SECONDS) -> Perf:
    """Ask the server.

    Raises:
        AttemptFailed: no sensible answer.
    """
    return parse_perf(await wire.call("GET", PERF_PATH, timeout_seconds=timeout_seconds))


def parse_perf(value: dict[str, Any]) -> Perf:
    """Return what the answer says.

    Raises:
        AttemptFailed: it is of another shape.
    """
    uptime = value.get("uptime")
    idle, queue, total_gens, token_count = (
        whole_number(value.get(key)) for key in ("idle", "queue", "total_gens", "last_token_count")
    )
    if (
        idle is None
        or queue is None
        or total_gens is None
        or token_count is None
        or isinstance(uptime, bool)
        or not isinstance(uptime, int | float)
        or not abs(uptime) <= LARGEST_NUMBER
    ):
        raise AttemptFailed.seen(Seen.WRONG_SHAPE)
    return Perf(
        idle=idle != 0,
        queue=queue,
        # The server takes it from a clock that can be set.
        uptime_seconds=max(0.0, float(uptime)),
        total_gens=total_gens,
        last_stop_reason=whole_number(value.get("stop_reason")) or 0,
        last_token_count=token_count,
        lock_age_seconds=_within(value.get("idletime"), 0.0),
        last_input_count=whole_number(value.get("last_input_count")),
        prompt_token_seconds=_seconds(value.get("last_process")),
        written_token_seconds=_seconds(value.get("last_eval")),
    )


def _seconds(milliseconds: object) -> float:
    """Return how long a token took, or 0 where that makes no sense."""
    return _within(milliseconds, _LEAST_MILLISECONDS) / 1000


def _within(number: object, least: float) -> float:
    """Return a number that a server tells, or 0 if it is none that makes sense."""
    if isinstance(number, bool) or not isinstance(number, int | float):
        return 0.0
    return float(number) if least <= number <= LARGEST_NUMBER else 0.0


async def find_aftermath(wire: Wire, *, sent_at: float) -> Aftermath:
    """Find out whether the server outlived a request it broke off.

    A process that is younger than the request is not the one it was sent to.

    Args:
        wire: leads to the server.
        sent_at: when the request was sent, on trio's clock.

    Raises:
        AttemptFailed: this host lacks what asking takes.
    """
    age_at_least = trio.current_time() - sent_at
    try:
        perf = await read_perf(wire)
    except AttemptFailed as failure:
        match failure.observation.seen:
            case Seen.NO_REPLY | Seen.CONNECT_TIMEOUT:
                return Aftermath.SILENT
            case Seen.HOST_EXHAUSTED:
                raise  # What became of the server is not known, and nobody may guess.
            case Seen.STATUS if failure.observation.status in BUSY_STATUSES:
                return Aftermath.ANSWERS  # Whoever answers is only too busy for this.
            case Seen.STATUS | Seen.NOT_JSON | Seen.WRONG_SHAPE | Seen.TOO_LARGE:
                return Aftermath.RESTARTED  # Something else answers there now.
            case _:
                return Aftermath.GONE
    return Aftermath.RESTARTED if perf.uptime_seconds < age_at_least else Aftermath.GOES_ON
