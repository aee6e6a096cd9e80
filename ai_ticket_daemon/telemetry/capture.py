"""Keeps the payloads of the last events that failed, redacted, for whoever has to find out why.

An actor: :meth:`Capture.run` must be running. It owns the files in ``log.capture_directory``; it
takes events that failed or expired, a few at a time, and writes them in a thread.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.events.event import Event
from ai_ticket_daemon.events.outcome import Failed
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.telemetry.exemplars import trace_id_of
from ai_ticket_daemon.telemetry.redact import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from ai_ticket_daemon.config.log import LogConfig
    from ai_ticket_daemon.events.outcome import Outcome

MAILBOX_EVENTS = 16
"""How many failing events may wait to be written; in a burst of failures a sample will do."""
_FAILING = frozenset({EventState.FAILED, EventState.EXPIRED})


class Capture:
    """Writes failing payloads, each to a file of its own.

    Args:
        settings: the ``[log]`` section in force now.
        log: told when the files cannot be written.
    """

    def __init__(self, settings: Callable[[], LogConfig], log: FilteringBoundLogger) -> None:
        self._settings = settings
        self._log = log
        self._send, self._receive = trio.open_memory_channel[tuple[Event, EventState, Failed]](
            MAILBOX_EVENTS
        )
        self._works = True

    def ended(self, event: Event, state: EventState, outcome: Outcome) -> None:
        """Keep the event if it failed and captures are on; never blocks."""
        if self._settings().capture_payloads == 0 or state not in _FAILING:
            return
        if isinstance(outcome, Failed):
            try:
                self._send.send_nowait((event, state, outcome))
            except trio.WouldBlock:
                return  # a sample will do

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what comes; runs until cancelled."""
        task_status.started()
        async for event, state, outcome in self._receive:
            settings = self._settings()
            write = partial(
                keep, settings.capture_directory, newest=max(1, settings.capture_payloads)
            )
            try:
                await trio.to_thread.run_sync(write, event, state, outcome)
            except OSError as error:
                if self._works:
                    self._log.warning("capture_failed", reason=str(error))
                self._works = False
            else:
                self._works = True


def describe(event: Event, state: EventState, outcome: Failed) -> Mapping[str, object]:
    """Return what is kept of an event, redacted."""
    sampling = event.sampling
    about = {
        "event_id": event.event_id,
        "trace_id": trace_id_of(event),
        "state": state.value,
        "error": outcome.code.value,
    }
    return about | {
        name: redact(value)
        for name, value in {
            "message": outcome.message,
            "details": outcome.details,
            "attempts": [
                {
                    "backend": attempt.backend,
                    "started_at": _iso(attempt.started_at),
                    "ended_at": _iso(attempt.ended_at),
                    "error": None if attempt.error is None else attempt.error.value,
                    "message": attempt.message,
                }
                for attempt in outcome.attempts
            ],
            "submitted_at": _iso(event.submitted_at),
            "deadline_at": _iso(event.deadline_at),
            "priority": event.priority,
            "stream": event.stream,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop": list(sampling.stop),
            "seed": sampling.seed,
            "messages": [
                {"role": message.role.value, "content": message.content}
                for message in event.messages
            ],
            "metadata": event.metadata,
        }.items()
    }


def keep(folder: Path, event: Event, state: EventState, outcome: Failed, *, newest: int) -> None:
    """Write one event where only the daemon's user can read it; delete all but the newest files.

    Raises:
        OSError: it could not be written.
    """
    payload = describe(event, state, outcome)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{event.event_id}.json"
    draft = folder / f".{name}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(payload, file, indent=2)
        file.write("\n")
    draft.rename(folder / name)
    kept = sorted(folder.glob("*.json"))
    for old in kept[: max(0, len(kept) - newest)]:
        old.unlink(missing_ok=True)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
