from __future__ import annotations

from dataclasses import replace

import pytest

from ai_ticket_daemon.config.backends import BackendRole, BackendsConfig, Failback, ServerConfig
from ai_ticket_daemon.pool.failover import (
    MAX_SWITCHES,
    ActiveRole,
    Roles,
    SwitchReason,
    choose_role,
    fail_back,
    hold_down_seconds,
    pin,
    unpin,
)

RULES = BackendsConfig(
    servers=(ServerConfig(name="p", url="http://127.0.0.1:1"),), failback_after_seconds=30
)
MANUAL = replace(RULES, failback=Failback.MANUAL)
P, S, R = BackendRole.PRIMARY, BackendRole.STANDBY, SwitchReason
NOW = 1000.0
RECENT = tuple(NOW - 10 - n for n in range(MAX_SWITCHES))


def roles(
    primary_since: float | None,
    standby: bool,
    *,
    unknown: bool = False,
    exists: bool = True,
    awaited: bool = False,
    loads: bool = False,
) -> Roles:
    return Roles(primary_since, unknown, standby, exists, "p is down", awaited, loads)


@pytest.mark.parametrize(
    ("active", "known", "rules", "expected"),
    [
        pytest.param(ActiveRole(P), roles(0, True), RULES, None, id="all is well"),
        pytest.param(ActiveRole(P), roles(None, True), RULES, R.PRIMARY_UNUSABLE, id="failover"),
        pytest.param(ActiveRole(P), roles(None, False), RULES, None, id="nothing usable: stay"),
        pytest.param(ActiveRole(P), roles(None, True, unknown=True), RULES, None, id="not looked"),
        pytest.param(ActiveRole(P), roles(None, True, awaited=True), RULES, None, id="awaited"),
        pytest.param(ActiveRole(S), roles(None, True, awaited=True), RULES, None, id="not yet"),
        pytest.param(
            ActiveRole(P, switched_at=RECENT), roles(None, True), RULES, None, id="too many"
        ),
        pytest.param(
            ActiveRole(P, switched_at=RECENT[1:]),
            roles(None, True),
            RULES,
            R.PRIMARY_UNUSABLE,
            id="one is left",
        ),
        pytest.param(
            ActiveRole(P, switched_at=tuple(at - 60 for at in RECENT)),
            roles(None, True),
            RULES,
            R.PRIMARY_UNUSABLE,
            id="they are long past",
        ),
        pytest.param(ActiveRole(S), roles(None, True), RULES, None, id="primary still down"),
        pytest.param(ActiveRole(S), roles(NOW - 29, True), RULES, None, id="back, not for long"),
        pytest.param(ActiveRole(S), roles(NOW - 30, True), RULES, R.PRIMARY_STEADY, id="failback"),
        pytest.param(
            ActiveRole(S, switched_at=RECENT[1:]),
            roles(NOW - 30, True),
            RULES,
            None,
            id="the last switch is kept for a need",
        ),
        pytest.param(
            ActiveRole(S, relapses=1), roles(NOW - 59, True), RULES, None, id="relapsed once"
        ),
        pytest.param(
            ActiveRole(S, relapses=1),
            roles(NOW - 60, True),
            RULES,
            R.PRIMARY_STEADY,
            id="relapsed once, steady for twice the time",
        ),
        pytest.param(ActiveRole(S), roles(0, True), MANUAL, None, id="manual: stay"),
        pytest.param(
            ActiveRole(S), roles(NOW, False), RULES, R.STANDBY_UNUSABLE, id="standby lost"
        ),
        pytest.param(
            ActiveRole(S), roles(NOW, False), MANUAL, R.STANDBY_UNUSABLE, id="although manual"
        ),
        pytest.param(
            ActiveRole(S, switched_at=RECENT), roles(NOW, False), RULES, None, id="too many, again"
        ),
        pytest.param(ActiveRole(S), roles(None, False), RULES, None, id="both lost: stay"),
        pytest.param(
            ActiveRole(S),
            roles(None, False, exists=False),
            RULES,
            R.NO_STANDBY,
            id="the standby was taken out",
        ),
        pytest.param(
            ActiveRole(S, pinned="s"), roles(0, False), RULES, None, id="pinned, for better"
        ),
        pytest.param(
            ActiveRole(P, pinned="p"), roles(None, True), RULES, None, id="pinned, for worse"
        ),
    ],
)
def test_the_role_that_serves(
    active: ActiveRole, known: Roles, rules: BackendsConfig, expected: SwitchReason | None
) -> None:
    chosen = choose_role(active, known, rules=rules, now=NOW)
    if expected is None:
        assert chosen is active
    else:
        assert chosen.role is not active.role
        assert chosen.reason is expected
        assert chosen.switched_at[-1] == chosen.since == NOW


def test_the_reason_for_a_standby_is_stated() -> None:
    chosen = choose_role(ActiveRole(), roles(None, True), rules=RULES, now=NOW)
    assert chosen.detail == "no primary is usable: p is down"


def test_a_primary_that_fails_again_soon_after_failback_waits_longer_each_time() -> None:
    active, now, holds = ActiveRole(), 0.0, []
    for _ in range(9):
        active = choose_role(active, roles(None, True), rules=RULES, now=now)
        assert active.role is S
        holds.append(hold_down_seconds(active, RULES))
        now += holds[-1]
        active = choose_role(active, roles(now - holds[-1], True), rules=RULES, now=now)
        assert active.role is P
        now += 5
    assert holds == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_a_primary_that_was_well_for_long_starts_over() -> None:
    active = ActiveRole(P, relapses=3, returned_at=0.0)
    soon = choose_role(active, roles(None, True), rules=RULES, now=2399)
    late = choose_role(active, roles(None, True), rules=RULES, now=2400)
    assert (soon.relapses, late.relapses) == (4, 0)


def test_a_model_that_is_away_for_long_is_neither_a_relapse_nor_a_failure() -> None:
    for returned_at in (NOW - 1, NOW - 99_999):
        active = ActiveRole(P, relapses=3, returned_at=returned_at)
        chosen = choose_role(active, roles(None, True, loads=True), rules=RULES, now=NOW)
        assert (chosen.role, chosen.relapses) == (S, 3)


def test_a_pin_switches_at_once_and_holds_until_it_is_taken_off() -> None:
    pinned = pin(ActiveRole(switched_at=RECENT), "s", S, now=NOW)
    assert (pinned.role, pinned.pinned, pinned.reason) == (S, "s", R.PINNED)
    assert choose_role(pinned, roles(0, True), rules=RULES, now=NOW + 999) is pinned
    free = unpin(pinned)
    assert free.role is S
    back = choose_role(free, roles(0, True), rules=RULES, now=NOW + 999)
    assert (back.role, back.reason) == (P, R.PRIMARY_STEADY)


def test_the_operator_can_ask_for_the_primary_before_the_hold_down_is_over() -> None:
    back = fail_back(ActiveRole(S, relapses=4), now=NOW)
    assert (back.role, back.reason, back.relapses, back.returned_at) == (P, R.ASKED_BACK, 0, NOW)
