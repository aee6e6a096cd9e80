"""What is seen of a server, by probes and by traffic: the messages its health is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.failure import HealthEvent, RetryRule
from ai_ticket_daemon.errors import ErrorCode

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.failure import BackendError
    from ai_ticket_daemon.backends.generation import ProbeResult
    from ai_ticket_daemon.pool.identity import Expected

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
    """A probe was answered that the server cannot serve yet (503): it loads, or is overloaded."""

    reason: str


@dataclass(frozen=True, slots=True)
class ProbeSilent:
    """The server accepted a probe, or seemed to, and said nothing within the whole time for it."""

    reason: str


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """Traffic was refused, cut or left without any answer."""

    reason: str


@dataclass(frozen=True, slots=True)
class CredentialRefused:
    """Traffic was answered that the credential is wrong."""

    reason: str


@dataclass(frozen=True, slots=True)
class ModelMissing:
    """Traffic was answered with the empty text of a server that has no model."""

    reason: str


@dataclass(frozen=True, slots=True)
class GenerationStalled:
    """A generation made no progress, or did not stop when told to."""

    reason: str


@dataclass(frozen=True, slots=True)
class GenerationFailed:
    """An attempt at this event was answered, but not with a completion."""

    event_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class GenerationSucceeded:
    """An attempt gave a completion."""


HealthInput = (
    ProbeAnswered
    | ProbeFailed
    | ProbePutOff
    | ProbeNotYet
    | ProbeSilent
    | ConnectionLost
    | CredentialRefused
    | ModelMissing
    | GenerationStalled
    | GenerationFailed
    | GenerationSucceeded
)


def sign_of(event_id: str, error: BackendError) -> HealthInput | None:
    """Return what a failed attempt says of its server; None if it was the request's fault."""
    match error.health_event:
        case None:
            return None
        case HealthEvent.LOST:
            return ConnectionLost(error.message)
        case HealthEvent.STALLED:
            return GenerationStalled(error.message)
        case HealthEvent.CREDENTIAL:
            return CredentialRefused(error.message)
        case HealthEvent.NO_MODEL:
            return ModelMissing(error.message)
        case HealthEvent.FAILED:
            return GenerationFailed(event_id, error.message)


def health_event_of_probe(error: BackendError, expected: Expected) -> HealthInput:
    """Return what a probe that was refused, or not answered sensibly, says of its server."""
    status = (error.details or {}).get("status")
    if error.code is ErrorCode.API_TIMEOUT and status is None:
        return ProbeSilent(error.message)
    if error.retry is not RetryRule.BUSY:
        return ProbeFailed(error.message)
    if status == _NOT_YET:
        return ProbeNotYet(error.message)
    return ProbePutOff(error.message, expected)
