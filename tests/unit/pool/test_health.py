from __future__ import annotations

from dataclasses import replace

import pytest

from ai_ticket_daemon.backends.classify import classify
from ai_ticket_daemon.backends.failure import HealthEvent
from ai_ticket_daemon.backends.generation import ProbeResult
from ai_ticket_daemon.backends.observation import Observation, Seen
from ai_ticket_daemon.backends.software import NOTHING_TOLD, Software
from ai_ticket_daemon.config.backends import BackendRole, BackendsConfig, ServerConfig
from ai_ticket_daemon.pool.health import Health, HealthState
from ai_ticket_daemon.pool.health_events import (
    GenerationFailed,
    GenerationSucceeded,
    HealthInput,
    ProbeAnswered,
    ProbeFailed,
    ProbeNotYet,
    ProbePutOff,
    ProbeSilent,
    health_event_of_probe,
)
from ai_ticket_daemon.pool.health_rules import AWAY_SECONDS, after
from ai_ticket_daemon.pool.identity import Expected, Identity, expected_of, problem_of

RULES = BackendsConfig(
    servers=(ServerConfig(name="p", url="http://127.0.0.1:1"),),
    rise=2,
    fall=3,
    probe_interval_seconds=2,
    failback_after_seconds=30,
)
WELL = ProbeResult(model="koboldcpp/m", busy=False, uptime_seconds=100, generations=5)
BUSY = replace(WELL, busy=True)
ROUTER = Software("1.115", ("router",))
LOADED = replace(WELL, software=ROUTER)
UNLOADED = ProbeResult(
    None, has_model=False, loads_on_request=True, uptime_seconds=1, software=ROUTER
)
S = HealthState


def seen(health: Health, *events: HealthInput, now: float = 0) -> Health:
    for event in events:
        health = after(health, event, rules=RULES, now=now)
    return health


def answered(result: ProbeResult = WELL, model: str | None = None) -> ProbeAnswered:
    return ProbeAnswered(result, Expected(model))


MISSED, SILENT = ProbeFailed("refused"), ProbeSilent("silent")
LOST = GenerationFailed(HealthEvent.LOST, "reset")
REFUSED = GenerationFailed(HealthEvent.CREDENTIAL, "401")
EMPTY = GenerationFailed(HealthEvent.NO_MODEL, "empty")
OK, WORKS = answered(), answered(BUSY)
STALLED, DONE = GenerationFailed(HealthEvent.STALLED, "no token"), GenerationSucceeded()


NOT_YET, PUT_OFF = ProbeNotYet("answered 503"), ProbePutOff("answered 429", Expected())


def failed(event: str) -> GenerationFailed:
    return GenerationFailed(HealthEvent.FAILED, "answered 500", event)


