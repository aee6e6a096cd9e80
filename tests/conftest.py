"""What tests share: a host with the service installed, and a Prometheus that watches drills."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

import certifi
import pytest

from ai_ticket_daemon.host.collector import uncollected
from tests.support.costs import Costs
from tests.support.drills.stage import Watch, open_stage
from tests.support.lacks import LACKS, Lack
from tests.support.project import ROOT
from tests.support.side_by_side import SideBySide, place
from tests.support.system.container import BUILD_SECONDS, CACHE, alone, container, need_container
from tests.support.system.monitoring import change, need_tools, prometheus_command
from tests.support.system.ports import free_port
from tests.support.system.service_host import (
    CHECKOUT,
    SETTINGS,
    WHEELHOUSE,
    ServiceHost,
    build_wheel,
    copy_checkout,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.support.drills.stage import Rehearse

NEXT_VERSION = "0.1.1"
STAGES = 12
"""More than any one file of drills has."""
START_SECONDS = 60
NOBODY = "127.0.0.1:9"
"""Where no Alertmanager listens."""
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


@pytest.fixture(scope="session", autouse=True)
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have clients of this process load one authority, and not all there are.

    That takes 20 ms for each client, and the tests make thousands; who tests TLS brings its own.
    """
    file = tmp_path_factory.mktemp("authority") / "one.pem"
    first, end, _ = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----\n")
    file.write_text(first + end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certifi, "where", lambda: str(file))
        yield


# ------------------------------------------------------------------------------- side by side


def pytest_configure(config: pytest.Config) -> None:
    """Tell what the tests cost."""
    config.pluginmanager.register(Costs())


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage in what thousands of tests are made of: it stays."""
    with uncollected():
        return (yield)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SideBySide:
    """Return who hands out the tests to the processes."""
    return SideBySide(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what takes long."""
    items.sort(key=_place)


def _place(item: pytest.Item) -> tuple[int, bool]:
    return place(item.nodeid, system=item.get_closest_marker("system") is not None)


# -------------------------------------------------------------------------------------- a host


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the wheelhouse that ops/install.sh builds; tests may add to it."""
    need_container()
    copy = tmp_path_factory.mktemp("wheels") / "wheelhouse"
    with alone("wheelhouse"):
        built = _build_wheelhouse(os.environ.get("PYTEST_XDIST_TESTRUNUID"))
        shutil.copytree(built, copy)
    return copy


def _build_wheelhouse(run: str | None) -> Path:
    """Build it, unless another process of the same run of the tests has done so."""
    built, built_by = CACHE / "wheelhouse", CACHE / "wheelhouse.run"
    if run is None or not built_by.exists() or built_by.read_text() != run:
        built_by.unlink(missing_ok=True)
        command: list[str | Path] = [ROOT / "ops" / "install.sh", "--build-wheelhouse", built]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        built_by.write_text(run or "")
    return built


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


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    """A Prometheus with the shipped rules that looks at every stage of a file.

    No longer than that: it takes a sixth of a processor, whether anybody asks it or not.
    """
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
            urllib.request.urlopen(url, timeout=START_SECONDS).close()
        except (URLError, OSError):
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"Prometheus has not come up:\n{log.read_text()}")


@pytest.fixture
def rehearse(watch: Watch, tmp_path: Path) -> Rehearse:
    """How a chapter is rehearsed: ``async with rehearse(heading) as stage``."""
    return partial(open_stage, watch, tmp_path)
