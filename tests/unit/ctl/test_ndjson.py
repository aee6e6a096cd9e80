from __future__ import annotations

import json
import os
import threading
import tracemalloc
from typing import IO, TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_ticket_daemon.ctl import ndjson
from ai_ticket_daemon.ctl.ndjson import BadLine, Line, windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def file_of(tmp_path: Path) -> Iterator[Callable[[bytes], IO[bytes]]]:
    opened: list[IO[bytes]] = []

    def make(content: bytes) -> IO[bytes]:
        path = tmp_path / f"{len(opened)}.ndjson"
        path.write_bytes(content)
        opened.append(path.open("rb"))
        return opened[-1]

    yield make
    for file in opened:
        file.close()


def all_of(file: IO[bytes]) -> list[Line | BadLine]:
    found: list[Line | BadLine] = []
    for window in windows(file, {}):
        found += [*window.lines, *window.bad]
    return sorted(found, key=lambda line: line.number)


def test_wishes_go_over_what_a_line_says(file_of: Callable[[bytes], IO[bytes]]) -> None:
    [window] = windows(file_of(b'{"content": "a", "priority": 9}'), {"priority": 1})
    assert json.loads(window.lines[0].event) == {"content": "a", "priority": 1}


def test_one_bad_line_is_told_by_its_number_and_others_go_through(
    file_of: Callable[[bytes], IO[bytes]],
) -> None:
    content = b'{"content": 1}\n\nnonsense\n[1]\n\xff\xfe\n{"content": 2}\n' + b"[" * 20_000
    [window] = windows(file_of(content), {})
    assert [line.number for line in window.lines] == [1, 6]
    assert [(bad.number, bad.reason.partition(":")[0]) for bad in window.bad] == [
        (3, "no JSON"),
        (4, "no JSON object"),
        (5, "no JSON"),
        (7, "no JSON"),
    ]


def test_a_line_too_long_is_skipped_in_bounded_memory(
    file_of: Callable[[bytes], IO[bytes]],
) -> None:
    long = 20 * ndjson.MAX_LINE_BYTES
    file = file_of(b'{"content": 1}\n' + b"x" * long + b'\n{"content": 2}\n' + b"y" * long)
    tracemalloc.start()
    first, bad, last, tail = all_of(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (first.number, last.number) == (1, 3)
    assert isinstance(bad, BadLine)
    assert isinstance(tail, BadLine)
    assert (bad.number, bad.size, tail.number) == (2, long + 1, 4)
    assert peak < 4 * ndjson.MAX_LINE_BYTES


def test_windows_are_bounded_by_number_and_by_size(file_of: Callable[[bytes], IO[bytes]]) -> None:
    many = list(windows(file_of(b'{"content": 1}\n' * 450), {}))
    assert [len(window.lines) for window in many] == [200, 200, 50]
    large = b'{"content": "%s"}\n' % (b"x" * 400_000)
    assert [len(window.lines) for window in windows(file_of(large * 7), {})] == [3, 3, 1]


def test_what_comes_slowly_does_not_wait_for_what_follows() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file:
        os.write(writing, b'{"content": 1}\n{"content": 2}\n')
        found = windows(file, {})
        assert [line.number for line in next(found).lines] == [1, 2]
        later = threading.Timer(0.05, os.write, (writing, b'{"content": 3}\n'))
        later.start()
        assert [line.number for line in next(found).lines] == [3]
        later.join()
        os.close(writing)
        assert list(found) == []


@settings(deadline=None)
@given(st.lists(st.binary(max_size=12).filter(lambda line: b"\n" not in line), max_size=30))
def test_every_line_is_counted_once_whatever_is_in_it(lines: list[bytes]) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file:
        os.write(writing, b"\n".join(lines))
        os.close(writing)
        found = all_of(file)
    wanted = [number for number, line in enumerate(lines, start=1) if line.strip()]
    assert [line.number for line in found] == wanted


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_a_line_that_nests_deep_is_an_event_or_a_bad_line_whatever_its_depth(
    file_of: Callable[[bytes], IO[bytes]], opening: bytes, closing: bytes
) -> None:
    depths = [*range(200, 1200, 7), 10_000, 200_000]
    content = b"".join(
        b'{"content":' + opening * depth + b"1" + closing * depth + b"}\n" for depth in depths
    )
    found = all_of(file_of(content))
    assert [line.number for line in found] == list(range(1, len(depths) + 1))
    assert isinstance(found[0], Line)
    last = found[-2]
    assert isinstance(last, BadLine)
    assert last.reason == "no JSON: it nests too deep"


def test_what_can_be_read_and_not_be_written_is_a_bad_line(
    file_of: Callable[[bytes], IO[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How deep a writer gets depends on how deep its caller is."""

    def too_deep(_event: object) -> str:
        raise RecursionError

    monkeypatch.setattr("ai_ticket_daemon.ctl.ndjson.json.dumps", too_deep)
    [window] = windows(file_of(b'{"content": 1}\n'), {})
    assert [bad.reason for bad in window.bad] == ["no JSON: it nests too deep"]
