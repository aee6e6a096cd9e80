"""What is checked before anything is sent.

KoboldCPP answers nearly all bad input without an error status, hangs on some and dies of some, so
that nothing may leave here that it could misread (`docs/koboldcpp.md`, "Requests").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.failure import BackendError, Failure, RetryRule
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.events.event import Role
from ai_ticket_daemon.events.limits import (
    MAX_STOP_STRINGS,
    MAX_TOKENS,
    SEED,
    TEMPERATURE,
    TOP_P,
    takes_stop,
)

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.generation import GenerationRequest


def validate(request: GenerationRequest) -> int:
    """Check that a request can be sent to a server.

    Returns:
        The length of all messages together in bytes of UTF-8.

    Raises:
        BackendError: it cannot; final, and not the backend's fault.
    """
    sampling = request.sampling
    if not request.messages:
        raise _invalid("messages", "must not be empty")
    size_bytes = 0
    for message in request.messages:
        role: object = message.role
        if not isinstance(role, Role):
            raise _invalid("messages", "must each have the role system, user or assistant")
        size_bytes += _utf8_bytes("messages", message.content)
    for name, value, allowed in (
        ("max_tokens", sampling.max_tokens, MAX_TOKENS),
        ("temperature", sampling.temperature, TEMPERATURE),
        ("top_p", sampling.top_p, TOP_P),
        ("seed", sampling.seed, SEED),
    ):
        if not allowed.admits(value) and not (name == "seed" and value is None):
            raise _invalid(name, f"must be {allowed}")
    stops: object = sampling.stop
    if not isinstance(stops, tuple) or not takes_stop(stops):
        raise _invalid("stop", f"must be at most {MAX_STOP_STRINGS} strings, whole and none empty")
    return size_bytes


def _utf8_bytes(name: str, text: object) -> int:
    if not isinstance(text, str):
        raise _invalid(name, "must be text")
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise _invalid(name, "must not contain half of a character (a lone surrogate)") from None


def _invalid(name: str, what: str) -> BackendError:
    return BackendError(
        Failure(ErrorCode.INVALID_PARAMETER, RetryRule.FINAL),
        f"{name} {what}",
        details={"parameter": name},
    )
