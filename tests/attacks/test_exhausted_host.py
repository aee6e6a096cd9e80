"""A host that runs out of descriptors, or of threads: the daemon waits, and is as it was after."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from tests.support.attacks.attacked_daemon import AttackedDaemon, attacked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

pytestmark = pytest.mark.system

WAIT_SECONDS = 60
ROUNDS = 10
LARGE_BYTES = 12 * 2**20
HEADROOM = 17 * 2**20
"""How much more memory the process may have than it uses: so a large body fits once, not twice."""
NOBODY = 61_234
"""A user that runs nothing else: the limit of threads counts all of a user's."""


def as_nobody() -> tuple[str, ...]:
    """Return what runs a command as a user for whom limits of threads hold."""
    if os.geteuid() != 0:
        return ()
    # Files stay within reach, wherever Python and the test keep them.
    files = "+dac_read_search,+dac_override,+fowner"
    return (
        "setpriv", f"--reuid={NOBODY}", "--clear-groups",
        f"--inh-caps={files}", f"--ambient-caps={files}",
    )  # fmt: skip


@asynccontextmanager
async def limited(
    daemon: AttackedDaemon, what: str, most: int, *, user: tuple[str, ...] = ()
) -> AsyncIterator[None]:
    """Let the process of ``user`` have no more than ``most`` of ``what`` for a block."""

    async def allow(limit: str) -> None:
        command = [*user, "prlimit", f"--pid={daemon.pid}", f"--{what}={limit}:"]
        await trio.run_process(command)

    before = await trio.run_process(
        [
            *user,
            "prlimit",
            f"--pid={daemon.pid}",
            f"--{what}",
            "--noheadings",
            "--output=SOFT",
            "--raw",
        ],
        capture_stdout=True,
    )
    await allow(str(most))
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            await allow(before.stdout.decode().strip())


async def until(true: Callable[[], bool], daemon: AttackedDaemon) -> None:
    with trio.fail_after(WAIT_SECONDS):
        while not true():
            assert daemon.process.returncode is None, daemon.how_it_ended()
            await trio.sleep(0.05)


async def health(daemon: AttackedDaemon) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=daemon.url, timeout=60, trust_env=False) as client:
        found: dict[str, Any] = (await client.get("/health")).json()
        return found


async def live(daemon: AttackedDaemon) -> int:
    async with httpx.AsyncClient(base_url=daemon.url, timeout=60, trust_env=False) as client:
        return (await client.get("/live")).status_code


async def submit(daemon: AttackedDaemon) -> int:
    async with httpx.AsyncClient(base_url=daemon.url, timeout=60, trust_env=False) as client:
        body = {"content": "a ticket", "max_tokens": 2}
        return (await client.post("/event", json=body)).status_code


async def scrape(daemon: AttackedDaemon) -> str:
    host, port = daemon.metrics
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        answer = await client.get(f"http://{host}:{port}/metrics")
        assert answer.status_code == 200
        return answer.text


