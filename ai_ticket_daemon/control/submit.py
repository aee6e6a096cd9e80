"""``ai-ticketctl submit``: one event from the command line, or many as NDJSON."""

from __future__ import annotations

import json
import sys
from typing import IO, TYPE_CHECKING, Any

from ai_ticket_daemon.control.client import Refused
from ai_ticket_daemon.control.session import EXIT_OK, EXIT_REFUSED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ai_ticket_daemon.control.client import Answer
    from ai_ticket_daemon.control.session import Session

SILENCE_SECONDS = 60.0
"""The daemon sends a heartbeat more often than that, however long an event takes."""

CHUNK_EVENTS = 200
"""So many lines go out in one request; the next ones when these are done."""


def submit(session: Session) -> int:
    """Submit what was given and print what comes of it."""
    options = session.options
    if options.text not in (None, "-"):
        return _one(session, {"content": options.text, **_wishes(session)})
    if options.file is not None:
        with options.file.open() as file:
            return _many(session, file)
    return _many(session, sys.stdin)


def _wishes(session: Session) -> dict[str, Any]:
    options = session.options
    given = {"max_tokens": options.max_tokens, "priority": options.priority}
    return {name: value for name, value in given.items() if value is not None}


def _one(session: Session, event: dict[str, Any]) -> int:
    options, client = session.options, session.client
    if options.no_wait:
        headers = {"prefer": "respond-async"}
        with client.open("POST", "/event", event, headers=headers) as answer:
            session.say(answer.json())
        return EXIT_OK
    # Always as a stream: its heartbeats tell a slow daemon from one that hangs.
    body = event | {"stream": True}
    pieces = []
    last: dict[str, Any] = {}
    with client.open("POST", "/event", body, timeout_seconds=SILENCE_SECONDS) as answer:
        for frame in _frames(answer):
            last = frame
            pieces.append(frame.get("delta") or "")
            if options.follow and not options.json:
                sys.stdout.write(pieces[-1])
                sys.stdout.flush()
    if not last.get("done"):
        raise Refused("internal_error", "the stream broke off before its end")
    if "error" in last:
        raise Refused(last["error"], last["message"])
    if options.json:
        session.say({"completion": "".join(pieces)} | {k: last[k] for k in last if k != "delta"})
    else:
        sys.stdout.write("\n" if options.follow else "".join(pieces) + "\n")
        session.tell(f"{last['event_id']} on {last['backend']}")
    return EXIT_OK


def _frames(answer: Answer) -> Iterator[dict[str, Any]]:
    for line in answer:
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


def _many(session: Session, lines: IO[str]) -> int:
    """Submit events of NDJSON a chunk at a time; print each answer as it comes."""
    from rich.console import Console  # noqa: PLC0415 - only here is there progress to show
    from rich.progress import (  # noqa: PLC0415  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    wishes, failed = _wishes(session), 0
    events = [json.dumps(json.loads(line) | wishes) for line in lines if line.strip()]
    headers = {"content-type": "application/x-ndjson", "accept": "application/x-ndjson"}
    if session.options.no_wait:
        headers["prefer"] = "respond-async"
    with Progress(
        SpinnerColumn(), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.2f}/s"), TimeRemainingColumn(),
        console=Console(stderr=True), disable=not sys.stderr.isatty(),
    ) as progress:  # fmt: skip
        bar = progress.add_task("events", total=len(events), rate=0.0)
        for begin in range(0, len(events), CHUNK_EVENTS):
            body = "\n".join(events[begin : begin + CHUNK_EVENTS]).encode()
            with session.client.open(
                "POST", "/events", body, headers=headers, timeout_seconds=SILENCE_SECONDS
            ) as answer:
                for line in filter(bytes.strip, answer):
                    told = json.loads(line)
                    failed += int(told.get("status", 200)) >= 400
                    sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")
                    speed = progress.tasks[0].speed or 0.0
                    progress.update(bar, advance=1, rate=speed)
    if failed:
        session.tell(f"{failed} of {len(events)} events failed")
    return EXIT_REFUSED if failed else EXIT_OK
