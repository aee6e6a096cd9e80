"""Mutated input from a seed: which cases there are, how they are made, and what counts as hanging.

``AI_TICKET_FUZZ_SEED`` repeats a run, ``AI_TICKET_FUZZ_CASES`` makes it longer, and
``AI_TICKET_FUZZ_CASE`` runs one case of it alone.
"""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

SEED = int(os.environ.get("AI_TICKET_FUZZ_SEED", random.randrange(2**32)))
CASES = int(os.environ.get("AI_TICKET_FUZZ_CASES", "20000"))
ONLY = os.environ.get("AI_TICKET_FUZZ_CASE")

HANG_SECONDS = 20.0
"""A case takes a millisecond; who needs so long hangs, however busy the machine is."""
MAX_PROCESSOR_SECONDS = 1.0
"""The most one case may compute: more is a hang that happens to end."""
READ_EVERY = 50
MAX_BYTES = 16_384
SHOWN_BYTES = 1500
NUMBERS = (b"0", b"-1", b"1", b"255", b"65536", b"4294967296", b"9" * 30, b"1e999", b"4.0", b"-0",
           b"NaN", b"0x10", b"007")  # fmt: skip
BYTES = bytes((0, 9, 10, 13, 32, 34, 37, 44, 47, 58, 91, 92, 123, 127, 128, 195, 237, 255))


class Hung(BaseException):
    """A case does not come to its end; no ``except Exception`` may take it for something else."""


@dataclass
class Spent:
    """When the clocks were read last: that of the processor takes longer than many a case."""

    at: float = field(default_factory=time.monotonic)
    processor: float = field(default_factory=time.process_time)


@dataclass
class Case:
    """One input, made from the seed and its number alone."""

    room: str
    number: int
    spent: Spent
    data: object = b""
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(f"{SEED} {self.room} {self.number}")

    def __str__(self) -> str:
        shown = repr(self.data)
        if len(shown) > SHOWN_BYTES:
            shown = f"{shown[:SHOWN_BYTES]}... ({len(shown)} characters)"
        return f"{self.room}, AI_TICKET_FUZZ_SEED={SEED} AI_TICKET_FUZZ_CASE={self.number}: {shown}"

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Name this case in whatever goes wrong within the block; a hang goes wrong, too."""

        def hung(signum: int, frame: FrameType | None) -> NoReturn:
            raise Hung(f"after {HANG_SECONDS:g} s still not done: {self}")

        before = signal.signal(signal.SIGALRM, hung)
        signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
        began = time.monotonic()
        try:
            yield
        except Hung:
            raise
        except Exception as error:
            raise AssertionError(f"{error!r} in {self}") from error
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        if time.monotonic() - began >= MAX_PROCESSOR_SECONDS:
            # At least so much, whatever the cases before it have computed since the last reading.
            took = time.process_time() - self.spent.processor - (began - self.spent.at)
            assert took < MAX_PROCESSOR_SECONDS, f"computed for {took:.1f} s: {self}"


def cases(room: str, share: float = 1.0) -> Iterator[Case]:
    """Yield the cases of a room, one after the other; prints what repeats them.

    ``share``: of how many there are to be, for a room that has several doors.
    """
    numbers = range(int(CASES * share)) if ONLY is None else [int(ONLY)]
    print(f"{room}: {len(numbers)} cases, AI_TICKET_FUZZ_SEED={SEED}")
    spent = Spent()
    for number in numbers:
        if number % READ_EVERY == 0:
            spent = Spent()
        yield Case(room, number, spent)


def mutate(chance: random.Random, data: bytes, words: Sequence[bytes]) -> bytes:
    """Return ``data`` with a few changes; now and then with none."""
    changed = bytearray(data)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 2, 3, 5))):
        at = chance.randrange(len(changed) + 1)
        end = min(len(changed), at + chance.choice((1, 1, 2, 4, 16, 64, 1024)))
        match chance.randrange(9):
            case 0:
                changed[at:end] = bytes([chance.choice(BYTES)])
            case 1:
                changed[at:at] = bytes([chance.choice(BYTES)])
            case 2:
                del changed[at:end]
            case 3 | 4:
                changed[at:at] = chance.choice(words)
            case 5:
                changed[at:end] = chance.choice(words)
            case 6:
                changed[at:at] = changed[at:end] * chance.choice((1, 2, 10, 100))
            case 7:
                changed[at:at] = chance.choice(words) * chance.choice((2, 50, 1000))
            case _:
                _renumber(chance, changed)
        del changed[MAX_BYTES:]
    return bytes(changed)


def _renumber(chance: random.Random, data: bytearray) -> None:
    """Put another number where one is."""
    digits = [at for at, byte in enumerate(data[:2048]) if 48 <= byte <= 57]
    if digits:
        begin = end = chance.choice(digits)
        while end < len(data) and 48 <= data[end] <= 57:
            end += 1
        data[begin:end] = chance.choice(NUMBERS)


class Complaints(logging.Handler):
    """Takes what no input may cause in the log: errors, and tracebacks."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it, if it is one."""
        if record.levelno >= logging.ERROR or record.exc_info:
            self.found.append(self.format(record))


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """What was complained of in the log of the front end."""
    handler, logger = Complaints(), logging.getLogger("ai_ticket_daemon")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path: that of a Unix socket is limited."""
    made = Path(tempfile.mkdtemp(prefix="ait"))
    yield made
    shutil.rmtree(made)
