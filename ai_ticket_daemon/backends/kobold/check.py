"""``POST /api/extra/generate/check``: the text of a generation so far, while it is the last one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.transport.wire import CALL_TIMEOUT_SECONDS

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.transport.wire import Wire

CHECK_PATH = "/api/extra/generate/check"


async def read_text(
    wire: Wire, genkey: str, *, max_bytes: int, timeout_seconds: float = CALL_TIMEOUT_SECONDS
) -> str:
    """Return the text; empty if there is none yet, or another generation came since.

    Raises:
        AttemptFailed: no sensible answer.
    """
    answer = await wire.call(
        "POST",
        CHECK_PATH,
        {"genkey": genkey},
        timeout_seconds=timeout_seconds,
        max_bytes=max_bytes,
    )
    match answer:
        case {"results": [{"text": str(text)}, *_]}:
            return text
    raise AttemptFailed.seen(Seen.WRONG_SHAPE)
