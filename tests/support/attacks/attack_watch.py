"""The watch around an attack: memory, descriptors, threads, the event loop, the log, ``/live``."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon.testing.pipeline import GUARD_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tests.support.attacks.attacked_daemon import AttackedDaemon

SETTLE_SECONDS = 60.0
"""How long the process may take to give back what it used: idle threads end after ten seconds."""
LOOK_SECONDS = 0.25
PROBE = Path(__file__).with_name("live_probe.py")
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What has to hold during an attack, and after it.

    Args:
        lag_seconds: how long the event loop may be silent, by the fault of its process and by the
            yardstick of loop_meter.py.
        own_seconds: how long it may be silent because its own thread computes; of use where other
            threads have a share in the former.
        live_seconds: how long an answer of ``/live`` may take, but for the waits for a busy
            processor; far more than it does, since others use this machine.
        peak_mib: how much memory may be used at a time; None for no limit.
        kept_mib: how much more memory may be in use afterwards than before.
        kept_descriptors: the same for descriptors.
        kept_threads: the same for threads.
        log_kib: how much may be written to the log.
        expected: names of log events that may be of level ``error``, or tell a traceback.
    """

    lag_seconds: float = 0.05
    own_seconds: float = 1.0
    live_seconds: float = 5.0
    peak_mib: float | None = None
    kept_mib: float = 24.0
    kept_descriptors: int = 4
    kept_threads: int = 2
    log_kib: float = 256.0
    expected: Sequence[str] = ()


@dataclass
class Seen:
    """What the watch saw; complete when its block has ended."""

    lag_seconds: float = 0.0
    late_seconds: float = 0.0
    own_seconds: float = 0.0
    before: Footprint = field(default_factory=lambda: Footprint(0, 0, 0))
    after: Footprint = field(default_factory=lambda: Footprint(0, 0, 0))
    peak_mib: float = 0.0
    log_kib: float = 0.0
    live: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"loop silent {self.lag_seconds * 1000:.0f} ms (late {self.late_seconds * 1000:.0f}, "
            f"itself computing {self.own_seconds * 1000:.0f}), "
            f"{self.before} -> {self.after}, peak {self.peak_mib:.0f} MiB, "
            f"log {self.log_kib:.0f} KiB, /live {self.live}"
        )


@dataclass(frozen=True)
class Footprint:
    """What a process uses now."""

    mib: float
    descriptors: int
    threads: int

    def __str__(self) -> str:
        return f"{self.mib:.0f} MiB, {self.descriptors} fds, {self.threads} threads"


def footprint(pid: int) -> Footprint:
    """Return what a process uses now."""
    status = _status(pid)
    descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return Footprint(status["VmRSS"] / 1024, descriptors, status["Threads"])


def _forget_peak(pid: int) -> None:
    """Have the kernel count the most memory used from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    words = [line.split() for line in lines]
    return {name.rstrip(":"): int(rest[0]) for name, *rest in words if rest and rest[0].isdigit()}


@asynccontextmanager
async def watching(daemon: AttackedDaemon, limits: Limits) -> AsyncIterator[Seen]:
    """Watch a daemon for the length of a block, and fail if it did not stay as it was."""
    pid, seen = daemon.pid, Seen()
    logged_before = daemon.log.stat().st_size
    seen.before = footprint(pid)
    _forget_peak(pid)
    daemon.meter.reset()
    async with _probed(daemon, seen):
        yield seen
        assert daemon.process.returncode is None, daemon.how_it_ended()
        seen.lag_seconds, seen.late_seconds, seen.own_seconds = daemon.meter.worst()
        seen.peak_mib = _status(pid)["VmHWM"] / 1024
    seen.after = await _settled(daemon, seen.before, limits)
    lines = daemon.log.read_bytes()[logged_before:]
    seen.log_kib = len(lines) / 1024
    print(seen)
    assert daemon.process.returncode is None, daemon.how_it_ended()
    wrong = [*_told(lines.decode(errors="replace"), limits), *_exceeded(seen, limits)]
    assert not wrong, "\n".join([*wrong, str(seen)])


def _exceeded(seen: Seen, limits: Limits) -> list[str]:
    before, after = seen.before, seen.after
    wrong = {
        f"the loop was silent for {seen.lag_seconds:.3f} s": seen.lag_seconds > limits.lag_seconds,
        f"the loop computed for {seen.own_seconds:.3f} s": seen.own_seconds > limits.own_seconds,
        f"/live: {seen.live}": bool(seen.live["failed"])
        or seen.live["slowest_served"] > limits.live_seconds,
        f"{seen.peak_mib:.0f} MiB were used": limits.peak_mib is not None
        and seen.peak_mib > limits.peak_mib,
        "memory has not come back": after.mib > before.mib + limits.kept_mib,
        "descriptors were not closed": after.descriptors
        > before.descriptors + limits.kept_descriptors,
        "threads have not ended": after.threads > before.threads + limits.kept_threads,
        f"{seen.log_kib:.0f} KiB were logged": seen.log_kib > limits.log_kib,
    }
    return [sentence for sentence, holds in wrong.items() if holds]


def _told(text: str, limits: Limits) -> list[str]:
    """Return the lines of the log that no attack may cause: faults of ours, and tracebacks."""
    found = []
    for line in text.splitlines():
        if not line.startswith("{"):
            found.append(f"not a line of the log: {line[:300]}")
            continue
        told = json.loads(line)
        bad = told["level"] in {"error", "critical"} or "Traceback" in line
        if bad and told["event"] not in limits.expected:
            found.append(f"logged: {line[:600]}")
    return found[:10]


async def _settled(daemon: AttackedDaemon, before: Footprint, limits: Limits) -> Footprint:
    """Return what it uses as soon as that is little enough, or in the end."""
    now = footprint(daemon.pid)
    with trio.move_on_after(SETTLE_SECONDS):
        while daemon.process.returncode is None and (
            now.mib > before.mib + limits.kept_mib
            or now.descriptors > before.descriptors + limits.kept_descriptors
            or now.threads > before.threads + limits.kept_threads
        ):
            await trio.sleep(LOOK_SECONDS)
            now = footprint(daemon.pid)
    return now


@asynccontextmanager
async def _probed(daemon: AttackedDaemon, seen: Seen) -> AsyncIterator[None]:
    """Have a process of its own ask ``/live`` for the length of a block."""
    host, port = daemon.http
    probe = await trio.lowlevel.open_process(
        [sys.executable, str(PROBE), host, str(port), str(daemon.pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert probe.stdin is not None
    assert probe.stdout is not None
    try:
        yield
        await probe.stdin.aclose()
        with trio.fail_after(GUARD_SECONDS):
            said = b"".join([chunk async for chunk in probe.stdout])
        seen.live = json.loads(said)
    finally:
        if probe.returncode is None:
            probe.kill()
        with trio.CancelScope(shield=True):
            await probe.wait()
            await trio.aclose_forcefully(probe.stdin)
            await trio.aclose_forcefully(probe.stdout)
