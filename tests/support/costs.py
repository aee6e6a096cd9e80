"""What each file of tests costs: the time of the processors, told at the end of a run.

Of two processors the sum is what bounds the run, however many processes share the tests.
"""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from tests.support.system.container import containers_seconds

if TYPE_CHECKING:
    from collections.abc import Generator

    from _pytest.terminal import TerminalReporter

NAME = "processor_seconds"
MOST = 20


class Costs:
    """Notes with each report how long processors worked for it, and sums that up."""

    def __init__(self) -> None:
        self._before = processor_seconds()

    def pytest_collection_finish(self) -> None:
        self._before = processor_seconds()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self,
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        before, self._before = self._before, processor_seconds()
        report.user_properties.append((NAME, self._before - before))
        return report

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        reports = [report for some in terminalreporter.stats.values() for report in some]
        lines = summary([report for report in reports if isinstance(report, pytest.TestReport)])
        if terminalreporter.config.getoption("durations") is not None:
            terminalreporter.section(f"processor time of the costliest {MOST} files")
            for line in lines:
                terminalreporter.write_line(line)


def processor_seconds() -> float:
    """Return how long processors have worked for this process, its containers, and its children.

    Children count when they have been waited for. So does a container when it ends: from then on
    its group is gone, and what it computed is a child's.
    """
    return sum(os.times()[:4]) + containers_seconds()


def summary(reports: list[pytest.TestReport]) -> list[str]:
    """Return a line for each of the costliest files, and one for all."""
    costs: dict[str, float] = defaultdict(float)
    lasted: dict[str, float] = defaultdict(float)
    for report in reports:
        file = report.nodeid.partition("::")[0]
        costs[file] += cost_of(report)
        lasted[file] += report.duration
    found = sorted(((costs[file], lasted[file], file) for file in costs), reverse=True)[:MOST]
    found.append((sum(costs.values()), sum(lasted.values()), "all"))
    return [f"{cost:6.1f} s of {seconds:6.1f} s  {file}" for cost, seconds, file in found]


def cost_of(report: pytest.TestReport) -> float:
    """Return what was noted with a report; nothing was, if its process ended early."""
    return next((float(str(cost)) for name, cost in report.user_properties if name == NAME), 0.0)
