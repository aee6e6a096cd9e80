"""Twenty thousand empty jobs, durably submitted and drained: beside Huey (SQLite), Celery (Redis).

All three write each job and each result to the disk before they go on (Huey with ``fsync``, Redis
with ``appendfsync always``), and have as many clients at once.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

pytestmark = pytest.mark.benchmark

HERE = Path(__file__).parent
RIVALS = HERE.parents[1] / ".cache" / "bench" / "queues" / "bin"
JOBS = 20_000
CLIENTS = 16
WORKERS = ("-w", "2", "-k", "process", "-q")
DRAIN_SECONDS = 120


def test_jobs_go_in_and_out_faster_than_in_huey_and_celery(tmp_path: Path) -> None:
    assert (RIVALS / "celery").exists(), "run this through ops/bench.sh, which installs the others"
    assert shutil.which("redis-server"), "Debian: apt-get install redis-server"
    figures = {
        "ours": ours(tmp_path / "ours", batch=1),
        "ours, batches of 1000": ours(tmp_path / "batches", batch=1000),
        "huey": huey(tmp_path / "huey"),
        "celery": celery(tmp_path / "celery"),
    }
    for name, (submit, drain) in figures.items():
        print(f"\n{name}: {JOBS / submit:.0f} jobs/s submitted, {JOBS / drain:.0f} jobs/s drained")
    for rival in ("huey", "celery"):
        submit, drain = (figures[rival][n] / figures["ours"][n] for n in (0, 1))
        print(f"{rival} / ours, time: submit {submit:.2f}, drain {drain:.2f}")
        assert submit > 1
        assert drain > 1


def ours(folder: Path, *, batch: int) -> tuple[float, float]:
    folder.mkdir()
    script = str(HERE / "queue_ours.py")
    figures = json.loads(run(sys.executable, script, folder, JOBS, CLIENTS, batch))
    return figures["submit"], figures["drain"]


def huey(folder: Path) -> tuple[float, float]:
    folder.mkdir()
    file = folder / "huey.db"
    submit = float(run(RIVALS / "python", "-c", submit_by("queue_huey"), url=str(file)))

    def done() -> int:
        with closing(sqlite3.connect(file, timeout=30)) as connection:
            [count] = connection.execute("SELECT count(*) FROM kv").fetchone()
            return int(count)

    consumer: list[str | Path] = [
        RIVALS / "huey_consumer",
        "queue_huey.huey",
        "-w",
        "2",
        "-k",
        "process",
        "-q",
    ]
    with process(consumer, url=str(file)):
        return submit, drained(done)


def celery(folder: Path) -> tuple[float, float]:
    folder.mkdir()
    with redis(folder) as port:
        url = f"redis://127.0.0.1:{port}/0"
        submit = float(run(RIVALS / "python", "-c", submit_by("queue_celery"), url=url))
        # One key is the queue while it holds anything; others belong to the broker.
        count = ["redis-cli", "-p", str(port), "dbsize"]

        def done() -> int:
            return int(subprocess.run(count, capture_output=True, check=True, text=True).stdout)

        before = done()
        options = ["--concurrency", "2", "--loglevel", "ERROR"]
        options += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        worker: list[str | Path] = [RIVALS / "celery", "-A", "queue_celery", "worker", *options]
        with process(worker, url=url):
            return submit, drained(lambda: max(0, done() - before - 3))


@contextmanager
def redis(folder: Path) -> Iterator[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    options = {"port": port, "bind": "127.0.0.1", "dir": folder, "save": "", "appendonly": "yes"}
    options["appendfsync"] = "always"
    command = ["redis-server", *(str(w) for n, v in options.items() for w in (f"--{n}", v))]
    with process(command):
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port


def drained(done: Callable[[], int]) -> float:
    """Return the seconds from the first result to the last: starting the worker does not count."""
    first, until = None, time.perf_counter() + DRAIN_SECONDS
    while (now := time.perf_counter()) < until:
        count = done()
        if first is None and count:
            first = now, count
        if first is not None and count >= JOBS - 5:
            return (now - first[0]) * JOBS / (JOBS - first[1])
        time.sleep(0.02)
    raise AssertionError(f"{done()} of {JOBS} jobs were done in {DRAIN_SECONDS} s")


def submit_by(module: str) -> str:
    """Return the program that submits: a worker has to know its jobs by the same module name."""
    return f"import {module}; {module}.main({JOBS}, {CLIENTS})"


def run(*command: object, url: str = "") -> str:
    return subprocess.run(
        [str(word) for word in command],
        env=environment(url),
        capture_output=True,
        check=True,
        text=True,
        timeout=300,
    ).stdout


@contextmanager
def process(command: Sequence[str | Path], url: str = "") -> Iterator[None]:
    """Run ``command`` for the length of a block."""
    running = subprocess.Popen(
        [str(word) for word in command],
        cwd=HERE,
        env=environment(url),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        running.terminate()
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def environment(url: str) -> dict[str, str]:
    return {**os.environ, "BENCH_URL": url, "PYTHONPATH": str(HERE)}
