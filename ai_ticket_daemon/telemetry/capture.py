"""Keeps the last payloads that failed or were refused, redacted, for whoever has to find out why.

An actor: :meth:`Capture.run` must be running. It owns the files in ``log.capture_directory``; it
takes events that failed or expired, and what was refused for what it says, a few at a time, and
writes them in a thread. Of each kind the newest are kept: a client that sends nothing but nonsense
does not push out the events that failed.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon.events.json_bounds import values_of
from ai_ticket_daemon.events.outcome import Failed
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.host.exhaustion import Exhaustion
from ai_ticket_daemon.telemetry.guard import Failures
from ai_ticket_daemon.telemetry.redact import redact
from ai_ticket_daemon.tracecontext import kept_trace_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from ai_ticket_daemon.clock import Clock
    from ai_ticket_daemon.config.log import LogConfig
    from ai_ticket_daemon.config.tree import Config
    from ai_ticket_daemon.errors import ErrorCode
    from ai_ticket_daemon.events.event import Event
    from ai_ticket_daemon.events.outcome import Outcome

MAILBOX_EVENTS = 16
"""How many failing payloads may wait to be written; in a burst of failures a sample will do."""
MOST_REFUSED_BYTES = 64 * 1024
"""How much is kept of a payload that was refused; what was accepted has limits of its own."""
_REFUSED = "-refused-"
_FAILING = frozenset({EventState.FAILED, EventState.EXPIRED})


@dataclass(frozen=True, slots=True)
class Refused:
    """What was refused for what it says: a request's body (bytes), or one item of a batch."""

    trace_id: str
    route: str
    code: ErrorCode
    message: str
    details: Mapping[str, Any] | None
    payload: object
    size_bytes: int | None = None
    """How long the payload was, of which only the beginning may be here."""


@dataclass(frozen=True, slots=True)
class _Ended:
    event: Event
    state: EventState
    outcome: Failed
    ahead: float


class Capture:
    """Writes failing payloads, each to a file of its own.

    Args:
        settings: the ``[log]`` section in force now.
        log: told when the files cannot be written.
        failures: told of faults of this program.
        exhaustion: told of what the host lacks.
        clock: tells the time.
    """

    def __init__(
        self,
        settings: Callable[[], LogConfig],
        log: FilteringBoundLogger,
        failures: Failures | None = None,
        exhaustion: Exhaustion | None = None,
        *,
        clock: Clock,
    ) -> None:
        self._exhaustion = exhaustion or Exhaustion()
        self._failures = failures or Failures("capture", log)
        self._settings = settings
        self._log = log
        self._clock = clock
        self._send, self._receive = trio.open_memory_channel[_Ended | Refused](MAILBOX_EVENTS)
        self._works = True
        self.override: int | None = None
        """How many payloads an operator wants kept, in place of the conf file; None: as it says."""

    @property
    def payloads(self) -> int:
        """How many payloads are kept now; 0 for none."""
        return self._settings().capture_payloads if self.override is None else self.override

    def in_effect(self, config: Config) -> Config:
        """Return ``config`` with the override, if there is one."""
        return replace(config, log=replace(config.log, capture_payloads=self.payloads))

    @property
    def directory(self) -> Path:
        """Where they are kept."""
        return self._settings().capture_directory

    def ended(self, event: Event, state: EventState, outcome: Outcome) -> None:
        """Keep the event if it failed and captures are on; never blocks."""
        if self.payloads == 0 or state not in _FAILING:
            return
        if isinstance(outcome, Failed):
            self._take(_Ended(event, state, outcome, self._clock.ahead))

    def refused(self, refused: Refused) -> None:
        """Keep what was refused, if captures are on; never blocks."""
        if self.payloads:
            payload = refused.payload
            if isinstance(payload, bytes):  # the rest of it would be kept for nothing
                head = payload[:MOST_REFUSED_BYTES]
                refused = replace(refused, payload=head, size_bytes=len(payload))
            self._take(refused)

    def _take(self, what: _Ended | Refused) -> None:
        with suppress(trio.WouldBlock):  # a sample will do
            self._send.send_nowait(what)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what comes; runs until cancelled."""
        task_status.started()
        async for what in self._receive:
            write = partial(
                keep,
                self.directory,
                newest=max(1, self.payloads),
                now=self._clock.now(),
            )
            try:
                await trio.to_thread.run_sync(write, what)
            except Exception as error:  # noqa: BLE001 - the edge: one payload never costs the actor
                lacking = self._exhaustion.meets(error, "capture")
                if lacking is None and not isinstance(error, OSError):
                    self._failures.note("keep", error)
                    continue
                if self._works:
                    reason = str(error) if lacking is None else lacking.lack
                    self._log.warning("capture_failed", reason=reason)
                self._works = False
            else:
                self._works = True


def describe(what: _Ended | Refused) -> Mapping[str, object]:
    """Return what is kept, redacted."""
    return _of_event(what) if isinstance(what, _Ended) else _of_refused(what)


def _of_refused(refused: Refused) -> Mapping[str, object]:
    payload = refused.payload
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    if len(data) > MOST_REFUSED_BYTES or payload is data:
        payload = _readable(data[:MOST_REFUSED_BYTES])
    size = len(data) if refused.size_bytes is None else refused.size_bytes
    return {
        "trace_id": refused.trace_id,
        "route": refused.route,
        "error": refused.code.value,
        "message": redact(refused.message),
        "details": redact(refused.details),
        "bytes": size,
        "payload": redact(payload),
    }


def _readable(data: bytes) -> object:
    """Return the JSON value of ``data``, or its text."""
    try:
        values_of(data)
        return json.loads(data)
    except (ValueError, RecursionError):  # no JSON, or too much of it
        return data.decode("utf-8", "replace")


def _of_event(ended: _Ended) -> Mapping[str, object]:
    event, state, outcome = ended.event, ended.state, ended.outcome
    sampling = event.sampling
    about = {
        "event_id": event.event_id,
        "trace_id": kept_trace_id(event.trace_context),
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
                    "started_at": _iso(attempt.started_at + ended.ahead),
                    "ended_at": _iso(attempt.ended_at + ended.ahead),
                    "error": None if attempt.error is None else attempt.error.value,
                    "message": attempt.message,
                }
                for attempt in outcome.attempts
            ],
            "submitted_at": _iso(event.submitted_at + ended.ahead),
            "deadline_at": _iso(event.deadline_at + ended.ahead),
            "priority": event.priority,
            "stream": event.stream,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop": list(sampling.stop),
            "seed": sampling.seed,
            "reasoning": event.reasoning.value,
            "reasoning_effort": event.reasoning_effort,
            "messages": [
                {"role": message.role.value, "content": message.content}
                for message in event.messages
            ],
            "metadata": event.metadata,
        }.items()
    }


def keep(folder: Path, what: _Ended | Refused, *, newest: int, now: float) -> None:
    """Write it where only the daemon's user can read it; delete all but the newest of its kind.

    ``now`` names the file, and is of a clock that never goes back: the newest has the last name.

    Raises:
        OSError: it could not be written.
    """
    payload = describe(what)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    is_refused = isinstance(what, Refused)
    rest = f"{_REFUSED}{what.trace_id}" if isinstance(what, Refused) else f"-{what.event.event_id}"
    name = f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%S.%fZ}{rest}.json"
    draft = folder / f".{name}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(payload, file, indent=2)
        file.write("\n")
    draft.rename(folder / name)
    kept = sorted(f for f in folder.glob("*.json") if (_REFUSED in f.name) is is_refused)
    for old in kept[: max(0, len(kept) - newest)]:
        old.unlink(missing_ok=True)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
