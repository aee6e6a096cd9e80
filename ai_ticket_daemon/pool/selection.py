"""Which server gets the next generation: plain rules over what is known, no clock, no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.config.backends import BackendRole
from ai_ticket_daemon.pool.backend import Backend, GuestReason
from ai_ticket_daemon.pool.health import HealthState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from ai_ticket_daemon.pool.failover import ActiveRole

Choice = tuple[Backend, GuestReason | None]


def serving(backends: Iterable[Backend], active: ActiveRole) -> list[Backend]:
    """Return the servers that serve: those of the active role, or the pinned one alone."""
    if active.pinned is not None:
        return [b for b in backends if b.name == active.pinned]
    return [b for b in backends if b.config.role is active.role]


def choose(backends: Collection[Backend], active: ActiveRole, *, spill: bool) -> Choice | None:
    """Return the server for the next event, whichever that is; None if there is no free slot.

    Args:
        backends: all servers.
        active: the role that serves.
        spill: whether a standby may help out while the primaries are busy with others' requests.
    """
    servers = serving(backends, active)
    if best := _least_loaded(servers):
        return best, None
    usable = [b for b in servers if b.health.usable]
    refusing = bool(usable) and all(b.pause.until is not None for b in usable)
    if spill and refusing and active.pinned is None and active.role is BackendRole.PRIMARY:
        standbys = [b for b in backends if b.config.role is BackendRole.STANDBY]
        if best := _least_loaded(standbys):
            return best, GuestReason.SPILL
    return None


def choose_other(
    backends: Collection[Backend], active: ActiveRole, *, avoid: Collection[str]
) -> Choice | None:
    """Return a server for an event that failed on those in ``avoid``; None if there is no other.

    One that serves is preferred; the others help out, since the event has been shown that those
    cannot do it.
    """
    servers = [b for b in serving(backends, active) if b.name not in avoid]
    if best := _least_loaded(servers):
        return best, None
    if active.pinned is not None:
        return None
    if best := _least_loaded([b for b in backends if b.name not in avoid]):
        return best, GuestReason.RETRY
    return None


def has_other(backends: Collection[Backend], active: ActiveRole, *, avoid: Collection[str]) -> bool:
    """Whether any usable server, free or not, is open to an event that failed on ``avoid``."""
    candidates = serving(backends, active) if active.pinned is not None else backends
    return any(b.health.usable and b.name not in avoid for b in candidates)


def _least_loaded(backends: Iterable[Backend]) -> Backend | None:
    """Return the free server with the smallest share of its slots in use.

    One that has its model loaded comes before one that has not. Between equals, one that does
    nothing comes before one that generates for others.
    """
    free = [b for b in backends if b.has_free_slot]
    return min(
        free,
        key=lambda b: (
            b.health.state is HealthState.UNLOADED,
            b.in_flight / b.config.max_in_flight,
            b.health.state is HealthState.BUSY,
        ),
        default=None,
    )
