from __future__ import annotations

from dataclasses import replace

import pytest

from ai_ticket_daemon.backends.switch import ActiveRole, choose_role
from ai_ticket_daemon.config.backends import (
    BackendRole,
    BackendsConfig,
    Failback,
    ServerConfig,
)

RULES = BackendsConfig(
    servers=(ServerConfig(name="p", url="http://127.0.0.1:1"),), failback_after_seconds=30
)
MANUAL = replace(RULES, failback=Failback.MANUAL)
P, S = BackendRole.PRIMARY, BackendRole.STANDBY


@pytest.mark.parametrize(
    ("serves", "primary_since", "unknown", "standby", "rules", "expected"),
    [
        pytest.param(P, 0.0, False, True, RULES, P, id="all is well"),
        pytest.param(P, None, False, True, RULES, S, id="failover"),
        pytest.param(P, None, False, False, RULES, P, id="nothing usable: stay"),
        pytest.param(P, None, True, True, RULES, P, id="primary not looked at yet: stay"),
        pytest.param(S, None, False, True, RULES, S, id="primary still down"),
        pytest.param(S, 80.0, False, True, RULES, S, id="primary back, not for long"),
        pytest.param(S, 70.0, False, True, RULES, P, id="failback after 30 s"),
        pytest.param(S, 0.0, False, True, MANUAL, S, id="manual failback: stay"),
        pytest.param(S, 99.0, False, False, RULES, P, id="standby lost, primary usable"),
        pytest.param(S, 99.0, False, False, MANUAL, P, id="standby lost, although manual"),
        pytest.param(S, None, False, False, RULES, S, id="both lost: stay"),
    ],
)
def test_the_role_that_serves(
    serves: BackendRole,
    primary_since: float | None,
    unknown: bool,
    standby: bool,
    rules: BackendsConfig,
    expected: BackendRole,
) -> None:
    current = ActiveRole(serves, "before")
    chosen = choose_role(
        current,
        primary_usable_since=primary_since,
        primary_unknown=unknown,
        standby_usable=standby,
        rules=rules,
        now=100.0,
    )
    assert chosen.role is expected
    if expected is serves:
        assert chosen is current
    else:
        assert chosen.reason != "before"
