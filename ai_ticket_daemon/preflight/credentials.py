"""Credentials: where a daemon that runs was given an older copy than the next start would be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.read.credentials import PREFIX, SET_ID, SOURCE
from ai_ticket_daemon.preflight.finding import Finding, Weight

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

COPIES = Path("/run/credentials")
"""Where systemd puts the copies, in a directory for each unit."""


def stale_copies(
    named: Iterable[tuple[str, str]],
    running: Iterable[str],
    *,
    source: Path = SOURCE,
    copies: Path = COPIES,
) -> Iterator[Finding]:
    """Yield where a reload and the next start would not see the same credential.

    Args:
        named: every file that the conf file names, with its key.
        running: the units whose daemons run.
        source: where the copies are made from.
        copies: where they are.
    """
    units = list(running)
    for key, name in named:
        if not name.startswith(PREFIX):
            continue
        credential = name.removeprefix(PREFIX)
        original = source / credential
        if not original.is_file():
            continue
        for unit in units:
            told = _differs(original, copies / unit / f"{SET_ID}_{credential}")
            if told is not None:
                yield Finding(
                    Weight.WARNING,
                    f"{key}: {name}: the daemon of {unit} {told}; the next start takes {original}",
                )


def _differs(original: Path, copy: Path) -> str | None:
    try:
        same = copy.read_bytes() == original.read_bytes()
    except FileNotFoundError:
        return "was not given it: a reload would be refused"
    return None if same else "has an older copy: a reload goes on with that one"
