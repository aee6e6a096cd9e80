"""Making KoboldCPP stop a generation (`docs/koboldcpp.md`, "Abort and genkey").

Closing the connection is not enough: a plain generation runs to its end for nobody. Telling the
server once is not enough either: an abort that arrives before the generation has its turn is
forgotten. So it is told again and again until the answer has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import trio

from ai_ticket_daemon.backends.observation import AttemptFailed, Seen, SlotEnd

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.transport.wire import Wire

ABORT_PATH = "/api/extra/abort"
ABORT_BOUND_SECONDS = 10.0
"""How long the server may take to stop; reading a long prompt cannot be interrupted at once."""
_REPEAT_SECONDS = 0.15
_CALL_TIMEOUT_SECONDS = 2.0


class AbortReason(StrEnum):
    """Why a generation was aborted."""

    CANCELLED = "cancelled"
    """Nobody wants the result any more."""
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"  # noqa: S105
    IDLE_TIMEOUT = "idle_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    UNREADABLE = "unreadable"
    """The answer made no sense, and the generation may still be running."""


@dataclass(frozen=True, slots=True)
class AbortEnd:
    """What came of an abort: ``reading_seconds`` is how long a prompt may still be read.

    ``over`` False: so it is while the server is still told to stop, and how that ends is to come.
    """

    slot: SlotEnd = SlotEnd.FREE
    reading_seconds: float = 0.0
    over: bool = True


class AbortObserver(Protocol):
    """Is told of each abort, to log and count it, and ahead of that if it takes its time."""

    def __call__(self, reason: AbortReason, end: AbortEnd, /) -> None:
        """An abort was made for ``reason`` and ended like that."""


def abort_reason(seen: Seen | None) -> AbortReason:
    """Return the reason for an abort because of ``seen``; None means the caller was cancelled."""
    match seen:
        case None:
            return AbortReason.CANCELLED
        case Seen.FIRST_TOKEN_TIMEOUT:
            return AbortReason.FIRST_TOKEN_TIMEOUT
        case Seen.IDLE_TIMEOUT:
            return AbortReason.IDLE_TIMEOUT
        case Seen.TOTAL_TIMEOUT:
            return AbortReason.TOTAL_TIMEOUT
        case _:
            return AbortReason.UNREADABLE


async def abort_until(
    ended: trio.Event,
    wire: Wire,
    genkey: str,
    *,
    bound_seconds: float = ABORT_BOUND_SECONDS,
) -> bool:
    """Abort a generation until it has ended, whatever else is being cancelled.

    Args:
        ended: set when the generation's answer has ended.
        wire: leads to the server.
        genkey: names the generation.
        bound_seconds: give up after this time.

    Returns:
        True if it has ended, False if the time was up.
    """
    with trio.move_on_after(bound_seconds, shield=True):
        while not ended.is_set():
            await abort_once(wire, genkey)
            with trio.move_on_after(_REPEAT_SECONDS):
                await ended.wait()
    return ended.is_set()


async def abort_once(wire: Wire, genkey: str) -> None:
    """Tell the server to stop a generation; whether it heard it is not known."""
    try:
        await wire.call(
            "POST", ABORT_PATH, {"genkey": genkey}, timeout_seconds=_CALL_TIMEOUT_SECONDS
        )
    except AttemptFailed:
        return  # Down or silent; the state of the answer tells the rest.
