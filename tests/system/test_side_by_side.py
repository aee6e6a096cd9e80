"""The order of the tests when several processes share them, and what they cost."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.project import ROOT
from tests.support.side_by_side import HOST, ON_THE_HOST, SECONDS, group, place, unknown_files
from tests.support.system.container import containers_seconds

if TYPE_CHECKING:
    from pathlib import Path


def test_every_file_that_is_named_exists() -> None:
    assert unknown_files(lambda file: (ROOT / file).is_file()) == []
    assert unknown_files(lambda file: file not in ON_THE_HOST) == sorted(ON_THE_HOST)


def test_tests_that_share_something_go_to_one_process() -> None:
    groups = {group(f"{file}::test_it") for file in ON_THE_HOST}
    assert groups == {HOST}
    assert group("tests/unit/test_clock.py::test_a[x::y]") == "tests/unit/test_clock.py"


def test_long_tests_that_share_nothing_go_to_whoever_is_free() -> None:
    first, second = (f"tests/attacks/test_fuzz_http.py::test_{name}" for name in "ab")
    assert group(first) != group(second)


def test_the_longest_begin_first_and_the_real_process_before_the_rest() -> None:
    [host, *_] = ON_THE_HOST
    long = [file for file in SECONDS if file != HOST]
    files = ["tests/unit/a.py", "tests/system/b.py", *sorted(long), host]

    files.sort(key=lambda file: place(f"{file}::test_it", system="system" in file))

    assert files[0] == host
    assert files[-2:] == ["tests/system/b.py", "tests/unit/a.py"]
    known = [SECONDS[file] for file in files[1:-2]]
    assert known == sorted(known, reverse=True)


@pytest.mark.parametrize(
    ("group", "file", "text"),
    [
        ("cpuacct/ai-ticket-test-{}-service", "cpuacct.usage", "2500000000\n"),
        ("ai-ticket-test-{}-service", "cpu.stat", "usage_usec 2500000\nuser_usec 1\n"),
    ],
)
def test_what_a_container_computes_counts_while_it_runs(
    tmp_path: Path, group: str, file: str, text: str
) -> None:
    assert containers_seconds(tmp_path) == 0
    for owner in (os.getpid(), os.getpid() + 1):  # the other process tells its own
        folder = tmp_path / group.format(owner)
        folder.mkdir(parents=True)
        (folder / file).write_text(text)

    assert containers_seconds(tmp_path) == 2.5
