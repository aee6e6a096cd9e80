"""``ai-ticketctl submit``: one event from the command line, or many as NDJSON."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Self
from urllib.parse import quote

from ai_ticket_daemon.ctl.client import Refused, Unreachable
from ai_ticket_daemon.ctl.ndjson import windows
from ai_ticket_daemon.ctl.session import EXIT_OK, EXIT_REFUSED, EXIT_USAGE
from ai_ticket_daemon.ctl.thinking import Thinking, tell_thinking
from ai_ticket_daemon.events.reasoning import Reasoning
from ai_ticket_daemon.visible import visible, visible_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ai_ticket_daemon.ctl.client import Answer
    from ai_ticket_daemon.ctl.ndjson import Line
    from ai_ticket_daemon.ctl.session import Session

SILENCE_SECONDS = 60.0
"""The daemon sends a heartbeat more often than that, however long an event takes."""
LOOK_SECONDS = 30.0
"""How long one look at an event waits for its end."""
_TOO_LARGE = frozenset({"payload_too_large"})


def submit(session: Session) -> int:
    """Submit what was given and print what comes of it."""
    options = session.options
    sys.stdout.flush()
    if sys.__stdout__ is None:  # closed before the command began: it is known by now
        session.tell("ai-ticketctl: standard output is closed, so nothing was submitted")
        return EXIT_REFUSED
    if options.text not in (None, "-"):
        return _one(session, {"content": options.text, **_wishes(session)})
    if options.file is not None:
        with options.file.open("rb") as file:
            return _many(session, file)
    return _many(session, sys.stdin.buffer)


def _wishes(session: Session) -> dict[str, Any]:
    options = session.options
    given = {
        "max_tokens": options.max_tokens,
        "priority": options.priority,
        "timeout_seconds": options.deadline,
        "reasoning": Reasoning.INCLUDE.value if options.reasoning else None,
        "reasoning_effort": options.reasoning_effort,
    }
    return {name: value for name, value in given.items() if value is not None}


def _one(session: Session, event: dict[str, Any]) -> int:
    options, client = session.options, session.client
    if options.no_wait:
        headers = {"prefer": "respond-async"}
        with client.open("POST", "/event", event, headers=headers) as answer:
            told = answer.json()
        with _printing(told["event_id"]):
            if options.json:
                session.say(told)
            else:
                sys.stdout.write(f"{told['event_id']}\n")
        _tell_if_held(session)
        return EXIT_OK
    _tell_if_held(session)
    # Always as a stream: its heartbeats tell a slow daemon from one that hangs.
    body = event | {"stream": True}
    pieces = []
    thinking = Thinking(follow=options.follow and not options.json)
    last: dict[str, Any] = {}
    unwritten: OSError | None = None
    with client.open("POST", "/event", body, timeout_seconds=SILENCE_SECONDS) as answer:
        for frame in _frames(answer):
            last = frame
            thinking.add(frame.get("reasoning") or "")
            pieces.append(frame.get("delta") or "")
            if pieces[-1]:
                thinking.end()
            if options.follow and not options.json and unwritten is None:
                try:
                    sys.stdout.write(_completion(pieces[-1]))
                    sys.stdout.flush()
                except BrokenPipeError:
                    raise
                except OSError as error:  # to leave now would cancel the event
                    unwritten = error
    thinking.end()
    if not last.get("done"):
        raise Refused("internal_error", "the stream broke off before its end")
    if "error" in last:
        raise Refused(last["error"], last["message"])
    with _printing(last["event_id"]):
        if unwritten is not None:
            raise unwritten
        if options.json:
            told = {"completion": "".join(pieces)} | {k: last[k] for k in last if k != "delta"}
            if options.reasoning:
                told["reasoning"] = thinking.text
            session.say(told)
        else:
            if not options.follow:
                tell_thinking(thinking.text)
            sys.stdout.write("\n" if options.follow else _completion("".join(pieces)) + "\n")
    if not options.json:
        session.tell(f"{last['event_id']} on {last['backend']}")
    return EXIT_OK


@contextmanager
def _printing(event_id: str) -> Iterator[None]:
    """Have written what is printed of an event within the block.

    Raises:
        OSError: it cannot be; the reason tells how to get it all the same.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        remedy = f"`ai-ticketctl wait {event_id}` prints what became of the event"
        raise OSError(error.errno, f"{error.strerror}; {remedy}") from error


def _completion(text: str) -> str:
    """Return a completion as it is to be written: as it is to a pipe, but not to a terminal."""
    return visible(text) if sys.stdout.isatty() else text


def wait(session: Session) -> int:
    """Wait for an event, and print its completion; exit code 1 if it has none."""
    target = f"/event/{quote(session.options.event, safe='')}?wait={LOOK_SECONDS:g}"
    _tell_if_held(session)
    while True:
        with session.client.open("GET", target, timeout_seconds=SILENCE_SECONDS) as answer:
            told = answer.json()
        outcome = told["outcome"]
        if outcome is not None:
            break
    if "error" in outcome:
        raise Refused(outcome["error"], outcome["message"])
    with _printing(session.options.event):
        if session.options.json:
            session.say(outcome)
        else:
            if session.options.reasoning:
                tell_thinking(outcome.get("reasoning"))
            sys.stdout.write(_completion(outcome["completion"]) + "\n")
    return EXIT_OK