@pytest.mark.parametrize(
    ("events", "state"),
    [
        pytest.param([OK], S.READY, id="the first answer is believed"),
        pytest.param([MISSED], S.DOWN, id="the first refusal is believed"),
        pytest.param([OK, MISSED, MISSED], S.READY, id="misses below fall"),
        pytest.param([OK, MISSED, MISSED, MISSED], S.DOWN, id="fall misses"),
        pytest.param([OK, MISSED, MISSED, OK, MISSED, MISSED], S.READY, id="the count starts anew"),
        pytest.param([OK, SILENT], S.DOWN, id="silence counts at once"),
        pytest.param([OK, LOST], S.DOWN, id="a lost connection counts at once"),
        pytest.param([OK, LOST, OK], S.DOWN, id="answers below rise"),
        pytest.param([OK, LOST, OK, OK], S.READY, id="rise answers"),
        pytest.param([OK, LOST, OK, MISSED, OK], S.DOWN, id="rise has to be in a row"),
        pytest.param([NOT_YET], S.LOADING, id="a server that loads is not down"),
        pytest.param([NOT_YET, OK], S.READY, id="and is used as soon as it answers"),
        pytest.param([MISSED, NOT_YET], S.LOADING, id="it comes up"),
        pytest.param([OK, NOT_YET, NOT_YET], S.READY, id="overloaded for a moment"),
        pytest.param([OK, NOT_YET, NOT_YET, NOT_YET], S.LOADING, id="overloaded for long"),
        pytest.param([OK, STALLED, NOT_YET], S.STUCK, id="a hold is kept, whatever it says"),
        pytest.param([PUT_OFF], S.BUSY, id="put off is not down"),
        pytest.param([OK, *[PUT_OFF] * 9], S.BUSY, id="put off for long"),
        pytest.param([MISSED, PUT_OFF], S.DOWN, id="put off below rise"),
        pytest.param([MISSED, PUT_OFF, PUT_OFF], S.BUSY, id="put off rise times"),
        pytest.param([OK, STALLED, PUT_OFF], S.STUCK, id="put off says nothing of what hangs"),
        pytest.param(
            [ProbePutOff("answered 429", Expected("m"))], S.WRONG_MODEL, id="model not told"
        ),
        pytest.param(
            [OK, ProbePutOff("answered 429", Expected("koboldcpp/m"))], S.BUSY, id="model known"
        ),
        pytest.param([OK, WORKS], S.BUSY, id="busy is not down"),
        pytest.param([WORKS, OK], S.READY, id="and ends"),
        pytest.param([OK, REFUSED], S.UNAUTHORISED, id="credential refused"),
        pytest.param([OK, EMPTY], S.WRONG_MODEL, id="empty text"),
        pytest.param([OK, EMPTY, OK], S.READY, id="model back: at once"),
        pytest.param([OK, failed("a"), failed("b")], S.READY, id="failures below fall"),
        pytest.param([OK, failed("a"), failed("b"), failed("c")], S.DOWN, id="fall failures"),
        pytest.param([OK, *[failed("a")] * 9], S.READY, id="one event counts once"),
        pytest.param(
            [OK, failed("a"), failed("b"), DONE, failed("c")], S.READY, id="a completion clears"
        ),
        pytest.param([OK, STALLED], S.STUCK, id="a stall counts at once"),
        pytest.param([OK, STALLED, WORKS, WORKS], S.STUCK, id="stuck, and still generates"),
        pytest.param([OK, STALLED, DONE], S.READY, id="stuck, and then a completion"),
        pytest.param([OK, STALLED, LOST], S.DOWN, id="stuck, and then dead"),
        pytest.param([OK, SILENT, STALLED], S.DOWN, id="silent, and a stall found later"),
    ],
)
def test_the_state_after_a_row_of_health_events(
    events: list[HealthInput], state: HealthState
) -> None:
    assert seen(Health(), *events).state is state


def test_a_stuck_server_is_used_again_once_it_shows_progress_and_its_hold_is_over() -> None:
    stuck = seen(Health(), OK, STALLED, now=10)
    assert stuck.held_until == 12
    assert seen(stuck, OK, now=11).state is S.STUCK
    assert seen(stuck, OK, now=12).state is S.READY
    one_more = answered(replace(BUSY, generations=6))
    assert seen(stuck, WORKS, now=60).state is S.STUCK
    assert seen(stuck, one_more, now=60).state is S.BUSY


def test_the_hold_grows_with_each_setback_until_a_completion() -> None:
    health, holds = seen(Health(), OK), []
    for now in (100, 200, 300, 400, 500, 600):
        health = seen(health, STALLED, now=now)
        assert health.held_until is not None
        holds.append(health.held_until - now)
        health = seen(health, OK, now=now + 99)
        assert health.usable
    assert holds == [2, 4, 8, 16, 30, 30]
    assert seen(health, DONE, STALLED, now=700).held_until == 702


def test_a_server_that_fails_at_every_event_is_tried_again_after_its_hold() -> None:
    health = seen(Health(), OK, failed("a"), failed("b"), failed("c"), now=10)
    assert health.reason == "failed at 3 events in a row; the last: answered 500"
    held = seen(health, OK, now=11)
    assert (held.state, held.reason) == (S.DOWN, health.reason)
    assert seen(health, OK, OK, OK, now=11).state is S.DOWN
    again = seen(health, OK, OK, now=12)
    assert again.usable
    assert seen(again, failed("d"), now=12).held_until == 16
    assert seen(again, DONE).failed_events == frozenset()


def test_no_more_failed_events_are_remembered_than_are_needed() -> None:
    health = seen(Health(), OK)
    for number in range(1000):
        health = seen(health, failed(str(number)))
    assert len(health.failed_events) == 3
    assert health.state is S.DOWN


