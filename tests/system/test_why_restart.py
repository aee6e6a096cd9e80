"""``ai-ticketctl why`` of an event that lived through a failover, ``kill -9`` and a restart."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import httpx
import pytest
import trio

from ai_ticket_daemon.testing.kobold import KoboldSettings, open_simulated_kobold
from tests.system.test_trace_restart import life

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.system


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: that of a Unix socket is limited."""
    made = Path(tempfile.mkdtemp(prefix="ait"))
    yield made
    shutil.rmtree(made)


async def ctl(folder: Path, *words: str) -> Any:
    command = [sys.executable, "-m", "ai_ticket_daemon.ctl.main"]
    command += ["--socket", str(folder / "c.sock"), "--json", *words]
    with trio.fail_after(60):
        done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.STDOUT)
    return json.loads(done.stdout)


async def test_why_survives_a_kill_and_a_restart(folder: Path) -> None:
    settings = KoboldSettings().scaled(0.1)
    conf = folder / "ai-ticket.conf"
    async with (
        open_simulated_kobold(settings) as primary,
        open_simulated_kobold(settings) as standby,
    ):
        conf.write_text(
            f"""
            http.bind = ["127.0.0.1:0"]
            metrics.bind = "127.0.0.1:0"
            telemetry.traces = "none"
            control.socket = "{folder}/c.sock"
            store.url = "sqlite:///{folder}/events.db"
            backends.probe_interval_seconds = 0.2
            backends.probe_fast_interval_seconds = 0.05
            backends.probe_timeout_seconds = 10
            [[backends.server]]
            name = "primary"
            url = "{primary.url}"
            [[backends.server]]
            name = "standby"
            role = "standby"
            url = "{standby.url}"
            """
        )
        for simulated in (primary, standby):
            simulated.faults.stall(after_tokens=1, ignores_abort=False)
        async with life(conf) as first, httpx.AsyncClient(base_url=first.url, timeout=60) as client:
            answer = await client.post(
                "/event",
                json={"content": "hello", "max_tokens": 4},
                headers={"prefer": "respond-async"},
            )
            event_id = answer.json()["event_id"]
            await primary.wait_for(lambda s: s.running == 1)
            primary.faults.die(reset=True)
            await standby.wait_for(lambda s: s.running == 1)
            before = await until_told(folder, event_id, "standby serves from now on")
            first.process.send_signal(signal.SIGKILL)
            assert await first.exit_code() == -signal.SIGKILL
        standby.faults.clear()
        async with life(conf) as second, httpx.AsyncClient(base_url=second.url, timeout=60) as c:
            status = (await c.get(f"/event/{event_id}?wait=20")).json()
            assert status["state"] == "succeeded", status
            after = (await ctl(folder, "why", event_id))["lines"]
            human = await trio.run_process(
                [sys.executable, "-m", "ai_ticket_daemon.ctl.main", "--socket",
                 str(folder / "c.sock"), "why", event_id],
                capture_stdout=True,
            )  # fmt: skip
            second.process.send_signal(signal.SIGTERM)
            assert await second.exit_code() == 0
    # Nothing that was told of the servers before is forgotten.
    servers = [line for line in before if line["name"] == "server"]
    assert len(servers) >= 2
    assert [line for line in after if line in servers] == servers
    texts = [line["text"] for line in after]
    in_order(
        texts,
        "attempt 1 went to primary",
        "attempt 1 failed after",
        "switched from primary to standby",
        "attempt 2 went to standby",
        "attempt 2 was cut off: The daemon was restarted; the attempt under way was put back.",
        "the daemon was started: version",
        "attempt 3 went to standby",
        "succeeded on standby",
    )
    assert any(text.startswith("primary became down") for text in texts)
    assert b"the attempt under way was put back" in human.stdout.replace(b"\n", b" ")


async def until_told(folder: Path, event_id: str, text: str) -> list[dict[str, Any]]:
    """Return the lines once one that begins with ``text`` is on disk."""
    query = "SELECT count(*) FROM change WHERE text LIKE ? || '%'"
    with trio.fail_after(60):
        with closing(apsw.Connection(str(folder / "events.db"))) as store:
            while not store.execute(query, (text,)).get:  # noqa: ASYNC110
                await trio.sleep(0.05)
        lines: list[dict[str, Any]] = (await ctl(folder, "why", event_id))["lines"]
        return lines


def in_order(texts: list[str], *wanted: str) -> None:
    rest = iter(texts)
    for begin in wanted:
        assert any(text.startswith(begin) for text in rest), f"{begin!r} is not in {texts}"
