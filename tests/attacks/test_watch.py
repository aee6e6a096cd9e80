"""The watch itself: it lets a calm daemon pass, and fails for each thing it is there to see."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import httpx
import pytest
import trio
import trio.testing

from tests.support.attacks.attack_watch import Limits
from tests.support.attacks.attacked_daemon import attacked
from tests.support.attacks.loop_meter import (
    INTERVAL_SECONDS,
    MOST_SLOWNESS,
    Meter,
    least,
    measure,
    slowness,
)
from tests.support.system.endings import how_it_ended

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system


async def test_a_daemon_that_works_is_left_in_peace(tmp_path: Path) -> None:
    async with attacked(tmp_path) as daemon:
        async with (
            daemon.watched() as seen,
            httpx.AsyncClient(base_url=daemon.url, timeout=60) as client,
        ):
            for number in range(20):
                body = {"content": f"ticket {number}", "max_tokens": 4}
                assert (await client.post("/event", json=body)).status_code == 200
        assert seen.live["asked"] > 0
        assert seen.after.threads > 0
        assert 0 < seen.lag_seconds <= seen.late_seconds
        await daemon.stop()


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (Limits(lag_seconds=0.0), "the loop was silent"),
        (Limits(live_seconds=-1.0), "/live: "),
        (Limits(peak_mib=1.0), "MiB were used"),
        (Limits(log_kib=0.0), "KiB were logged"),
    ],
)
async def test_what_is_beyond_its_limit_is_told(
    tmp_path: Path, limits: Limits, sentence: str
) -> None:
    async with attacked(tmp_path, 'log.level = "debug"') as daemon:
        with pytest.raises(AssertionError, match=sentence):
            async with daemon.watched(limits):
                await (await daemon.connect()).aclose()
                await trio.sleep(0.1)  # for the meter to have measured once


async def test_a_loop_that_computes_is_seen_by_the_yardstick(tmp_path: Path) -> None:
    meter = Meter(tmp_path / "meter")

    async def compute() -> float:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(measure, meter)
            await trio.testing.wait_all_tasks_blocked()
            meter.reset()
            until = time.thread_time() + 0.2
            while time.thread_time() < until:
                pass
            while not meter.worst()[1]:  # noqa: ASYNC110 - of the meter nobody is told
                await trio.sleep(INTERVAL_SECONDS)
            nursery.cancel_scope.cancel()
        return meter.worst()[2]

    assert await least(compute, 0.05) > 0.05


def test_the_yardstick_stays_within_what_a_slow_machine_may_be() -> None:
    assert 1.0 <= slowness() <= MOST_SLOWNESS


async def test_what_a_client_keeps_open_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.attacks.attack_watch.SETTLE_SECONDS", 2.0)
    async with attacked(tmp_path) as daemon:
        held = []
        with pytest.raises(AssertionError, match="descriptors were not closed"):
            async with daemon.watched():
                held += [await daemon.connect() for _ in range(20)]
        for stream in held:
            await stream.aclose()


async def test_a_daemon_that_was_ended_is_told_with_the_signal(tmp_path: Path) -> None:
    async with attacked(tmp_path) as daemon:
        with pytest.raises(AssertionError, match=r"(?s)was ended by SIGKILL.*\"started\""):
            async with daemon.watched():
                daemon.process.send_signal(signal.SIGKILL)
                await daemon.process.wait()


def test_the_end_of_a_process_is_told_with_its_last_lines() -> None:
    assert how_it_ended(70, "one\ntwo\n") == (
        "the daemon ended by itself with exit code 70; its last lines:\none\ntwo"
    )
    assert how_it_ended(-15, "") == (
        "the daemon was ended by SIGTERM, which it does not send to itself; its last lines:\n"
        "(it wrote none)"
    )
    assert "ended by signal 50" in how_it_ended(-50, "")
    assert "SIGABRT" in how_it_ended(-signal.SIGABRT, "")
