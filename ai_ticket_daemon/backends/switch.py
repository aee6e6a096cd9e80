"""Which role serves: the primaries or the standbys. A pure function of what is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.backends import BackendRole, Failback

if TYPE_CHECKING:
    from ai_ticket_daemon.config.backends import BackendsConfig


@dataclass(frozen=True, slots=True)
class ActiveRole:
    """The role that serves and, in words, why; the reason for a standby is always stated."""

    role: BackendRole = BackendRole.PRIMARY
    reason: str = "start"


def choose_role(
    current: ActiveRole,
    *,
    primary_usable_since: float | None,
    primary_unknown: bool,
    standby_usable: bool,
    rules: BackendsConfig,
    now: float,
) -> ActiveRole:
    """Return the role that is to serve from now on; ``current`` itself if nothing changes.

    Args:
        current: the role that serves now.
        primary_usable_since: since when (seconds, monotonic) a primary has been usable without a
            break; None if none is.
        primary_unknown: whether a primary has not been probed yet; it gets the benefit of the
            doubt, or every start would begin with a failover.
        standby_usable: whether any standby is usable.
        rules: ``failback`` and ``failback_after_seconds``.
        now: seconds, monotonic.
    """
    if current.role is BackendRole.PRIMARY:
        if primary_usable_since is None and not primary_unknown and standby_usable:
            return ActiveRole(BackendRole.STANDBY, "no primary is usable")
        return current
    if primary_usable_since is None:
        return current
    if not standby_usable:
        return ActiveRole(BackendRole.PRIMARY, "no standby is usable, a primary is")
    steady = now - primary_usable_since >= rules.failback_after_seconds
    if rules.failback is Failback.AUTO and steady:
        return ActiveRole(BackendRole.PRIMARY, "a primary has been healthy long enough")
    return current
