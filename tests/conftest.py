"""What tests share: a host with the service installed, and a Prometheus that watches drills."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.request
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

import pytest
from container import BUILD_SECONDS, CACHE, alone, container, need_container
from lacks import LACKS, Lack
from monitoring import change, need_tools, prometheus_command
from ports import free_port
from project import ROOT
from service_host import (
    CHECKOUT,
    SETTINGS,
    WHEELHOUSE,
    ServiceHost,
    build_wheel,
    copy_checkout,
)
from stage import Watch, open_stage
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stage import Rehearse

NEXT_VERSION = "0.1.1"
STAGES = 40
START_SECONDS = 30
NOBODY = "127.0.0.1:9"
"""Where no Alertmanager listens."""
ON_THE_HOST = frozenset(
    {
        "tests/attacks/test_systemd_attacks.py",
        "tests/system/test_clock_of_service.py",
        "tests/system/test_nightly_copies.py",
        "tests/system/test_systemd_restarts.py",
        "tests/system/test_systemd_service.py",
        "tests/system/test_upgrades.py",
    }
)
"""The files whose tests share one installed host, which takes half a minute to make."""
OBJECTIVES = {"vector(120)": "vector(1)"}
"""A second for batches and for the oldest event, so that nobody has to wait for minutes."""


@pytest.fixture(params=LACKS, ids=str)
def lack(request: pytest.FixtureRequest) -> Lack:
    """Something the host is out of: one after the other."""
    return Lack(request.param)


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have reports of drills kept in a folder of the tests, not of whoever runs them."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


# ------------------------------------------------------------------------------- side by side


class SideBySide(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives a process one group of tests at a time: those of a file, or those that share a host."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "host" if file in ON_THE_HOST else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SideBySide:
    """Return who hands out the tests to the processes."""
    return SideBySide(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what waits long: what shares a host, what runs the real process, then the rest."""
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    if item.nodeid.partition("::")[0] in ON_THE_HOST:
        return 0
    return 1 if item.get_closest_marker("system") else 2


# -------------------------------------------------------------------------------------- a host


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the wheelhouse that ops/install.sh builds; tests may add to it."""
    need_container()
    built, copy = CACHE / "wheelhouse", tmp_path_factory.mktemp("wheels") / "wheelhouse"
    command: list[str | Path] = [ROOT / "ops" / "install.sh", "--build-wheelhouse", built]
    with alone("wheelhouse"):
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        shutil.copytree(built, copy)
    return copy


@pytest.fixture(scope="session")
def installed_host(
    wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceHost]:
    """A host on which ops/install.sh has installed the service, offline."""
    folder = tmp_path_factory.mktemp("service")
    next_checkout = folder / "next"
    copy_checkout(next_checkout, version=NEXT_VERSION)
    build_wheel(next_checkout, wheelhouse)
    with container(folder, "service") as box:
        root = box.root
        shutil.copytree(wheelhouse, root / WHEELHOUSE.lstrip("/"))
        copy_checkout(root / CHECKOUT.lstrip("/"))
        shutil.move(next_checkout, root / "root" / "next")
        host = ServiceHost(box)
        box.write("/etc/ai-ticket/ai-ticket.conf", SETTINGS)
        host.install()
        host.start_kobold("--instant")
        yield host


@pytest.fixture
def host(installed_host: ServiceHost) -> ServiceHost:
    """The host, everything put back to where an installation leaves it."""
    installed_host.reset()
    return installed_host


# -------------------------------------------------------------------------------------- drills


@pytest.fixture(scope="session")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """A Prometheus with the shipped rules that looks at every stage."""
    need_tools()
    folder, port = tmp_path_factory.mktemp("drills") / "prometheus", free_port()
    # Addresses in the loopback network that nobody else uses: what is free now is so later. Test
    # processes that run side by side have a network each.
    lane = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    addresses = [f"127.94.{64 + lane}.{number}:9464" for number in range(1, STAGES + 1)]
    command = prometheus_command(folder, addresses, NOBODY, port)
    change(folder / "recording.rules.yml", OBJECTIVES)
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
    try:
        _ready(f"http://127.0.0.1:{port}/-/ready", process, log)
        yield Watch(port, log, iter(addresses))
    finally:
        process.kill()
        process.wait()


def _ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up_at and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except (URLError, OSError):
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"Prometheus has not come up:\n{log.read_text()}")


@pytest.fixture
def rehearse(watch: Watch, tmp_path: Path) -> Rehearse:
    """How a chapter is rehearsed: ``async with rehearse(heading) as stage``."""
    return partial(open_stage, watch, tmp_path)
