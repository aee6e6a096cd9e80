"""``ai-ticketctl backup`` and ``restore``: copies of the store, checked before they are trusted."""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import closing
from typing import TYPE_CHECKING

import apsw

from ai_ticket_daemon.ctl.audit_log import asked
from ai_ticket_daemon.ctl.client import Refused
from ai_ticket_daemon.ctl.session import EXIT_OK, EXIT_USAGE
from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.store.sqlite import place
from ai_ticket_daemon.store.sqlite.audit import audit
from ai_ticket_daemon.store.sqlite.instance_lock import InstanceLockTaken, all_instance_locks
from ai_ticket_daemon.store.sqlite.schema import refuse_foreign

if TYPE_CHECKING:
    from pathlib import Path

    from ai_ticket_daemon.ctl.session import Session

BACKUP_SECONDS = 600.0
PRIVATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_SIDES = ("-wal", "-shm")
_DATED = re.compile(r"events-\d{8}T\d{6}Z\.db")
"""Names of copies in a directory; other files there are nobody's business."""


def backup(session: Session) -> int:
    """Fetch a copy of the store, check it, and only then let it have its name.

    In a directory, older copies are deleted afterwards, and only then.
    """
    options = session.options
    if options.keep is not None and options.directory is None:
        session.tell("ai-ticketctl: --keep goes with --directory")
        return EXIT_USAGE
    output: Path = options.output or _dated(options.directory)
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
    deleted = [] if options.keep is None else thin_out(output, options.keep)
    told = {"written": str(output), "events": events, "bytes": output.stat().st_size}
    session.say(told | ({} if options.directory is None else {"deleted": deleted}))
    return EXIT_OK


def _dated(directory: Path) -> Path:
    """Return a name for a copy that is made now; its directory is made if it is missing."""
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory / f"events-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.db"


def thin_out(newest: Path, keep: int) -> list[str]:
    """Delete what :func:`_dated` once named, but ``keep`` of the last names, ``newest`` among them.

    It is the newest whatever the clock said before.
    """
    others = (path for path in newest.parent.iterdir() if _DATED.fullmatch(path.name))
    older = sorted(path for path in others if path != newest and path.is_file())
    doomed = older[: max(0, len(older) - (keep - 1))]
    for path in doomed:
        path.unlink()
    return [str(path) for path in doomed]


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
        with all_instance_locks(target):
            told = _replace(source, target)
    except InstanceLockTaken as taken:
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
