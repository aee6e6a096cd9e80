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


_MAY_LOAD = "; as it runs with --admin, it may be loading or unloading its model"


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

    ``router``: a router says so of the server behind it, which is being started. If that is to
    load its model, it may take ``load_seconds``.
    """

    reason: str
    router: bool = False
    load_seconds: float = 0.0


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


@dataclass(frozen=True, slots=True)
class LoadBegun:
    """The server was told to load its model, and has said that it will, within ``seconds``."""

    seconds: float


HealthInput = (
    ProbeAnswered
    | ProbeFailed
    | ProbePutOff
    | ProbeNotYet
    | ProbeSilent
    | GenerationFailed
    | GenerationSucceeded
    | LoadBegun
)


def _may_load(software: Software) -> bool:
    """Whether a server ends to load or unload its model, and no router answers meanwhile."""
    return "admin" in software.features and "router" not in software.features


def health_event_of_probe(
    error: BackendError, expected: Expected, software: Software, *, load_seconds: float = 0.0
) -> HealthInput:
    """Return what a probe that was refused, or not answered sensibly, tells of its server.

    Args:
        error: what became of the probe.
        expected: what the server should be.
        software: what runs there.
        load_seconds: how long it may take to load its model.
    """
    status = (error.details or {}).get("status")
    if error.code is ErrorCode.API_TIMEOUT and status is None:
        return ProbeSilent(error.message)
    if status == _NOBODY_BEHIND and "router" in software.features:
        reason = "the server behind its router is being started"
        return ProbeNotYet(reason, router=True, load_seconds=load_seconds)
    if error.failure.retry is not RetryRule.BUSY:
        gone = error.code is ErrorCode.API_CONNECTION_ERROR and status is None
        return ProbeFailed(error.message + (_MAY_LOAD if gone and _may_load(software) else ""))
    if status == _NOT_YET:
        return ProbeNotYet(error.message)
    return ProbePutOff(error.message, expected)
