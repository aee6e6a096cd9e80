"""The health of one server: a state machine of plain values, fed by probes and by traffic."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.generation import ProbeResult
    from ai_ticket_daemon.config.backends import BackendsConfig

INACTIVE_MODEL = "inactive"
"""What KoboldCPP calls its model when it has none; the same in every spelling of its answers."""


class HealthState(StrEnum):
    """What is known of a server."""

    UNKNOWN = "unknown"
    """Not probed yet; not used."""
    READY = "ready"
    """Answers, with the right model."""
    BUSY = "busy"
    """Answers, and generates; busy is not down."""
    WRONG_MODEL = "wrong_model"
    """Answers, but without a model, or with another one than configured."""
    DOWN = "down"
    """Refuses, stays silent or makes no sense."""


_USABLE = frozenset({HealthState.READY, HealthState.BUSY})


@dataclass(frozen=True, slots=True)
class Health:
    """A server's state, why it is in it and since when (seconds, monotonic clock).

    ``successes`` and ``failures`` count probes in a row; only one of them is not 0.
    ``usable_since`` is None unless generations may be sent there.
    """

    state: HealthState = HealthState.UNKNOWN
    reason: str = "not probed yet"
    since: float = 0.0
    usable_since: float | None = None
    successes: int = 0
    failures: int = 0
    credential_accepted: bool = True
    uptime_seconds: float | None = None

    @property
    def usable(self) -> bool:
        """Whether generations may be sent there."""
        return self.state in _USABLE

    @property
    def in_transition(self) -> bool:
        """Whether the next probe should come soon, because the state is in doubt."""
        return not self.usable or self.failures > 0


def after_probe(
    health: Health,
    result: ProbeResult,
    *,
    expected_model: str | None,
    rules: BackendsConfig,
    now: float,
) -> Health:
    """Return the health after a probe that was answered.

    A server that was never seen before is believed at once; one that was down has to answer
    ``rise`` times in a row.
    """
    health = replace(
        health,
        successes=health.successes + 1,
        failures=0,
        credential_accepted=result.credential_accepted,
        uptime_seconds=result.uptime_seconds,
    )
    problem = _model_problem(result, expected_model)
    if problem is not None:
        return _enter(health, HealthState.WRONG_MODEL, problem, now)
    if health.state is HealthState.DOWN and health.successes < rules.rise:
        return replace(health, reason=f"answers again, {health.successes} of {rules.rise} probes")
    if result.busy:
        return _enter(health, HealthState.BUSY, "a generation runs", now)
    return _enter(health, HealthState.READY, "answers", now)


def after_failed_probe(health: Health, reason: str, *, rules: BackendsConfig, now: float) -> Health:
    """Return the health after a probe that failed; ``fall`` of them in a row mean down."""
    health = replace(health, failures=health.failures + 1, successes=0)
    if health.state is not HealthState.UNKNOWN and health.failures < rules.fall:
        return health
    return _enter(health, HealthState.DOWN, reason, now)


def after_lost_connection(health: Health, reason: str, *, now: float) -> Health:
    """Return the health after traffic was refused or cut: down at once, no counting."""
    health = replace(health, failures=health.failures + 1, successes=0)
    return _enter(health, HealthState.DOWN, reason, now)


def _model_problem(result: ProbeResult, expected_model: str | None) -> str | None:
    if result.model is not None and result.model.rpartition("/")[2] == INACTIVE_MODEL:
        return "has no model loaded"
    if not result.credential_accepted:
        return "does not accept the configured password, so its model cannot be checked"
    if expected_model is not None and result.model != expected_model:
        return f"serves the model {result.model!r}, not {expected_model!r}"
    return None


def _enter(health: Health, state: HealthState, reason: str, now: float) -> Health:
    since = health.since if health.state is state else now
    usable_since = None
    if state in _USABLE:
        usable_since = now if health.usable_since is None else health.usable_since
    return replace(health, state=state, reason=reason, since=since, usable_since=usable_since)