@pytest.mark.parametrize(
    "result", [replace(WELL, uptime_seconds=1), replace(WELL, uptime_seconds=None, generations=0)]
)
def test_a_restart_is_noticed_and_clears_what_the_old_process_did(result: ProbeResult) -> None:
    health = seen(Health(), OK, now=1)
    assert health.usable_since == 1
    health = seen(health, STALLED, answered(result), now=9)
    assert (health.state, health.restarts, health.setbacks) == (S.READY, 1, 0)
    assert health.usable_since == 9


def test_a_restart_between_two_probes_starts_the_time_of_being_usable_anew() -> None:
    health = seen(seen(Health(), OK, now=1), answered(replace(WELL, uptime_seconds=0.1)), now=9)
    assert (health.state, health.usable_since, health.restarts) == (S.READY, 9, 1)


def test_busy_does_not_end_the_time_of_being_usable() -> None:
    health = seen(seen(Health(), OK, now=1), WORKS, now=7)
    assert (health.state, health.since, health.usable_since) == (S.BUSY, 7, 1)


def test_probes_come_faster_while_the_state_is_in_doubt() -> None:
    assert Health().in_transition
    well = seen(Health(), OK)
    assert not well.in_transition
    assert seen(well, MISSED).in_transition
    assert seen(well, STALLED).in_transition


@pytest.mark.parametrize(
    ("result", "expected", "problem"),
    [
        (ProbeResult(None, has_model=False), Expected(), "has no model loaded"),
        (ProbeResult(None, has_model=False), Expected("a"), "has no model loaded"),
        (ProbeResult("b"), Expected("a"), "serves the model 'b', not 'a'"),
        (ProbeResult("a"), Expected("a"), None),
        (
            ProbeResult(None, credential_accepted=False),
            Expected(),
            "does not accept the configured password, so its model cannot be checked",
        ),
        (
            ProbeResult("koboldcpp/b"),
            Expected(like="koboldcpp/a", of="p"),
            (
                "serves the model 'koboldcpp/b', but the primary p 'koboldcpp/a'; "
                "if that is wanted, set this server's `model`"
            ),
        ),
        (ProbeResult("/models/A.gguf"), Expected(like="koboldcpp/a", of="p"), None),
        (
            ProbeResult("a", 2048),
            Expected(like="a", least_context_tokens=4096, of="p"),
            "has a context of 2048 tokens, less than the 4096 of the primary p",
        ),
        (
            ProbeResult("a", 2048),
            Expected(least_context_tokens=4096),
            "has a context of 2048 tokens, less than the 4096 of `context_tokens`",
        ),
        (ProbeResult("a", 8192), Expected(like="a", least_context_tokens=4096, of="p"), None),
        (ProbeResult("a", None), Expected(least_context_tokens=4096), None),
    ],
)
def test_what_a_server_is_decides_whether_it_is_used(
    result: ProbeResult, expected: Expected, problem: str | None
) -> None:
    assert problem_of(result, expected) == problem
    health = after(seen(Health(), OK), ProbeAnswered(result, expected), rules=RULES, now=1)
    assert health.usable is (problem is None)
    if problem is not None:
        state = S.WRONG_MODEL if result.credential_accepted else S.UNAUTHORISED
        assert (health.state, health.reason, health.usable_since) == (state, problem, None)
        assert health.identity == Identity("koboldcpp/m")


@pytest.mark.parametrize(
    ("role", "model", "context", "match", "expected"),
    [
        (BackendRole.STANDBY, None, 0, True, Expected(None, "m", 2048, "p")),
        (BackendRole.STANDBY, None, 512, True, Expected(None, "m", 512, "p")),
        (BackendRole.STANDBY, "other", 0, True, Expected("other")),
        (BackendRole.STANDBY, None, 0, False, Expected()),
        (BackendRole.PRIMARY, None, 0, True, Expected()),
        (BackendRole.PRIMARY, "own", 99, True, Expected("own", None, 99)),
    ],
)
def test_a_standby_has_to_be_like_the_primary_unless_the_conf_file_says_otherwise(
    role: BackendRole, model: str | None, context: int, match: bool, expected: Expected
) -> None:
    server = ServerConfig(
        name="s", url="http://127.0.0.1:2", role=role, model=model, context_tokens=context
    )
    primaries = [("not seen yet", Identity()), ("p", Identity("m", 2048))]
    assert expected_of(server, primaries, match_primary=match) == expected


