"""Settings that are valid each for itself and do not go well together are named at the start."""

from __future__ import annotations

import pytest

from ai_ticket_daemon.config.check import warnings
from ai_ticket_daemon.config.read.load import load_config

MIB = 2**20


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        ({}, []),
        ({"http.max_memory_bytes": 16 * MIB}, ["events.max_batch_bytes"]),
        ({"http.max_memory_bytes": MIB}, ["http.max_body_bytes", "events.max_batch_bytes"]),
        ({"http.max_body_bytes": 100 * MIB}, ["http.max_body_bytes"]),
        ({"events.max_batch_bytes": 64 * MIB}, []),
    ],
)
def test_memory_that_cannot_hold_the_largest_request_is_told(
    settings: dict[str, object], keys: list[str]
) -> None:
    config = load_config(None, {"KOBOLDCPP_API_URL": "http://127.0.0.1:5001"}, settings)
    told = [line for line in warnings(config) if line.startswith("http.max_memory_bytes")]
    assert len(told) == len(keys)
    assert all(key in line for key, line in zip(keys, told, strict=True))
