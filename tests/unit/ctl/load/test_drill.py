from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ai_ticket_daemon.ctl.client import Refused
from ai_ticket_daemon.ctl.load.drill import guard, kept_at


def server(name: str, role: str, *, usable: bool = True) -> dict[str, Any]:
    return {"name": name, "role": role, "usable": usable}


WELL: dict[str, Any] = {
    "serving": {"pinned": None, "role": "primary"},
    "severed": {"servers": []},
    "draining": False,
    "paused": False,
    "backends": [server("a", "primary"), server("b", "standby"), server("c", "standby")],
}


def test_a_daemon_that_is_well_may_be_drilled_with_its_first_standby() -> None:
    assert guard(WELL) == "b"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"serving": {"pinned": "a", "role": "primary"}}, "a server is pinned already"),
        ({"serving": {"pinned": None, "role": "standby"}}, "the standby serves already"),
        ({"severed": {"servers": ["a"]}}, "servers are isolated already"),
        ({"draining": True}, "the daemon drains"),
        ({"paused": True}, "the daemon is paused"),
        ({"backends": [server("a", "primary")]}, "no standby is usable"),
        ({"backends": [server("a", "primary", usable=False), server("b", "standby")]},
         "no primary is usable"),
    ],
)  # fmt: skip
def test_a_daemon_that_is_not_is_left_alone(change: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        guard(WELL | change)


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"HOME": "/home/jo"}, "/home/jo/.local/state"),
        ({"HOME": "/home/jo", "XDG_STATE_HOME": "/state"}, "/state"),
    ],
)
def test_a_report_is_kept_in_the_state_directory(environ: dict[str, str], folder: str) -> None:
    name = "drill-failover-20261125T220404Z.json"
    assert kept_at(1795644244.0, environ) == Path(folder, "ai-ticket", name)
