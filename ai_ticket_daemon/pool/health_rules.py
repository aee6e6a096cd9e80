"""What becomes of a server's health: the rules, as a pure function of what was seen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.failure import HealthEvent
from ai_ticket_daemon.backends.generation import ProbeResult
from ai_ticket_daemon.pool.health import USABLE, Health, HealthState
from ai_ticket_daemon.pool.health_events import (
    GenerationFailed,
    GenerationSucceeded,
    LoadBegun,
    ProbeAnswered,
    ProbeFailed,
    ProbeNotYet,
    ProbePutOff,
    ProbeSilent,
)
from ai_ticket_daemon.pool.identity import Identity, problem_of

if TYPE_CHECKING:
    from ai_ticket_daemon.config.backends import BackendsConfig
    from ai_ticket_daemon.pool.health_events import HealthInput
    from ai_ticket_daemon.pool.identity import Expected

AWAY_SECONDS = 5.0
"""How long a router that starts its server anew is waited for: to unload takes about two."""
_COMES_AND_GOES = frozenset({HealthState.UNLOADED, HealthState.LOADING, HealthState.RELOADING})
_NOT_TO_BE_PUT_OFF = frozenset(
    {HealthState.STUCK, HealthState.WRONG_MODEL, HealthState.UNAUTHORISED}
)


def after(health: Health, event: HealthInput, *, rules: BackendsConfig, now: float) -> Health:
    """Return the health after ``event`` was seen at ``now`` (seconds, monotonic).

    A server that was never seen before is believed at once, for better or worse.
    """
    match event:
        case ProbeAnswered():
            return _after_answer(health, event, rules, now)
        case ProbeFailed(reason):
            missed = replace(health, failures=health.failures + 1, successes=0)
            known = health.state is not HealthState.UNKNOWN
            if (known and missed.failures < rules.fall) or _loads_as_told(health, now):
                return missed
            return _enter(missed, HealthState.DOWN, reason, now)
        case ProbeNotYet():
            return _after_not_yet(health, event, rules, now)
        case ProbePutOff(reason, expected):
            return _after_put_off(health, reason, expected, rules, now)
        case ProbeSilent(reason):
            return _after_loss(health, reason, now)
        case GenerationFailed():
            return _after_failure(health, event, rules, now)
        case GenerationSucceeded():
            well = replace(health, failed_events=frozenset(), setbacks=0, held_until=None)
            if health.state is HealthState.STUCK:
                return _enter(well, HealthState.READY, "a generation has ended", now)
            return well
        case LoadBegun(seconds):
            reason = "loads its model, as it was told to"
            return _enter(health, HealthState.LOADING, reason, now, now + seconds)


def hold_seconds(setbacks: int, rules: BackendsConfig) -> float:
    """Return how long a server that answers probes and does no work is left alone."""
    longest = max(rules.failback_after_seconds, rules.probe_interval_seconds)
    return float(min(longest, rules.probe_interval_seconds * 2.0 ** min(setbacks - 1, 32)))


def _after_answer(
    health: Health, answer: ProbeAnswered, rules: BackendsConfig, now: float
) -> Health:
    result = answer.result
    restarted = _restarted(health, result)
    worked = _worked_since(health, result)
    health = replace(
        health,
        successes=health.successes + 1,
        failures=0,
        credential_accepted=result.credential_accepted,
        lacks_model=not result.has_model,
        uptime_seconds=result.uptime_seconds,
        generations=result.generations,
        software=result.software,
        prompt_tokens_per_second=result.prompt_tokens_per_second,
        written_tokens_per_second=result.written_tokens_per_second,
        last_prompt_tokens=result.last_prompt_tokens,
    )
    if restarted:
        # Another process: what the last one did wrong does not count, nor how long it was well,
        # unless its router started it to load or unload its model.
        unasked = not _model_came_or_went(health, result)
        health = replace(
            health,
            restarts=health.restarts + unasked,
            usable_since=None if unasked else health.usable_since,
            failed_events=frozenset(),
            setbacks=0,
            held_until=None,
        )
    problem = problem_of(result, answer.expected)
    if problem is not None:
        if not result.has_model and not restarted and _loads_as_told(health, now):
            return health  # It has not begun yet.
        state = HealthState.WRONG_MODEL if result.credential_accepted else HealthState.UNAUTHORISED
        return _enter(health, state, problem, now)
    health = replace(health, identity=_identity(health, result))
    held = _held(health, now)
    if health.state is HealthState.STUCK and not restarted and (held or not worked):
        return health
    if health.state is HealthState.DOWN:
        if held:  # The reason to be told is still the one it was found to do no work for.
            return health
        if health.successes < rules.rise:
            reason = f"answers again, {health.successes} of {rules.rise} probes"
            return replace(health, reason=reason)
    if result.loads_on_request:
        return _enter(health, HealthState.UNLOADED, "the next request loads its model", now)
    if result.busy:
        return _enter(health, HealthState.BUSY, "a generation runs", now)
    return _enter(health, HealthState.READY, "answers", now)


def _after_loss(health: Health, reason: str, now: float) -> Health:
    lost = replace(health, failures=health.failures + 1, successes=0)
    return _enter(lost, HealthState.DOWN, reason, now)


def _after_failure(
    health: Health, failed: GenerationFailed, rules: BackendsConfig, now: float
) -> Health:
    reason = failed.reason
    match failed.health_event:
        case HealthEvent.LOST:
            return _after_loss(health, reason, now)
        case HealthEvent.CREDENTIAL:
            refused = replace(health, credential_accepted=False)
            return _enter(refused, HealthState.UNAUTHORISED, reason, now)
        case HealthEvent.RELOADING:
            awaited_until = _awaited_until(health, AWAY_SECONDS, now)
            return _enter(health, HealthState.RELOADING, reason, now, awaited_until)
        case HealthEvent.NO_MODEL:
            lacking = replace(health, lacks_model=True)
            return _enter(lacking, HealthState.WRONG_MODEL, reason, now)
        case HealthEvent.STALLED:
            if health.state is HealthState.DOWN:  # That says more, and the probes have to end it.
                return _set_back(health, HealthState.DOWN, health.reason, rules, now)
            return _set_back(health, HealthState.STUCK, reason, rules, now)
        case HealthEvent.FAILED:
            return _after_failed_event(health, failed, rules, now)


def _after_failed_event(
    health: Health, failed: GenerationFailed, rules: BackendsConfig, now: float
) -> Health:
    """One event that fails again and again may be to blame itself: it counts once."""
    # More than `fall` of them need not be remembered.
    others = tuple(health.failed_events - {failed.event_id})[: rules.fall - 1]
    health = replace(health, failed_events=frozenset({failed.event_id, *others}))
    count = len(health.failed_events)
    if count < rules.fall:
        return health
    reason = f"failed at {count} events in a row; the last: {failed.reason}"
    return _set_back(health, HealthState.DOWN, reason, rules, now)


def _after_not_yet(
    health: Health, answer: ProbeNotYet, rules: BackendsConfig, now: float
) -> Health:
    """It is not down; but one that served is believed only when it goes on saying so."""
    missed = replace(health, failures=health.failures + 1, successes=0)
    if _held(health, now):
        return missed
    loads = health.state in (HealthState.UNLOADED, HealthState.LOADING)
    if answer.router:
        state = HealthState.LOADING if loads else HealthState.RELOADING
        awaited_until = _awaited_until(health, answer.load_seconds if loads else AWAY_SECONDS, now)
        return _enter(missed, state, answer.reason, now, awaited_until)
    if health.usable and missed.failures < rules.fall:
        return missed
    return _enter(missed, HealthState.LOADING, answer.reason, now)


def _after_put_off(
    health: Health, reason: str, expected: Expected, rules: BackendsConfig, now: float
) -> Health:
    """It answers and tells nothing of itself: what was known of it still is."""
    alive = replace(health, successes=health.successes + 1, failures=0)
    if health.state in _NOT_TO_BE_PUT_OFF or _held(health, now):
        return alive
    known = health.identity
    problem = problem_of(ProbeResult(known.model, known.context_tokens), expected)
    if known.model is None and expected.model is not None:
        problem = "has too many requests to say which model it serves"
    if problem is not None:
        return _enter(alive, HealthState.WRONG_MODEL, problem, now)
    if health.state is HealthState.DOWN and alive.successes < rules.rise:
        return alive
    return _enter(alive, HealthState.BUSY, reason, now)


def _awaited_until(health: Health, seconds: float, now: float) -> float | None:
    """Until when a server whose model is away is awaited: not longer for being asked again."""
    if health.usable and "router" in health.software.features:
        return now + seconds
    return health.awaited_until


def _loads_as_told(health: Health, now: float) -> bool:
    """Whether a server without a router loads its model now: its port is closed meanwhile."""
    loads = health.state is HealthState.LOADING and "router" not in health.software.features
    return loads and health.usable_soon(now)


def _model_came_or_went(health: Health, result: ProbeResult) -> bool:
    """Whether a router has started the server anew to load or to unload its model."""
    goes = result.loads_on_request or health.state in _COMES_AND_GOES
    return goes and "router" in result.software.features


def _held(health: Health, now: float) -> bool:
    return health.held_until is not None and now < health.held_until


def _restarted(health: Health, result: ProbeResult) -> bool:
    uptime_back = (
        health.uptime_seconds is not None
        and result.uptime_seconds is not None
        and result.uptime_seconds < health.uptime_seconds
    )
    count_back = (
        health.generations is not None
        and result.generations is not None
        and result.generations < health.generations
    )
    return uptime_back or count_back


def _worked_since(health: Health, result: ProbeResult) -> bool:
    """Whether a stuck server has got on: nothing runs there any more, or it counts one more.

    Of a server that does not tell, only trying it can tell.
    """
    if not result.busy:
        return True
    return (
        health.generations is not None
        and result.generations is not None
        and result.generations > health.generations
    )


def _identity(health: Health, result: ProbeResult) -> Identity:
    """What is not told now is as it was."""
    return Identity(
        health.identity.model if result.model is None else result.model,
        health.identity.context_tokens if result.context_tokens is None else result.context_tokens,
    )


def _set_back(
    health: Health, state: HealthState, reason: str, rules: BackendsConfig, now: float
) -> Health:
    setbacks = health.setbacks + 1
    held = replace(
        health,
        setbacks=setbacks,
        successes=0,
        held_until=now + hold_seconds(setbacks, rules),
    )
    return _enter(held, state, reason, now)


def _enter(
    health: Health,
    state: HealthState,
    reason: str,
    now: float,
    awaited_until: float | None = None,
) -> Health:
    since = health.since if health.state is state else now
    usable_since = None
    if state in USABLE:
        usable_since = now if health.usable_since is None else health.usable_since
    elif awaited_until is not None and now < awaited_until:
        usable_since = health.usable_since
    return replace(
        health,
        state=state,
        reason=reason,
        since=since,
        usable_since=usable_since,
        awaited_until=awaited_until,
    )
