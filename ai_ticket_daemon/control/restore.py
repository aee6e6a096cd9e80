"""``ai-ticketctl backup`` and ``restore``: copies of the store, checked before they are trusted."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import closing
from typing import TYPE_CHECKING

import apsw

from ai_ticket_daemon.control.client import Refused
from ai_ticket_daemon.control.session import EXIT_OK
from ai_ticket_daemon.control.witness import asked
from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.store import place
from ai_ticket_daemon.store.audit import audit
from ai_ticket_daemon.store.schema import refuse_foreign
from ai_ticket_daemon.store.seat import SeatTaken, all_seats

if TYPE_CHECKING:
    from pathlib import Path

    from ai_ticket_daemon.control.session import Session

BACKUP_SECONDS = 600.0
PRIVATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_SIDES = ("-wal", "-shm")


def backup(session: Session) -> int:
    """Fetch a copy of the store, check it, and only then let it have its name."""
    output: Path = session.options.output
    draft = output.with_name(f".{output.name}.{os.getpid()}")
    if output.exists():
        raise Refused("exists", f"{output} is there already; name another file")
    asked("backup", {})
    try:
        with (
            session.client.open(
                "POST", "/control/backup", {}, timeout_seconds=BACKUP_SECONDS
            ) as answer,
            os.fdopen(os.open(draft, PRIVATE, 0o600), "wb") as file,
        ):
            shutil.copyfileobj(answer, file)
            file.flush()
            os.fsync(file.fileno())
        events = check(draft, output)
        draft.rename(output)
        _sync(output.parent)
    finally:
        draft.unlink(missing_ok=True)
    session.say({"written": str(output), "events": events, "bytes": output.stat().st_size})
    return EXIT_OK


def restore(session: Session) -> int:
    """Put a backup in the place of the store, while no daemon has that open.

    What was there is kept beside it. Whatever goes wrong, it is still there, under one name or the
    other.
    """
    source: Path = session.options.backup
    try:
        target = place.resolve(session.options.to)
    except OSError as error:
        raise Refused("not_a_store", f"{error.strerror}: {error.filename}") from error
    if source.with_name(f"{source.name}-wal").exists():
        raise Refused(
            "not_a_store",
            f"{source} is no backup but a store in use, or a part of one: `ai-ticketctl backup` "
            "makes a copy that is whole",
        )
    try:
        with all_seats(target):
            told = _replace(source, target)
    except SeatTaken as taken:
        raise Refused(
            "in_use",
            f"{taken}: stop it first, with `systemctl stop ai-ticket.socket ai-ticket.service`",
        ) from taken
    session.say(
        told
        | {
            "next": "systemctl start ai-ticket.socket ai-ticket.service, then ai-ticketctl audit; "
            "what was accepted after the backup is not in it",
        }
    )
    return EXIT_OK


def _replace(source: Path, target: Path) -> dict[str, object]:
    before = target.stat() if target.exists() else None
    owner = before or target.parent.stat()
    draft = target.with_name(f".{target.name}.restore-{os.getpid()}")
    kept = target.with_name(f"{target.name}.before-{time.strftime('%Y%m%dT%H%M%S')}")
    try:
        with source.open("rb") as old, os.fdopen(os.open(draft, PRIVATE, 0o600), "wb") as new:
            shutil.copyfileobj(old, new)
            new.flush()
            os.fsync(new.fileno())
        # Of the copy, not of the source: what counts is what was written here.
        events = check(draft, source)
        if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(draft, owner.st_uid, owner.st_gid)
        if before is not None:
            os.link(target, kept)
        # Before the file they belong to is another one: SQLite would apply them to that.
        for side in _SIDES:
            part = target.with_name(target.name + side)
            if part.exists():
                part.rename(kept.with_name(kept.name + side))
        draft.replace(target)
        _sync(target.parent)
    finally:
        draft.unlink(missing_ok=True)
    return {
        "restored": str(target),
        "events": events,
        "kept": None if before is None else str(kept),
    }


def check(path: Path, called: Path) -> int:
    """Return how many events the store in the file ``path`` holds.

    Raises:
        Refused: it is no store that this version can use, is damaged, or does not add up; it is
            named as ``called`` there.
    """
    try:
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
            refuse_foreign(connection)
            damage = connection.pragma("integrity_check")
            connection.pragma("journal_mode", "delete")
            counted = audit(connection)
    except (apsw.Error, StoreUnavailable) as error:
        raise Refused("not_a_store", f"{called} cannot be used as a store: {error}") from error
    if damage != "ok":
        raise Refused("not_a_store", f"{called} is damaged: {damage}")
    if counted.problems:
        raise Refused("not_a_store", f"{called} does not add up: {'; '.join(counted.problems)}")
    return sum(counted.states.values()) - counted.pruned


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