def descriptors(daemon: AttackedDaemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


def threads(daemon: AttackedDaemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/task").iterdir()))


def cpu_seconds(daemon: AttackedDaemon) -> float:
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def assert_unharmed(daemon: AttackedDaemon) -> None:
    """Nothing crashed, no server was marked down, and all works again by itself."""
    assert daemon.process.returncode is None, daemon.how_it_ended()
    for event in ("actor_restarted", "failed", "worker_crashed", "handler_crashed",
                  "connection_crashed", "backend_unusable", "failover"):  # fmt: skip
        assert daemon.logged(event) == [], event
    with trio.fail_after(WAIT_SECONDS):
        while (await health(daemon))["status"] != "healthy":  # noqa: ASYNC110 - it is elsewhere
            await trio.sleep(0.1)
    assert await submit(daemon) == 200
    page = await scrape(daemon)
    assert all(
        line.endswith(" 0.0")
        for line in page.splitlines()
        if line.startswith("ai_ticket_actor_restarts_total{")
    )


async def test_silent_connections_to_the_metrics_page_cost_the_daemon_nothing(
    tmp_path: Path,
) -> None:
    async with attacked(tmp_path, under=("prlimit", "--nofile=256:256")) as daemon:
        before = descriptors(daemon), threads(daemon)
        silent = [await trio.open_tcp_stream(*daemon.metrics) for _ in range(300)]
        try:
            assert await live(daemon) == 200
            assert "ai_ticket_build_info" in await scrape(daemon)
            assert descriptors(daemon) <= before[0] + 24
            assert threads(daemon) <= before[1] + 2
            assert await submit(daemon) == 200
        finally:
            for stream in silent:
                await trio.aclose_forcefully(stream)
        await assert_unharmed(daemon)
        assert daemon.logged("host_exhausted") == []
        await daemon.stop()


async def test_more_clients_than_descriptors_leave_enough_for_the_rest(tmp_path: Path) -> None:
    async with attacked(tmp_path, under=("prlimit", "--nofile=256:256")) as daemon:
        assert "http.max_connections" in str(daemon.logged("config_warning"))
        silent = [await daemon.connect() for _ in range(300)]
        try:
            assert "ai_ticket_build_info" in await scrape(daemon)
            await trio.sleep(1.0)  # some probes, each of which needs a descriptor
            assert descriptors(daemon) < 200
        finally:
            for stream in silent:
                await trio.aclose_forcefully(stream)
        await assert_unharmed(daemon)
        assert daemon.logged("host_exhausted") == []
        await daemon.stop()


async def test_a_process_without_descriptors_is_no_dead_server_and_spins_nowhere(
    tmp_path: Path,
) -> None:
    async with attacked(tmp_path) as daemon:
        async with limited(daemon, "nofile", descriptors(daemon)):
            # The last free numbers: what the daemon opens from here on is refused.
            waiting = [await daemon.connect() for _ in range(8)]
            await until(lambda: bool(daemon.logged("host_exhausted")), daemon)
            spent = cpu_seconds(daemon)
            await trio.sleep(3.0)  # what is measured is how little is done meanwhile
            assert cpu_seconds(daemon) - spent < 1.5
            # The page has a descriptor of its own, for just this.
            assert 'host_exhausted_total{resource="file descriptors"}' in await scrape(daemon)
            for stream in waiting:
                await trio.aclose_forcefully(stream)
        told = daemon.logged("host_exhausted")
        assert {line["reason"] for line in told} == {"out of file descriptors"}
        assert len(told) <= 2
        await assert_unharmed(daemon)
        await daemon.stop()


async def test_a_process_without_threads_goes_on_storing_and_answering(tmp_path: Path) -> None:
    settings = (
        "log.capture_payloads = 5",
        f'log.capture_directory = "{tmp_path}/captures"',
        'telemetry.traces = "otlp"',
        'telemetry.otlp_endpoint = "http://localhost:1"',
    )
    async with attacked(tmp_path, *settings, under=as_nobody()) as daemon:
        # As many as there are, and none in reserve: idle threads end after ten seconds.
        async with limited(daemon, "nproc", 1, user=as_nobody()):
            await until(lambda: "trio" not in thread_names(daemon).lower(), daemon)
            for _ in range(5):
                assert await submit(daemon) == 200
            async with httpx.AsyncClient(
                base_url=daemon.url, trust_env=False, timeout=60
            ) as client:
                # A refused payload would be kept by a thread of its own.
                assert (await client.post("/event", json={"content": 5})).status_code in (400, 422)
            await until(lambda: bool(daemon.logged("host_exhausted")), daemon)
            assert await live(daemon) == 200
            assert "ai_ticket_build_info" in await scrape(daemon)
            found = await health(daemon)
            assert found["status"] == "healthy"
            assert "this host is out of threads" in str(found["reasons"])
        assert daemon.logged("store_failed") == []
        await assert_unharmed(daemon)
        await daemon.stop()


def address_space(daemon: AttackedDaemon) -> int:
    """Return how many bytes of addresses the process uses."""
    return int(Path(f"/proc/{daemon.pid}/statm").read_text().split()[0]) * resource.getpagesize()


async def test_a_process_without_memory_for_large_bodies_serves_small_ones(tmp_path: Path) -> None:
    """What is lacking is large.

    Where there is no room for small objects either, neither the interpreter nor trio lives on: then
    the service manager starts the process anew, and the store has what was acknowledged.
    """
    large = b'[{"content":"a"}' + b" " * LARGE_BYTES + b"]"
    statuses: Counter[int | str] = Counter()
    small: list[int] = []

    async def send_large(client: httpx.AsyncClient) -> None:
        headers = {"content-type": "application/json", "prefer": "respond-async"}
        try:
            answer = await client.post("/events", content=large, headers=headers)
        except httpx.TransportError as error:
            statuses[type(error).__name__] += 1
        else:
            statuses[answer.status_code] += 1

    async with attacked(tmp_path, f"events.max_batch_bytes = {2 * LARGE_BYTES}") as daemon:
        async with (
            httpx.AsyncClient(base_url=daemon.url, timeout=60, trust_env=False) as client,
            limited(daemon, "as", address_space(daemon) + HEADROOM),
        ):
            for _ in range(ROUNDS):
                await send_large(client)
                assert daemon.process.returncode is None, daemon.how_it_ended()
                small.append(await submit(daemon))
        print(dict(statuses), small)
        assert set(statuses) == {503}
        assert small == [200] * ROUNDS
        assert daemon.logged("host_exhausted")
        async with httpx.AsyncClient(base_url=daemon.url, timeout=60, trust_env=False) as client:
            await send_large(client)
        assert set(statuses) == {202, 503}
        await assert_unharmed(daemon)
        await daemon.stop()


WATCHDOG_SECONDS = 4
PRESSING = 100
"""Clients at a time whose requests take what small memory there is."""


@contextmanager
def manager() -> Iterator[tuple[dict[str, str], Callable[[], bool]]]:
    """Yield an environment as systemd gives it, and what tells whether the watchdog was fed.

    Each call tells it of the time since the last one.
    """
    with (
        tempfile.TemporaryDirectory(prefix="ait") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
    ):
        address = str(Path(folder) / "notify")
        notified.bind(address)
        notified.setblocking(False)

        def was_fed() -> bool:
            fed = False
            with suppress(BlockingIOError):
                while True:
                    fed |= b"WATCHDOG=1" in notified.recv(4096)
            return fed

        watchdog = {"WATCHDOG_USEC": str(WATCHDOG_SECONDS * 1_000_000)}
        yield {"NOTIFY_SOCKET": address} | watchdog, was_fed


async def hand_in(daemon: AttackedDaemon) -> str:
    async with httpx.AsyncClient(base_url=daemon.url, timeout=60, trust_env=False) as client:
        headers = {"prefer": "respond-async"}
        answer = await client.post("/event", json={"content": "a"}, headers=headers)
        assert answer.status_code == 202
        return str(answer.json()["event_id"])


async def press(daemon: AttackedDaemon) -> None:
    """Have many clients begin a request; they stay for a moment, whatever becomes of them."""
    head = b"POST /event HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    body = b'content-length: 20000\r\n\r\n{"content":"' + b"a" * 10_000

    async def begin() -> None:
        with suppress(OSError, trio.BrokenResourceError), trio.move_on_after(1):
            async with await daemon.connect() as stream:
                await stream.send_all(head + body)
                await trio.sleep_forever()

    async with trio.open_nursery() as clients:
        for _ in range(PRESSING):
            clients.start_soon(begin)


async def end_as_systemd_would(daemon: AttackedDaemon, was_fed: Callable[[], bool]) -> str:
    """Return what became of it; a daemon that does not feed the watchdog is killed."""
    was_fed()
    fed_at = trio.current_time()
    with trio.fail_after(2 * WAIT_SECONDS):
        while daemon.process.returncode is None:
            with suppress(httpx.TransportError):
                if await live(daemon) == 200:
                    return "serves again"
            if was_fed():
                fed_at = trio.current_time()
            elif trio.current_time() - fed_at > WATCHDOG_SECONDS:
                daemon.process.kill()
                await daemon.process.wait()
                return "hung, and was ended by the watchdog"
            await trio.sleep(0.1)
    return f"ended with {daemon.process.returncode}"


async def test_a_process_without_memory_for_small_objects_is_ended_or_serves_again(
    tmp_path: Path,
) -> None:
    """What hangs does not feed the watchdog, and what was acknowledged is there afterwards."""
    with manager() as (environment, was_fed):
        async with attacked(tmp_path, environment=environment) as daemon:
            accepted = [await hand_in(daemon) for _ in range(5)]
            await until(was_fed, daemon)
            limit = f"--as={address_space(daemon)}:"
            await trio.run_process(["prlimit", f"--pid={daemon.pid}", limit])
            for _ in range(ROUNDS):
                await press(daemon)
            print(await end_as_systemd_would(daemon, was_fed))
            if daemon.process.returncode is None:
                daemon.process.kill()
    again = tmp_path / "again"
    again.mkdir()
    async with attacked(again, f'store.url = "sqlite:///{daemon.store}"') as daemon:
        async with httpx.AsyncClient(base_url=daemon.url, timeout=30, trust_env=False) as client:
            for event_id in accepted:
                assert (await client.get(f"/event/{event_id}")).status_code == 200
        assert await submit(daemon) == 200
        await daemon.stop()


def thread_names(daemon: AttackedDaemon) -> str:
    found = []
    for task in Path(f"/proc/{daemon.pid}/task").iterdir():
        try:
            found.append((task / "comm").read_text().strip())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return " ".join(found)


async def test_a_start_without_threads_says_so_and_ends_with_69(tmp_path: Path) -> None:
    conf = tmp_path / "ai-ticket.conf"
    conf.write_text(
        'http.bind = ["127.0.0.1:0"]\nmetrics.bind = "127.0.0.1:0"\ntelemetry.traces = "none"\n'
        f'control.socket = ""\nstore.url = "sqlite:///{tmp_path}/events.db"\n'
        '[[backends.server]]\nname = "primary"\nurl = "http://127.0.0.1:1"\n'
    )
    with trio.fail_after(WAIT_SECONDS):
        ended = await trio.run_process(
            [*as_nobody(), "prlimit", "--nproc=1", sys.executable, "-m", "ai_ticket_daemon",
             "--config", str(conf)],
            capture_stdout=True, capture_stderr=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    assert ended.returncode == 69, ended.stderr.decode()
    assert b"out of threads" in ended.stderr
    assert b"Traceback" not in ended.stderr
