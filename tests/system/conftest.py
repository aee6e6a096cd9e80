"""What the tests of the installed service share: one container, with the service in it."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from container import CACHE, ROOT, container, need_container
from service_host import (
    CHECKOUT,
    SETTINGS,
    WHEELHOUSE,
    ServiceHost,
    build_wheel,
    copy_checkout,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUILD_SECONDS = 300
NEXT_VERSION = "0.1.1"


@pytest.fixture(scope="session")
def wheelhouse() -> Path:
    """The wheelhouse that ops/install.sh builds, and the next version beside this one."""
    need_container()
    folder = CACHE / "wheelhouse"
    command: list[str | Path] = [ROOT / "ops" / "install.sh", "--build-wheelhouse", folder]
    built = subprocess.run(
        command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


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