@pytest.mark.parametrize(
    ("observation", "kind"),
    [
        (Observation(Seen.STATUS, status=429), ProbePutOff),
        (Observation(Seen.STATUS, status=529), ProbePutOff),
        (Observation(Seen.STATUS, status=503), ProbeNotYet),
        (Observation(Seen.STATUS, status=500), ProbeFailed),
        (Observation(Seen.STATUS, status=408), ProbeFailed),
        (Observation(Seen.NOT_JSON), ProbeFailed),
        (Observation(Seen.NO_REPLY), ProbeSilent),
    ],
)
def test_what_a_probe_met_is_the_health_event_it_gives(
    observation: Observation, kind: type[HealthInput]
) -> None:
    error = classify("p", observation)
    assert isinstance(health_event_of_probe(error, Expected(), NOTHING_TOLD), kind)


def test_a_router_without_a_server_behind_it_loads_or_reloads() -> None:
    error = classify("p", Observation(Seen.STATUS, status=502))
    away = health_event_of_probe(error, Expected(), ROUTER)
    unloaded = seen(Health(), OK, answered(UNLOADED))
    assert (unloaded.state, unloaded.usable) == (S.UNLOADED, True)
    assert seen(unloaded, away).state is S.LOADING
    assert seen(unloaded, away, away).state is S.LOADING
    reloading = seen(Health(), OK, away)
    assert (reloading.state, reloading.usable) == (S.RELOADING, False)
    assert seen(reloading, OK).state is S.READY


def test_a_router_is_awaited_while_its_model_goes_and_comes_and_that_is_no_restart() -> None:
    error = classify("p", Observation(Seen.STATUS, status=502))
    away = health_event_of_probe(error, Expected(), ROUTER, load_seconds=60)
    loaded = seen(Health(), answered(LOADED), now=1)
    going = seen(loaded, away, away, away, now=10)
    assert (going.state, going.usable, going.usable_since) == (S.RELOADING, False, 1)
    assert (going.usable_soon(14), going.usable_soon(10 + AWAY_SECONDS)) == (True, False)
    late = seen(going, away, now=20)
    assert (late.usable_soon(20), late.usable_since) == (False, None), "asked again, not longer"
    gone = seen(going, answered(UNLOADED), now=12)
    assert (gone.state, gone.usable_since, gone.restarts) == (S.UNLOADED, 1, 0)
    coming = seen(gone, away, away, away, now=100)
    assert (coming.state, coming.usable, coming.usable_since) == (S.LOADING, False, 1)
    assert (coming.usable_soon(159), coming.usable_soon(160)) == (True, False)
    back = seen(coming, answered(replace(LOADED, uptime_seconds=0)), now=150)
    assert (back.state, back.usable_since, back.restarts) == (S.READY, 1, 0)
    assert seen(back, away, LOST, now=160).usable_soon(160) is False


def test_a_server_that_may_load_a_model_is_not_said_to_be_dead_when_its_port_is_closed() -> None:
    refused = classify("p", Observation(Seen.UNREACHABLE))
    for features, more in ((("admin",), True), (("admin", "router"), False), ((), False)):
        event = health_event_of_probe(refused, Expected(), Software(features=features))
        assert isinstance(event, ProbeFailed)
        assert ("it may be loading or unloading its model" in event.reason) is more


def test_a_generation_cut_by_a_reload_says_that_the_server_reloads() -> None:
    cut = GenerationFailed(HealthEvent.RELOADING, "cut")
    assert seen(Health(), OK, cut).state is S.RELOADING
    assert seen(Health(), OK, cut, MISSED, MISSED).state is S.RELOADING
    assert seen(Health(), OK, cut, MISSED, MISSED, MISSED).state is S.DOWN


def test_an_unloaded_server_is_used_whatever_model_it_should_have() -> None:
    assert problem_of(UNLOADED, Expected("a")) is None
