from __future__ import annotations

import pytest

from ai_ticket_daemon.backends.generation import ProbeResult
from ai_ticket_daemon.backends.health import (
    Health,
    HealthState,
    after_failed_probe,
    after_lost_connection,
    after_probe,
)
from ai_ticket_daemon.config.backends import BackendsConfig, ServerConfig

RULES = BackendsConfig(servers=(ServerConfig(name="p", url="http://127.0.0.1:1"),), rise=2, fall=3)
WELL = ProbeResult(model="koboldcpp/m", busy=False)


def probed(health: Health, result: ProbeResult = WELL, now: float = 0, model: str = "") -> Health:
    return after_probe(health, result, expected_model=model or None, rules=RULES, now=now)


def missed(health: Health, now: float = 0) -> Health:
    return after_failed_probe(health, "silent", rules=RULES, now=now)


def test_a_server_never_seen_is_believed_at_its_first_answer() -> None:
    assert probed(Health()).state is HealthState.READY


def test_a_server_never_seen_is_down_at_its_first_silence() -> None:
    assert missed(Health()).state is HealthState.DOWN


def test_a_server_that_was_well_is_down_after_as_many_misses_as_fall_says() -> None:
    health = probed(Health())
    states = []
    for _ in range(3):
        health = missed(health)
        states.append(health.state)
    assert states == [HealthState.READY, HealthState.READY, HealthState.DOWN]
    assert health.reason == "silent"


def test_one_answer_between_misses_starts_the_count_anew() -> None:
    health = missed(missed(probed(Health())))
    assert missed(missed(probed(health))).usable


def test_a_server_that_was_down_is_used_after_as_many_answers_as_rise_says() -> None:
    health = probed(missed(Health()))
    assert health.state is HealthState.DOWN
    assert health.reason == "answers again, 1 of 2 probes"
    assert probed(health).state is HealthState.READY


def test_a_lost_connection_counts_at_once() -> None:
    health = after_lost_connection(probed(Health()), "refused", now=5)
    assert (health.state, health.reason, health.since) == (HealthState.DOWN, "refused", 5)


def test_busy_is_usable_and_does_not_end_the_time_of_being_usable() -> None:
    health = probed(Health(), now=1)
    health = probed(health, ProbeResult(model="koboldcpp/m", busy=True), now=7)
    assert health.state is HealthState.BUSY
    assert health.since == 7
    assert health.usable_since == 1


@pytest.mark.parametrize(
    ("result", "expected", "reason"),
    [
        (ProbeResult(model="inactive"), "", "has no model loaded"),
        (ProbeResult(model="koboldcpp/inactive"), "", "has no model loaded"),
        (ProbeResult(model="b"), "a", "serves the model 'b', not 'a'"),
        (
            ProbeResult(model="koboldcpp/koboldcpp", credential_accepted=False),
            "",
            "does not accept the configured password, so its model cannot be checked",
        ),
    ],
)
def test_a_server_with_the_wrong_model_is_not_used(
    result: ProbeResult, expected: str, reason: str
) -> None:
    health = probed(probed(Health()), result, model=expected)
    assert health.state is HealthState.WRONG_MODEL
    assert health.reason == reason
    assert not health.usable
    assert health.usable_since is None


def test_the_expected_model_is_ready() -> None:
    assert probed(Health(), ProbeResult(model="a"), model="a").usable


def test_probes_come_faster_while_the_state_is_in_doubt() -> None:
    assert Health().in_transition
    well = probed(Health())
    assert not well.in_transition
    assert missed(well).in_transition
    assert missed(Health()).in_transition
