"""Which role serves: the primaries or the standbys. Pure functions of what is known.

Failover at once, failback after steady health, a primary that fails again soon waits longer each
time, an operator's pin over everything, and never more than ``MAX_SWITCHES`` in ``WINDOW_SECONDS``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.backends import BackendRole, Failback

if TYPE_CHECKING:
    from ai_ticket_daemon.config.backends import BackendsConfig

MAX_SWITCHES = 4
"""How often the role may change within the window, whatever the servers do; operators may more."""
WINDOW_SECONDS = 60.0
RELAPSE_FACTOR = 10.0
"""A failover within so many times the hold-down after a failback is a relapse."""
LONGEST_HOLD_SECONDS = 3600.0
"""What the hold-down grows to at most, unless the conf file asks for more from the start."""


class SwitchReason(StrEnum):
    """Why the role that serves was chosen; a label of metrics, so a closed set."""

    START = "start"
    """Primaries serve until something is known."""
    PRIMARY_UNUSABLE = "primary_unusable"
    """No primary is usable, a standby is."""
    STANDBY_UNUSABLE = "standby_unusable"
    """No standby is usable any more, a primary is."""
    PRIMARY_STEADY = "primary_steady"
    """A primary has been healthy for as long as the hold-down asks."""
    ASKED_BACK = "asked_back"
    """The operator asked for the failback."""
    PINNED = "pinned"
    """The operator chose the server."""
    NO_STANDBY = "no_standby"
    """A reload took the last standby out."""


@dataclass(frozen=True, slots=True)
class Roles:
    """What is known of the servers, put together by role.

    Args:
        primary_usable_since: since when (seconds, monotonic) a primary has been usable without a
            break; None if none is.
        primary_unknown: whether a primary has not been probed yet; it gets the benefit of the
            doubt, or every start would begin with a failover.
        standby_usable: whether any standby is usable.
        standby_exists: whether one is configured.
        primary_trouble: in words, why no primary is usable.
        primary_awaited: whether a primary's model is away, and it is expected back.
        primary_loads: whether no primary is unusable for another reason than that its model comes
            and goes.
    """

    primary_usable_since: float | None = None
    primary_unknown: bool = False
    standby_usable: bool = False
    standby_exists: bool = True
    primary_trouble: str = ""
    primary_awaited: bool = False
    primary_loads: bool = False


@dataclass(frozen=True, slots=True)
class ActiveRole:
    """The role that serves, why, and what has to be remembered to decide about the next one.

    ``detail`` says in words what ``reason`` leaves open; the reason for a standby is always stated.
    ``relapses`` counts failovers that came soon after a failback. Times are seconds, monotonic;
    ``switched_at`` holds those within the window.
    """

    role: BackendRole = BackendRole.PRIMARY
    reason: SwitchReason = SwitchReason.START
    detail: str = "start"
    since: float = 0.0
    pinned: str | None = None
    relapses: int = 0
    returned_at: float | None = None
    switched_at: tuple[float, ...] = ()


def hold_down_seconds(active: ActiveRole, rules: BackendsConfig) -> float:
    """Return how long a primary must have been healthy before it serves again."""
    longest = max(rules.failback_after_seconds, LONGEST_HOLD_SECONDS)
    grown = rules.failback_after_seconds * 2.0 ** min(active.relapses, 32)
    return min(longest, grown)


def switches_left(active: ActiveRole, now: float) -> int:
    """Return how often the role may still change within the window."""
    recent = sum(at > now - WINDOW_SECONDS for at in active.switched_at)
    return max(0, MAX_SWITCHES - recent)


def choose_role(
    active: ActiveRole, roles: Roles, *, rules: BackendsConfig, now: float
) -> ActiveRole:
    """Return the role that is to serve from now on; ``active`` itself if nothing changes.

    Args:
        active: the role that serves now.
        roles: what is known of the servers.
        rules: ``failback`` and ``failback_after_seconds``.
        now: seconds, monotonic.
    """
    if active.pinned is not None:
        return active
    recent = MAX_SWITCHES - switches_left(active, now)
    primary_usable = roles.primary_usable_since is not None
    if active.role is BackendRole.PRIMARY:
        hopeful = primary_usable or roles.primary_awaited or roles.primary_unknown
        if hopeful or not roles.standby_usable:
            return active
        return _fail_over(active, roles, rules, now) if recent < MAX_SWITCHES else active
    if not roles.standby_exists:
        return _return(active, SwitchReason.NO_STANDBY, "no standby is configured", now)
    if roles.primary_usable_since is None:
        return active
    if not roles.standby_usable:
        if recent >= MAX_SWITCHES:
            return active
        words = "no standby is usable, a primary is"
        return _return(active, SwitchReason.STANDBY_UNUSABLE, words, now)
    steady_seconds = now - roles.primary_usable_since
    # The last switch of the window is kept for a need: going back is only a wish.
    if (
        rules.failback is Failback.AUTO
        and steady_seconds >= hold_down_seconds(active, rules)
        and recent < MAX_SWITCHES - 1
    ):
        words = f"a primary has been healthy for {steady_seconds:.0f} s"
        return _return(active, SwitchReason.PRIMARY_STEADY, words, now)
    return active


def pin(active: ActiveRole, name: str, role: BackendRole, *, now: float) -> ActiveRole:
    """Return the state in which only the server ``name`` serves, until :func:`unpin`."""
    words = f"the operator pinned {name}"
    pinned = active if role is active.role else _switch(active, role, now)
    return replace(pinned, reason=SwitchReason.PINNED, detail=words, pinned=name)


def unpin(active: ActiveRole) -> ActiveRole:
    """Return the state in which the rules decide again; the role stays until they say otherwise."""
    return replace(active, pinned=None, detail="was pinned by the operator, is no longer")


def fail_back(active: ActiveRole, *, now: float) -> ActiveRole:
    """Return the state in which the primaries serve again because the operator said so."""
    back = _return(active, SwitchReason.ASKED_BACK, "the operator asked for the primary", now)
    return replace(back, relapses=0)


def _fail_over(active: ActiveRole, roles: Roles, rules: BackendsConfig, now: float) -> ActiveRole:
    relapsed = (
        active.returned_at is not None
        and now - active.returned_at < RELAPSE_FACTOR * hold_down_seconds(active, rules)
    )
    relapses = active.relapses + 1 if relapsed else 0
    return replace(
        _switch(active, BackendRole.STANDBY, now),
        reason=SwitchReason.PRIMARY_UNUSABLE,
        detail=f"no primary is usable: {roles.primary_trouble}",
        # A model that is away for long has not failed: that says nothing, good or bad.
        relapses=active.relapses if roles.primary_loads else relapses,
    )


def _return(active: ActiveRole, reason: SwitchReason, words: str, now: float) -> ActiveRole:
    back = _switch(active, BackendRole.PRIMARY, now)
    return replace(back, reason=reason, detail=words, returned_at=now)


def _switch(active: ActiveRole, role: BackendRole, now: float) -> ActiveRole:
    recent = tuple(at for at in active.switched_at if at > now - WINDOW_SECONDS)
    return replace(active, role=role, since=now, switched_at=(*recent, now))
