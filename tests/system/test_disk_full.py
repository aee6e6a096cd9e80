"""A disk that is full, or gone for a while, refuses new events and keeps the rest; no restart."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ai_ticket_daemon.config.backends import ServerConfig
from ai_ticket_daemon.config.store import StoreConfig
from ai_ticket_daemon.store.sqlite.audit import audit_file
from ai_ticket_daemon.testing.daemon import config_for, open_daemon
from ai_ticket_daemon.testing.kobold import KoboldSettings, open_simulated_kobold
from tests.support.system.debian_packages import cannot_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.system

LATER = {"prefer": "respond-async"}


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a disk of 4 MiB."""
    if os.geteuid() != 0:
        cannot_run("only root can mount a small disk")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "small", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_a_full_disk_refuses_new_events_and_keeps_the_rest(tmp_path: Path) -> None:
    settings = KoboldSettings().scaled(0.05)
    with small_disk(tmp_path / "disk") as disk:
        async with open_simulated_kobold(settings) as simulated:
            config = config_for(ServerConfig("primary", simulated.url))
            config = replace(config, store=StoreConfig(url=f"sqlite:///{disk}/events.db"))
            async with (
                open_daemon(config) as daemon,
                httpx.AsyncClient(base_url=daemon.url, timeout=60) as client,
            ):
                await fill_and_free(disk, client)
        assert audit_file(disk / "events.db").problems == ()


async def fill(client: httpx.AsyncClient, accepted: list[str]) -> tuple[httpx.Response, str]:
    """Submit events until the daemon refuses one and calls itself unhealthy.

    The store works again at its next write that fits: what the server completes in between may
    find room that a new event does not. So a refusal alone does not say that the disk stays full.
    """
    with trio.fail_after(60):
        while True:
            body = {"content": f"{len(accepted)} " + "words " * 3000, "max_tokens": 1}
            reply = await client.post("/event", json=body, headers=LATER)
            if reply.status_code == 202:
                accepted.append(reply.json()["event_id"])
                continue
            health = await client.get("/health")
            if health.status_code == 503:
                return reply, str(health.json()["reasons"])


async def fill_and_free(disk: Path, client: httpx.AsyncClient) -> None:
    accepted: list[str] = []
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(2 << 20))
    reply, reasons = await fill(client, accepted)
    assert reply.status_code == 503
    assert reply.json()["error"] == "store_unavailable"
    assert "disk is full" in reply.json()["message"]
    assert len(accepted) > 5
    assert "disk is full" in reasons
    ballast.unlink()
    with trio.fail_after(60):
        while (await client.get("/health")).status_code != 200:  # noqa: ASYNC110 - asks a server
            await trio.sleep(0.1)
    for event_id in accepted:
        ended: dict[str, Any] = (await client.get(f"/event/{event_id}?wait=30")).json()
        assert ended["outcome"] is not None, ended
    reply = await client.post("/event", json={"content": "x", "max_tokens": 1}, headers=LATER)
    assert reply.status_code == 202


async def test_the_outcome_of_what_runs_is_kept_while_the_store_is_gone(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        async with open_simulated_kobold(KoboldSettings(tokens_per_second=10)) as simulated:
            config = config_for(ServerConfig("primary", simulated.url))
            config = replace(config, store=StoreConfig(url=f"sqlite:///{disk}/events.db"))
            async with (
                open_daemon(config) as daemon,
                httpx.AsyncClient(base_url=daemon.url, timeout=60) as client,
                trio.open_nursery() as nursery,
            ):
                answers: list[httpx.Response] = []

                async def wait() -> None:
                    body = {"content": "runs", "max_tokens": 20}
                    answers.append(await client.post("/event", json=body))

                nursery.start_soon(wait)
                await simulated.wait_for(lambda s: s.running == 1)
                broken_disk(disk)
                await simulated.wait_for(lambda s: s.running == 0)
                refused = await client.post("/event", json={"content": "x"}, headers=LATER)
                assert (refused.status_code, refused.json()["error"]) == (503, "store_unavailable")
                assert (await client.get("/health")).status_code == 503
                assert answers == []
                mended_disk(disk)
                with trio.fail_after(60):
                    while not answers:  # noqa: ASYNC110 - asks a server
                        await trio.sleep(0.05)
                assert answers[0].status_code == 200
        assert audit_file(disk / "events.db").problems == ()


def broken_disk(disk: Path) -> None:
    """Take the files away, as a disk that drops off its bus does."""
    (disk / "away").mkdir()
    for file in disk.glob("events.db*"):
        file.rename(disk / "away" / file.name)


def mended_disk(disk: Path) -> None:
    for file in (disk / "away").iterdir():
        file.rename(disk / file.name)
