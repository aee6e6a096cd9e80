"""What an answer says before any dialect is asked: its JSON, or the error it reports."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.backends.observation import AttemptFailed, Observation, Seen

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.wire import Answer

_MAX_RETRY_AFTER_SECONDS = 3600.0
_MAX_ERROR_BYTES = 64 * 1024
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_ -]{0,63}")
CONTEXT_OVERFLOW = "context_length_exceeded"
_OVERFLOW = re.compile(
    r"(maximum|exceeds?|available) .{0,40}context (length|size|window)"
    r"|context (length|size|window).{0,20}exceed",
    re.IGNORECASE,
)


def parse_json(data: bytes | str) -> Any:
    """Return the JSON value of an answer; ``AttemptFailed`` if it is none."""
    try:
        return json.loads(data)
    # Too deep a nesting ends the parser with a RecursionError.
    except (ValueError, RecursionError):
        raise AttemptFailed.seen(Seen.NOT_JSON) from None


async def refuse_error_status(answer: Answer) -> None:
    """Raise what an answer that is not 200 says; do nothing if it is.

    Raises:
        AttemptFailed: the status is not 200.
    """
    if answer.status == 200:
        return
    try:
        error = json.loads(await answer.read_all(_MAX_ERROR_BYTES))
    except (AttemptFailed, ValueError, RecursionError):
        error = None  # The status says enough; many error pages are HTML.
    raise AttemptFailed(error_observation(answer.status, error, answer.headers.get("retry-after")))


def error_observation(status: int, body: object, retry_after: str | None = None) -> Observation:
    """Return what an error answer says, in KoboldCPP's form or in OpenAI's.

    The server's message is left out, since it may repeat the prompt.
    """
    error: Any = {}
    if isinstance(body, dict):
        error = body.get("detail") or body.get("error") or {}
    if not isinstance(error, dict):
        error = {}
    words = [error.get("code"), error.get("type")]
    word = next((w for w in words if isinstance(w, str) and _WORD.fullmatch(w)), None)
    message = error.get("message")
    if isinstance(message, str) and _OVERFLOW.search(message):
        word = CONTEXT_OVERFLOW  # Some servers say so in their message only.
    return Observation(
        Seen.STATUS,
        status=status,
        error_type=word,
        retry_after_seconds=_seconds(retry_after),
        prompt_tokens=_count(error.get("n_prompt_tokens")),
        context_tokens=_count(error.get("n_ctx")),
    )


def _seconds(value: str | None) -> float | None:
    # The other form of Retry-After, a date, is not used by servers that generate.
    if value is None or not re.fullmatch(r"[0-9]{1,6}", value.strip()):
        return None
    return min(float(value), _MAX_RETRY_AFTER_SECONDS)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
