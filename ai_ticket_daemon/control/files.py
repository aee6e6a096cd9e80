"""``ai-ticketctl bundle``, ``backup`` and ``restore``."""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import tarfile
import time
from contextlib import closing
from typing import TYPE_CHECKING

from ai_ticket_daemon.control.client import Refused, Unreachable
from ai_ticket_daemon.control.session import EXIT_OK, EXIT_REFUSED
from ai_ticket_daemon.store.schema import APPLICATION_ID

if TYPE_CHECKING:
    from pathlib import Path

    from ai_ticket_daemon.control.session import Session

BACKUP_SECONDS = 600.0
_PRIVATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def bundle(session: Session) -> int:
    """Write what helps others to help: no prompts, no completions, no secrets."""
    answer = session.client.look("bundle")
    parts = {
        "status.json": json.dumps(answer["status"], indent=2),
        "config.json": json.dumps(answer["config"], indent=2),
        "history.json": json.dumps(answer["history"], indent=2),
        "tasks.txt": answer["tasks"],
        "metrics.txt": answer["metrics"],
        "logs.ndjson": "".join(json.dumps(line, default=str) + "\n" for line in answer["logs"]),
    }
    output: Path = session.options.output
    with (
        os.fdopen(os.open(output, _PRIVATE, 0o600), "wb") as file,
        tarfile.open(fileobj=file, mode="w:gz") as archive,
    ):
        for name, text in parts.items():
            data = text.encode()
            member = tarfile.TarInfo(f"ai-ticket-bundle/{name}")
            member.size, member.mtime, member.mode = len(data), int(time.time()), 0o600
            archive.addfile(member, io.BytesIO(data))
    session.say({"written": str(output), "files": sorted(parts), "bytes": output.stat().st_size})
    return EXIT_OK


def backup(session: Session) -> int:
    """Fetch a copy of the store, check it, and only then let it have its name."""
    output: Path = session.options.output
    draft = output.with_name(f".{output.name}.{os.getpid()}")
    if output.exists():
        raise Refused("exists", f"{output} is there already; name another file")
    try:
        with (
            session.client.open(
                "POST", "/control/backup", {}, timeout_seconds=BACKUP_SECONDS
            ) as answer,
            os.fdopen(os.open(draft, _PRIVATE, 0o600), "wb") as file,
        ):
            shutil.copyfileobj(answer, file)
            file.flush()
            os.fsync(file.fileno())
        events = _check(draft)
        draft.rename(output)
    finally:
        draft.unlink(missing_ok=True)
    session.say({"written": str(output), "events": events, "bytes": output.stat().st_size})
    return EXIT_OK


def restore(session: Session) -> int:
    """Put a backup in the place of the store; what was there is kept beside it."""
    source: Path = session.options.backup
    target: Path = session.options.to
    try:
        session.client.look("status")
    except (Unreachable, Refused):
        pass
    else:
        session.tell("ai-ticketctl: the daemon is running; stop it first, then restore")
        return EXIT_REFUSED
    events = _check(source)
    before = target.stat() if target.exists() else None
    draft = target.with_name(f".{target.name}.restore-{os.getpid()}")
    kept = target.with_name(f"{target.name}.before-{time.strftime('%Y%m%dT%H%M%S')}")
    try:
        with source.open("rb") as old, os.fdopen(os.open(draft, _PRIVATE, 0o600), "wb") as new:
            shutil.copyfileobj(old, new)
            new.flush()
            os.fsync(new.fileno())
        owner = before or target.parent.stat()
        if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(draft, owner.st_uid, owner.st_gid)
        if before is not None:
            for suffix in ("", "-wal", "-shm"):
                part = target.with_name(target.name + suffix)
                if part.exists():
                    part.rename(kept.with_name(kept.name + suffix))
        draft.rename(target)
    finally:
        draft.unlink(missing_ok=True)
    session.say(
        {
            "restored": str(target),
            "events": events,
            "kept": None if before is None else str(kept),
            "next": "systemctl start ai-ticket, then ai-ticketctl audit",
        }
    )
    return EXIT_OK


def _check(path: Path) -> int:
    """Return how many events the store in ``path`` holds.

    Raises:
        Refused: it is no store, or damaged.
    """
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            [application] = connection.execute("PRAGMA application_id").fetchone()
            [whole] = connection.execute("PRAGMA quick_check").fetchone()
            if application != APPLICATION_ID or whole != "ok":
                raise Refused("not_a_store", f"{path} is no store of this daemon, or damaged")
            [events] = connection.execute("SELECT count(*) FROM event").fetchone()
            return int(events)
    except sqlite3.Error as error:
        raise Refused("not_a_store", f"{path} cannot be used as a store: {error}") from error
