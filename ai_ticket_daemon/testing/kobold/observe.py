"""What tests can see of a simulated server from outside the wire."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, Literal

import trio

__all__ = ["GenerationRecord", "Observations"]

Outcome = Literal[
    "arrived",
    "waiting",
    "running",
    "completed",
    "aborted",
    "skipped",
    "refused",
    "failed",
    "cut_off",
]
"""skipped: met a remembered abort on its turn. refused: 503. failed: an error of the request, or a
scripted answer. cut_off: the process died."""


@dataclass(slots=True)
class GenerationRecord:
    """The life of one request for the generation lock; times are those of the trio clock."""

    path: str
    arrived: float
    outcome: Outcome = "arrived"
    genkey: str = ""
    stream: bool = False
    prompt_tokens: int = 0
    read_tokens: int = 0
    """How many of them were not known from the generation before."""
    started: float | None = None
    ended: float | None = None
    tokens: int = 0
    client_gone: bool = False


class Observations:
    """Counters and a log that outlive restarts of the simulated process."""

    def __init__(self, log_length: int) -> None:
        self.log: deque[GenerationRecord] = deque(maxlen=log_length)
        self.running = 0
        self.waiting = 0
        self.max_running = 0
        self.max_waiting = 0
        self.max_in_flight = 0
        self.started_total = 0
        self.completed_total = 0
        self.aborted_total = 0
        self.busy_answers_total = 0
        self.deaths_total = 0
        self.connections_total = 0
        self.open_connections = 0
        self.held_seconds = 0.0
        self.busy_seconds = 0.0
        self._watchers = trio.lowlevel.ParkingLot()

    def changed(self) -> None:
        """Let everyone who waits for a condition look again."""
        if self._watchers:
            self._watchers.unpark_all()

    async def next_change(self) -> None:
        """Wait until something has changed."""
        await self._watchers.park()

    def arrive(self, path: str) -> GenerationRecord:
        """Note a request for the lock."""
        record = GenerationRecord(path, trio.current_time())
        self.log.append(record)
        return record

    def wait(self, record: GenerationRecord) -> None:
        """Note that it must wait for the lock."""
        record.outcome = "waiting"
        self.waiting += 1
        self.max_waiting = max(self.max_waiting, self.waiting)
        self.max_in_flight = max(self.max_in_flight, self.waiting + self.running)
        self.changed()

    def refuse(self, record: GenerationRecord) -> None:
        """Note that it was answered 503."""
        record.outcome = "refused"
        record.ended = trio.current_time()
        self.busy_answers_total += 1
        self.changed()

    def start(self, record: GenerationRecord) -> None:
        """Note that it got the lock."""
        if record.outcome == "waiting":
            self.waiting -= 1
        record.outcome = "running"
        record.started = trio.current_time()
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        self.max_in_flight = max(self.max_in_flight, self.waiting + self.running)
        self.changed()

    def end(self, record: GenerationRecord) -> None:
        """Note that it gave the lock back, or died with it, or before."""
        record.ended = trio.current_time()
        if record.started is None:
            self.waiting -= 1
        else:
            self.running -= 1
            self.held_seconds += record.ended - record.started
        if record.outcome in ("waiting", "running"):
            record.outcome = "cut_off"
        self.changed()

    def summary(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        figures = {
            name: value
            for name, value in vars(self).items()
            if not name.startswith("_") and name != "log"
        }
        return figures | {"log": [asdict(record) for record in self.log]}
