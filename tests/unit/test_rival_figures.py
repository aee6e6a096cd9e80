"""The figures of ``tests/benchmarks/test_rivals.py``: read, gathered and compared."""

from __future__ import annotations

import pytest

from tests.benchmarks.rivals.load import NothingAnswered, read_figures
from tests.benchmarks.rivals.tables import Table

WRK = """
Running 2s test @ http://127.0.0.1:1/event
Requests/sec:    500.00

{"requests": 1000, "seconds": 2.000000, "refused": %d, "broken": 0, "p50_ms": 1.5, "p99_ms": 9.0}
"""


def test_what_wrk_found_is_read_from_its_last_line() -> None:
    rate = read_figures(WRK % 0, "ours", cpu_seconds=0.5)
    assert (rate.per_second, rate.p50_ms, rate.cpu_ms) == (500, 1.5, 0.5)


def test_refusals_are_no_figures() -> None:
    with pytest.raises(NothingAnswered, match="ours"):
        read_figures(WRK % 1, "ours", cpu_seconds=0.5)


def test_a_figure_is_the_median_of_its_rounds_and_a_ratio_is_of_one_round() -> None:
    table = Table("rate", {"requests/s": 0})
    for ours, theirs in ((300, 100), (1200, 300), (500, 250)):
        table.note("ours", ours)
        table.note("theirs", theirs)
    assert table.ratios("ours", "theirs", "requests/s") == [3, 4, 2]
    assert str(table).splitlines() == [
        "| rate | requests/s |",
        "|---|---:|",
        "| ours | 500 (300-1,200) |",
        "| theirs | 250 (100-300) |",
    ]


def test_nobody_is_compared_with_one_who_missed_a_round() -> None:
    table = Table("rate", {"requests/s": 0})
    table.note("ours", 300)
    table.note("ours", 300)
    table.note("theirs", 100)
    assert table.ratios("ours", "theirs", "requests/s") == []
    assert table.ratios("ours", "nobody", "requests/s") == []