def _tell_if_held(session: Session) -> None:
    """Say so if an operator keeps events from being started, so that nobody wonders."""
    with suppress(Refused, Unreachable):  # said of the event itself
        report = session.client.look("status")
        if report["paused"]:
            session.tell("ai-ticketctl: the daemon is paused, so the event waits: see status")


def _frames(answer: Answer) -> Iterator[dict[str, Any]]:
    for line in answer:
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


def _many(session: Session, file: IO[bytes]) -> int:
    """Submit events of NDJSON, a window at a time; print each answer as it comes.

    Each answer has the number of its line; a line that is no event is answered here.
    """
    if session.options.follow:
        session.tell("ai-ticketctl: --follow is for one text; of lines, answers come when they end")
        return EXIT_USAGE
    if file.isatty():
        session.tell("Type an event per line, as JSON; Ctrl-D ends.")
    _tell_if_held(session)
    counts = Counter[bool]()
    with _Progress(file) as progress:
        for window in windows(file, _wishes(session)):
            for bad in window.bad:
                error = {"error": "invalid_input_format", "message": f"This line is {bad.reason}."}
                _print({"line": bad.number, "status": 400, **error})
                session.tell(f"line {bad.number} is {bad.reason}")
                counts[False] += 1
                progress.advance(bad.size)
            for line, answer in _send(session, window.lines):
                _print({"line": line.number, **answer})
                counts[answer["status"] < 400] += 1
                progress.advance(line.size)
    if counts[False]:
        session.tell(f"{counts[False]} of {counts.total()} events failed")
    return EXIT_REFUSED if counts[False] else EXIT_OK


def _send(session: Session, lines: list[Line]) -> Iterator[tuple[Line, dict[str, Any]]]:
    """Send events in one request and yield what comes of each; in two if that is too large.

    Raises:
        Unreachable: the answer breaks off.
        Refused: all of them were, and not for their number.
    """
    if not lines:
        return
    headers = {"content-type": "application/x-ndjson", "accept": "application/x-ndjson"}
    if session.options.no_wait:
        headers["prefer"] = "respond-async"
    body = b"\n".join(line.event for line in lines)
    open_ = dict(enumerate(lines))
    try:
        with session.client.open(
            "POST", "/events", body, headers=headers, timeout_seconds=SILENCE_SECONDS
        ) as answers:
            for text in filter(bytes.strip, answers):
                answer = json.loads(text)
                line = open_.pop(answer.pop("index"))
                yield line, _in_file(answer, line.number)
    except Refused as error:
        if error.code in _TOO_LARGE and len(lines) > 1:
            half = len(lines) // 2
            yield from _send(session, lines[:half])
            yield from _send(session, lines[half:])
            return
        raise Refused(
            error.code, f"{error} Nothing from line {lines[0].number} on was submitted."
        ) from error
    except Unreachable as error:
        raise Unreachable(f"{error}; {_unanswered(open_)}") from error
    if open_:
        raise Unreachable(f"the daemon broke off; {_unanswered(open_)}")


def _in_file(answer: dict[str, Any], number: int) -> dict[str, Any]:
    """Return an answer with the number that its line has in the file, not in the request."""
    told = (answer.get("details") or {}).get("line")
    if told is None:
        return answer
    message = answer["message"].replace(f"Line {told}:", f"Line {number}:", 1)
    return answer | {"message": message, "details": answer["details"] | {"line": number}}


def _unanswered(lines: Mapping[int, Line]) -> str:
    numbers = sorted(line.number for line in lines.values())
    return (
        f"{len(numbers)} lines from {numbers[0]} to {numbers[-1]} have no answer: their events may "
        "be under way, see `ai-ticketctl events list`"
    )


def _print(answer: Mapping[str, Any]) -> None:
    try:
        sys.stdout.write(visible_json(answer) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        told = f"{error.strerror}; no answer from that to line {answer['line']} on was written"
        raise OSError(error.errno, told) from error


class _Progress:
    """A bar on the terminal, if there is one: by the bytes of a file; a pipe has no known end."""

    def __init__(self, file: IO[bytes]) -> None:
        from rich.console import Console  # noqa: PLC0415 - only here is there progress to show
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        status = os.fstat(file.fileno())
        self._began_at = time.monotonic()
        self._done = 0
        self._bar = Progress(
            SpinnerColumn(), BarColumn(), TextColumn("{task.fields[told]}"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
            console=Console(stderr=True), disable=not sys.stderr.isatty(),
            # Above the bar if both are on one terminal; answers that go elsewhere are to go there.
            redirect_stdout=sys.stdout.isatty(),
        )  # fmt: skip
        total = status.st_size if stat.S_ISREG(status.st_mode) else None
        self._task = self._bar.add_task("events", total=total, told="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, size: int) -> None:
        """Note that an event has ended whose line has ``size`` bytes."""
        self._done += 1
        rate = self._done / max(time.monotonic() - self._began_at, 1e-3)
        self._bar.update(self._task, advance=size, told=f"{self._done} events, {rate:.2f}/s")
