"""What a server should be: the model and the context the conf file, or the primary, lets expect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.backends import BackendRole

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ai_ticket_daemon.backends.generation import ProbeResult
    from ai_ticket_daemon.config.backends import ServerConfig


@dataclass(frozen=True, slots=True)
class Identity:
    """What a server was last seen to be; None where it did not tell."""

    model: str | None = None
    context_tokens: int | None = None


NOTHING_KNOWN = Identity()


@dataclass(frozen=True, slots=True)
class Expected:
    """What a server has to be to be used; None where anything will do.

    ``model`` is compared exactly, as the operator wrote it. ``like`` and ``least_context_tokens``
    may come from the primary ``of``; then names are compared without path and file type.
    """

    model: str | None = None
    like: str | None = None
    least_context_tokens: int | None = None
    of: str | None = None


def expected_of(
    server: ServerConfig, primaries: Iterable[tuple[str, Identity]], *, match_primary: bool
) -> Expected:
    """Return what ``server`` should be.

    Args:
        server: its part of the conf file; what it says itself wins.
        primaries: name and identity of each primary, in the order of the conf file.
        match_primary: whether a standby has to be like the first primary that is known.
    """
    model, context = server.model, server.context_tokens or None
    if not match_primary or server.role is BackendRole.PRIMARY or model is not None:
        return Expected(model, None, context)
    for name, identity in primaries:
        if identity.model is not None:
            least = identity.context_tokens if context is None else context
            return Expected(None, identity.model, least, name)
    return Expected(None, None, context)


def problem_of(result: ProbeResult, expected: Expected) -> str | None:
    """Return in words why a server that answered a probe must not be used; None if it may."""
    if result.loads_on_request:
        return None  # Which one it is shows when it is loaded.
    if not result.has_model:
        if "admin" in result.software.features:
            return "has no model loaded, and no request loads it; `ai-ticketctl wake` does"
        return "has no model loaded"
    if not result.credential_accepted:
        return "does not accept the configured password, so its model cannot be checked"
    if expected.model is not None and result.model != expected.model:
        return f"serves the model {result.model!r}, not {expected.model!r}"
    if (
        expected.like is not None
        and result.model is not None
        and plain_name(result.model) != plain_name(expected.like)
    ):
        return (
            f"serves the model {result.model!r}, but the primary {expected.of} {expected.like!r}; "
            "if that is wanted, set this server's `model`"
        )
    least, context = expected.least_context_tokens, result.context_tokens
    if least is not None and context is not None and context < least:
        source = "`context_tokens`" if expected.of is None else f"the primary {expected.of}"
        return f"has a context of {context} tokens, less than the {least} of {source}"
    return None


def plain_name(model: str) -> str:
    """Return a model's name without path and file type, which differ between kinds of server."""
    return model.rpartition("/")[2].removesuffix(".gguf").casefold()
