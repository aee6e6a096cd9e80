"""The man pages say what the code does, and are sound."""

from __future__ import annotations

import runpy
import subprocess

import pytest

from tests.support.project import ROOT
from tests.support.system.debian_packages import need_packages

pytestmark = pytest.mark.system

FOLDER = ROOT / "docs" / "man"
PAGES: dict[str, str] = runpy.run_path(str(ROOT / "ops" / "man.py"))["pages"]()


def test_the_pages_are_up_to_date() -> None:
    found = {page.name: page.read_text() for page in FOLDER.iterdir()}

    assert found == PAGES, "run: python ops/man.py"


@pytest.mark.parametrize("name", PAGES)
def test_groff_has_nothing_to_say_against_them(name: str) -> None:
    need_packages("manuals")
    command = ["groff", "-man", "-Tutf8", "-P-cbou", "-ww", str(FOLDER / name)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert made.returncode == 0
    assert made.stderr == ""
    assert "SEE ALSO" in made.stdout
