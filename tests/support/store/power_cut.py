"""A file system that knows what a power cut may leave of each file.

What was synced is there. Of what was written since, any part may be: all of it, a prefix, or some
of the writes in no order, and of each of them some of its sectors.
"""

from __future__ import annotations

import random
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from ai_ticket_daemon.store.sqlite.log_file import LogFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True)
class Change:
    """A write at ``offset``; with ``data`` None, a cut of the file to that length."""

    offset: int
    data: bytes | None


@dataclass(slots=True)
class Contents:
    """One file: what is on the disk for certain, and what was written since."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Change] = field(default_factory=list)

    def left(self, chance: random.Random) -> bytes:
        """Return what a power cut may leave."""
        data = bytearray(self.durable)
        kind = chance.choice(["nothing", "all", "prefix", "some", "torn"])
        changes = self.pending
        if kind == "nothing":
            changes = []
        elif kind == "prefix":
            changes = changes[: chance.randrange(len(changes) + 1)]
        elif kind in {"some", "torn"}:
            changes = [change for change in changes if chance.random() < 0.5]
        for change in changes:
            _apply(data, change, chance if kind == "torn" else None)
        return bytes(data)


@dataclass(frozen=True)
class Moment:
    """The files as they stand, and how much had been promised by then."""

    promised: int
    files: dict[str, Contents]

    def materialise(self, folder: Path, chance: random.Random) -> Path:
        """Write into ``folder`` what a power cut at this moment may leave; return the database."""
        folder.mkdir()
        for name, contents in self.files.items():
            (folder / name).write_bytes(contents.left(chance))
        return folder / "events.db"


class PowerCuts(apsw.VFS):
    """Passes everything on to the usual file system, and keeps moments at random.

    Args:
        name: SQLite's name for it.
        chance: decides which moments are kept.
        share: of the changes of a file, how many are followed by a moment that is kept.
    """

    def __init__(self, name: str, chance: random.Random, *, share: float) -> None:
        self.moments: list[Moment] = []
        self.promised: Callable[[], int] = lambda: 0
        self.syncs = 0
        self._files: dict[str, Contents] = {}
        self._chance = chance
        self._share = share
        self._lock = threading.Lock()
        super().__init__(name, "unix")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        return _File("unix", name, flags, self, Path(path).name)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, syncdir)
        with self._lock:
            self._files.pop(Path(filename).name, None)

    def changed(self, name: str, change: Change) -> None:
        """Note a change of one file; it is not durable yet."""
        # Before the files are looked at: what is promised by now must be in them.
        promised = self.promised()
        with self._lock:
            self._files.setdefault(name, Contents()).pending.append(change)
            if self._chance.random() < self._share:
                self._keep(promised)

    def sync(self, name: str, do: Callable[[], None]) -> None:
        """Carry out a sync of one file by ``do``: what was written before it began is durable."""
        with self._lock:
            self.syncs += 1
            contents = self._files.setdefault(name, Contents())
            count = len(contents.pending)
            if self._chance.random() < self._share:
                self._keep(self.promised())
        do()
        with self._lock:
            for change in contents.pending[:count]:
                _apply(contents.durable, change, None)
            del contents.pending[:count]

    def _keep(self, promised: int) -> None:
        copies = {
            name: Contents(bytearray(contents.durable), list(contents.pending))
            for name, contents in self._files.items()
        }
        self.moments.append(Moment(promised, copies))


class _File(apsw.VFSFile):
    def __init__(
        self, base: str, filename: Any, flags: list[int], cuts: PowerCuts, name: str
    ) -> None:
        self._cuts = cuts
        self._name = name
        super().__init__(base, filename, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        super().xWrite(data, offset)
        self._cuts.changed(self._name, Change(offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._cuts.changed(self._name, Change(newsize, None))

    def xSync(self, flags: int) -> None:  # noqa: N802
        sync = super().xSync
        self._cuts.sync(self._name, lambda: sync(flags))


class RecordedLog(LogFile):
    """SQLite's log, whose syncs are told to the file system above."""

    def __init__(self, path: Path, cuts: PowerCuts) -> None:
        super().__init__(path)
        self._cuts = cuts

    def sync(self) -> None:
        self._cuts.sync(self._path.name, super().sync)


@contextmanager
def power_cuts(name: str, seed: int, *, share: float) -> Iterator[PowerCuts]:
    cuts = PowerCuts(name, random.Random(seed), share=share)
    try:
        yield cuts
    finally:
        cuts.unregister()


def _apply(data: bytearray, change: Change, torn: random.Random | None) -> None:
    offset, new = change.offset, change.data
    if new is None:
        if len(data) > offset:
            del data[offset:]
        return
    if len(data) < offset + len(new):
        data.extend(bytes(offset + len(new) - len(data)))
    if torn is None:
        data[offset : offset + len(new)] = new
        return
    for start in range(0, len(new), SECTOR_BYTES):
        if torn.random() < 0.5:
            part = new[start : start + SECTOR_BYTES]
            data[offset + start : offset + start + len(part)] = part
