"""What probes and generations tell of a server: the input of its health."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.failure import RetryRule
from ai_ticket_daemon.errors import ErrorCode

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.failure import BackendError, HealthEvent
    from ai_ticket_daemon.backends.generation import ProbeResult
    from ai_ticket_daemon.backends.software import Software
    from ai_ticket_daemon.pool.identity import Expected

_NOBODY_BEHIND = 502
"""The HTTP status of a router while the server behind it is being started."""
_NOT_YET = 503
"""The HTTP status of a server that loads its model, or of a proxy that has no server."""


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """A probe was answered sensibly; ``expected`` is what the server should be."""

    result: ProbeResult
    expected: Expected


@dataclass(frozen=True, slots=True)
class ProbeFailed:
    """A probe was refused, or not answered sensibly."""

    reason: str


@dataclass(frozen=True, slots=True)
class ProbePutOff:
    """A probe was answered "later": the server has too many requests to say more (429).

    ``expected`` is what the server should be.
    """

    reason: str
    expected: Expected


@dataclass(frozen=True, slots=True)
class ProbeNotYet:
    """A probe was answered that the server cannot serve yet (503): it loads, or is overloaded.

    ``router``: a router says so of the server behind it, which is being started.
    """

    reason: str
    router: bool = False


@dataclass(frozen=True, slots=True)
class ProbeSilent:
    """The server accepted a probe, or seemed to, and said nothing within the whole time for it."""

    reason: str


@dataclass(frozen=True, slots=True)
class GenerationFailed:
    """A generation failed by the server's fault, or did not stop when told to."""

    health_event: HealthEvent
    """What that tells of the server."""
    reason: str
    event_id: str = ""
    """The event it was made for; empty where it does not matter."""


@dataclass(frozen=True, slots=True)
class GenerationSucceeded:
    """An attempt gave a completion."""


HealthInput = (
    ProbeAnswered
    | ProbeFailed
    | ProbePutOff
    | ProbeNotYet
    | ProbeSilent
    | GenerationFailed
    | GenerationSucceeded
)


def health_event_of_probe(
    error: BackendError, expected: Expected, software: Software
) -> HealthInput:
    """Return what a probe that was refused, or not answered sensibly, tells of its server."""
    status = (error.details or {}).get("status")
    if error.code is ErrorCode.API_TIMEOUT and status is None:
        return ProbeSilent(error.message)
    if status == _NOBODY_BEHIND and "router" in software.features:
        return ProbeNotYet("the server behind its router is being started", router=True)
    if error.failure.retry is not RetryRule.BUSY:
        return ProbeFailed(error.message)
    if status == _NOT_YET:
        return ProbeNotYet(error.message)
    return ProbePutOff(error.message, expected)
