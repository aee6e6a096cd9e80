"""How the daemon does at one moment: plain values, which everybody who shows it only renders."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class HealthStatus(StrEnum):
    """How well the daemon does its work."""

    HEALTHY = "healthy"
    """Everything works."""
    DEGRADED = "degraded"
    """Events are served, but not as they should be, such as on the standby."""
    UNHEALTHY = "unhealthy"
    """Events cannot be served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSnapshot:
    """One server, and why it is as it is."""

    name: str
    role: str
    kind: str
    url: str
    state: str
    reason: str
    usable: bool
    active: bool
    """Whether it belongs to those that serve."""
    pinned: bool
    in_flight: int
    max_in_flight: int
    version: str | None
    """Of its software, if it tells."""
    features: tuple[str, ...]
    """What it can do beyond the oldest version."""
    resting_seconds: float
    """How long it is left alone because it is busy."""
    prompt_tokens_per_second: float | None = None
    written_tokens_per_second: float | None = None
    """How fast it was at its last generation, if it tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveSnapshot:
    """Which role serves, and why."""

    role: str
    pinned: str | None
    """The one server that serves, because an operator wants it."""
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSnapshot:
    """The events in the store, as they were last counted."""

    states: Mapping[str, int] = field(default_factory=dict)
    oldest_queued_seconds: float | None = None
    """The age of the event that has waited longest; None if none waits."""
    difference: int = 0
    """How many accepted events are in no state: any but 0 means that events were lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WasteSnapshot:
    """What one server made for nobody, for one cause, since the start."""

    backend: str
    cause: str
    seconds: float
    tokens: int
    """As far as they are known."""
    attempts: int
    unknown: int
    """How many of the attempts made tokens that nobody could count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedClient:
    """How often one client was refused, at the most; for what and when it was last."""

    client: str
    number: int
    error: str
    last_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class IsolationSnapshot:
    """Which servers a drill makes unreachable, and for how much longer."""

    servers: tuple[str, ...] = ()
    left_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How the whole daemon does."""

    status: HealthStatus
    ready: bool
    """Whether a request sent now would be served."""
    version: str
    uptime_seconds: float
    active: ActiveSnapshot
    reasons: tuple[str, ...] = ()
    """Why it does not do better, a sentence each, the most important first."""
    warnings: tuple[str, ...] = ()
    """What deserves a word in the configuration in force."""
    reload_problems: tuple[str, ...] = ()
    """Why the last reload was refused; empty if it was applied."""
    addresses: tuple[str, ...] = ()
    """Where it listens."""
    draining: bool = False
    paused: bool = False
    backends: tuple[BackendSnapshot, ...] = ()
    capacity: int = 0
    """How many generations the usable servers of the active role take at a time."""
    failback_after_seconds: float | None = None
    """How long a primary must be healthy before it serves again; None if that is ordered."""
    isolated: IsolationSnapshot = field(default_factory=IsolationSnapshot)
    queue: QueueSnapshot = field(default_factory=QueueSnapshot)
    in_flight: int = 0
    max_concurrency: int = 0
    events_per_second: float = 0.0
    """How many events ended in this daemon, over the last minute."""
    wasted: tuple[WasteSnapshot, ...] = ()
    refused_clients: tuple[RefusedClient, ...] = ()
    store_url: str = ""
    store_fault: str | None = None
    """Why the store cannot be written; None if it can."""
    log_level: str = ""
    capture_payloads: int = 0
    metrics_address: str = ""
