"""What a server says of itself, also where it makes no sense."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ai_ticket_daemon.backends.kobold.perf import parse_perf

SAYS: dict[str, Any] = {
    "idle": 1, "queue": 0, "total_gens": 1, "last_token_count": 4, "uptime": 5, "idletime": 2,
    "last_process": 1.5, "last_eval": 20,
}  # fmt: skip
ODD = [
    10**400,
    -(10**400),
    2.0**70,
    -1,
    1e-308,
    5e-324,
    float("inf"),
    float("nan"),
    True,
    "2",
    None,
]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("field", ["idletime", "last_process", "last_eval", "stop_reason"])
def test_an_odd_figure_beside_those_that_count_is_not_known(field: str, odd: object) -> None:
    perf = parse_perf(SAYS | {field: odd})

    assert 0 <= perf.lock_age_seconds <= 2
    for speed in (perf.prompt_tokens_per_second, perf.written_tokens_per_second):
        assert speed is None or math.isfinite(speed)
