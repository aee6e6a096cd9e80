"""What the runbook says, and a page of it while somebody follows it."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNBOOK = ROOT / "docs" / "runbook.md"
NEEDS_A_HOST = ("systemctl ", "journalctl ", "ops/install.sh", "cp ops/prometheus/", "promtool ")
"""How the commands begin that need a systemd, a journal, or a Prometheus of the host."""


def chapters() -> dict[str, tuple[str, ...]]:
    """Return the commands under each heading that has some, in their order."""
    found: dict[str, tuple[str, ...]] = {}
    parts = re.split(r"^#+ (.+)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        for block in re.findall(r"^```console\n(.*?)^```$", body, flags=re.MULTILINE | re.DOTALL):
            commands = re.findall(r"^\$ (.+)$", block, flags=re.MULTILINE)
            found[heading] = (*found.get(heading, ()), *commands)
    return found


class Page:
    """A chapter that is being followed: each command in its turn, none left out.

    Args:
        heading: that of the chapter.
        on_host: whether there is a host with a systemd; without one, what needs it is left to the
            drill that has one.
    """

    def __init__(self, heading: str, *, on_host: bool) -> None:
        self._heading = heading
        self._left = [
            command
            for command in chapters()[heading]
            if on_host or not command.startswith(NEEDS_A_HOST)
        ]

    def turn_to(self, command: str) -> None:
        """Note that the next command of the chapter is about to be run: this one."""
        assert self._left, f"{self._heading} has no command left, and not `{command}`"
        assert self._left[0] == command, f"the next command of {self._heading} is another one"
        del self._left[0]

    def close(self) -> None:
        """Note that the chapter was followed to its end."""
        assert self._left == [], f"these commands of {self._heading} were not run"


@contextmanager
def following(heading: str, *, on_host: bool) -> Iterator[Page]:
    """Follow a chapter for the length of a block, to its end if nothing fails."""
    page = Page(heading, on_host=on_host)
    yield page
    page.close()
