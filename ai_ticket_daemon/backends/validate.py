"""What is checked before anything is sent.

KoboldCPP answers nearly all bad input without an error status, hangs on some and dies of some, so
that nothing may leave here that it could misread (`docs/koboldcpp.md`, "Requests").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.errors import BackendError, Disposition, ErrorCode
from ai_ticket_daemon.events.event import Role

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.generation import GenerationRequest

MAX_STOPS = 30
"""The server takes 32 and adds the markers of two roles itself."""
MAX_TEMPERATURE = 100
_MAX_INT = 2**31 - 1


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
    if not _is_integer(sampling.max_tokens, 1, _MAX_INT):
        raise _invalid("max_tokens", "must be an integer of at least 1")
    if not _is_real(sampling.temperature, 0, MAX_TEMPERATURE):
        raise _invalid("temperature", f"must be a number from 0 to {MAX_TEMPERATURE}")
    if not _is_real(sampling.top_p, 0, 1):
        raise _invalid("top_p", "must be a number from 0 to 1")
    if sampling.seed is not None and not _is_integer(sampling.seed, -1, _MAX_INT):
        raise _invalid("seed", "must be an integer from -1 to 2147483647")
    stops: object = sampling.stop
    if not isinstance(stops, tuple) or len(stops) > MAX_STOPS:
        raise _invalid("stop", f"must be at most {MAX_STOPS} strings")
    for stop in stops:
        if _utf8_bytes("stop", stop) == 0:
            raise _invalid("stop", "must not contain an empty string")
    return size_bytes


def _utf8_bytes(name: str, text: object) -> int:
    if not isinstance(text, str):
        raise _invalid(name, "must be text")
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise _invalid(name, "must not contain half of a character (a lone surrogate)") from None


def _is_integer(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_real(value: object, least: float, most: float) -> bool:
    # The comparison is false for NaN.
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _invalid(name: str, what: str) -> BackendError:
    return BackendError(
        ErrorCode.INVALID_PARAMETER,
        f"{name} {what}",
        disposition=Disposition.FINAL,
        backend_fault=False,
        details={"parameter": name},
    )
