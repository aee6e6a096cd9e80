"""What tests need of Debian: the list that ``ops/bootstrap.sh`` installs from, and its reasons."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.project import ROOT

LIST = ROOT / "ops" / "lib" / "debian-packages"


@dataclass(frozen=True)
class Package:
    """A package of Debian, and what tells whether it is there."""

    need: str
    name: str
    program: str

    @property
    def is_there(self) -> bool:
        if self.program.startswith("/"):
            return Path(self.program).exists()
        return shutil.which(self.program) is not None


def packages() -> list[Package]:
    """Return the whole list."""
    lines = LIST.read_text().splitlines()
    return [Package(*line.split()) for line in lines if line and not line.startswith("#")]


def missing(*needs: str) -> str:
    """Return what is missing for these needs, in one sentence; empty if nothing is."""
    found = [package.name for package in packages() if package.need in needs]
    assert found, f"{needs}: not in {LIST}"
    lacking = [
        package.name for package in packages() if package.need in needs and not package.is_there
    ]
    if not lacking:
        return ""
    return f"missing here; on Debian: apt-get install {' '.join(lacking)}"


def need_packages(*needs: str) -> None:
    """Skip the test, telling why, where packages are missing; in CI that is a failure."""
    reason = missing(*needs)
    if reason:
        cannot_run(reason)


def cannot_run(reason: str) -> None:
    """Skip the test, telling why; in CI that is a failure, so that nothing hides."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
