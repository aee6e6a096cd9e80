"""Logging: a fixed event name plus fields, written as journald fields, JSON lines or text."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, TextIO, cast

import structlog

from ai_ticket_daemon.config.log import LogFormat, LogLevel
from ai_ticket_daemon.systemd.notify import journal_reads
from ai_ticket_daemon.telemetry.logs.journald import SOCKET_PATH, JournalWriter
from ai_ticket_daemon.telemetry.logs.messages import MESSAGES
from ai_ticket_daemon.telemetry.logs.stream import StreamWriter
from ai_ticket_daemon.visible import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping, Sequence

    from structlog.typing import FilteringBoundLogger, Processor

_RANK = {LogLevel.DEBUG: 10, LogLevel.INFO: 20, LogLevel.WARNING: 30, LogLevel.ERROR: 40}
_SEVERITY = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}

REMEMBERED_LINES = 500
"""For a support bundle, where no journal is at hand."""


class Logs:
    """The one place log lines leave from; hands out loggers, and can change the level live.

    Args:
        level: the least serious lines to write.
        log_format: how they look; ``AUTO`` decides from where they go.
        stream: where text and JSON go.
        environ: tells whether journald reads ``stream`` (``JOURNAL_STREAM``, systemd.exec(5)).
        journal_path: where journald listens.

    Raises:
        OSError: ``JOURNALD`` was asked for and journald is not there.
    """

    def __init__(
        self,
        level: LogLevel = LogLevel.INFO,
        log_format: LogFormat = LogFormat.AUTO,
        *,
        stream: TextIO = sys.stderr,
        environ: Mapping[str, str] = os.environ,
        journal_path: str = SOCKET_PATH,
    ) -> None:
        self.level = level
        self._stream = stream
        self._lost = Tally()
        self._unsaid = 0
        self._journal: JournalWriter | None = None
        self.format = log_format
        if log_format is LogFormat.AUTO:
            under_journald = _is_read_by_journald(stream, environ)
            self.format = LogFormat.TEXT if stream.isatty() else LogFormat.JSON
            if under_journald and os.path.exists(journal_path):  # noqa: PTH110 - may be a socket
                self.format = LogFormat.JOURNALD
        if self.format is LogFormat.JOURNALD:
            self._journal = JournalWriter(journal_path, dropped=self._lost.add)
        self._plain = StreamWriter(stream, dropped=self._lost.add)
        self._recent: deque[dict[str, Any]] = deque(maxlen=REMEMBERED_LINES)
        self._log = self.logger(actor="logs")

    def recent(self) -> list[dict[str, Any]]:
        """Return the last lines, the oldest first, with the time of each."""
        return list(self._recent)

    def logger(self, **fields: object) -> FilteringBoundLogger:
        """Return a logger whose lines all carry ``fields``."""
        processors: list[Processor] = [
            self._drop_quiet,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _add_message_id,
            self._remember,
        ]
        if self._journal is not None:
            write: Any = self._journal.write
            processors.append(_for_journal)
        else:
            write = self._plain.write
            stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
            processors += [stamp, *_renderers(self.format, self._stream)]
        return cast(
            "FilteringBoundLogger",
            structlog.wrap_logger(
                _Sink(write),
                processors=processors,
                wrapper_class=structlog.make_filtering_bound_logger(0),
                cache_logger_on_first_use=False,
            ).bind(**fields),
        )

    def take_losses(self) -> int:
        """Return how many lines were lost since the last call.

        Their number is logged, too, as soon as lines get through again.
        """
        lost = self._lost.take()
        self._unsaid += lost
        if self._unsaid and (self._journal or self._plain).is_idle:
            unsaid, self._unsaid = self._unsaid, 0
            self._log.warning("log_lines_dropped", dropped=unsaid)
        return lost

    def close(self) -> None:
        """Let the last lines out; bounded."""
        (self._journal or self._plain).close()

    def library_logger(self, event: str, **fields: object) -> logging.Logger:
        """Return a logger of :mod:`logging`, known to nobody else, for a library that wants one."""
        logger = logging.Logger(event)  # noqa: LOG001 - not in the global tree of loggers
        logger.addHandler(LogHandler(self.logger(**fields), event))
        return logger

    def _remember(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        self._recent.append({"at": time.time(), **event})
        return event

    def _drop_quiet(
        self, _logger: object, method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        if _SEVERITY.get(method, 40) < _RANK[self.level]:
            raise structlog.DropEvent
        return event


class LogHandler(logging.Handler):
    """Takes what a library says through :mod:`logging` and says it as ``event`` with its text."""

    def __init__(self, log: FilteringBoundLogger, event: str) -> None:
        super().__init__()
        self._log = log
        self._event = event

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one record on."""
        level = record.levelname.lower()
        say = getattr(self._log, level if level in _SEVERITY else "info")
        fields = {
            key: value for name, key in _FROM_RECORD.items() if (value := vars(record).get(name))
        }
        say(self._event, detail=record.getMessage(), exc_info=record.exc_info or None, **fields)


_FROM_RECORD = {
    "AI_TICKET_ERROR": "error",
    "AI_TICKET_EVENT_ID": "event_id",
    "TRACE_ID": "trace_id",
}
"""What ``extra`` of a library's logger may bring along."""


class Tally:
    """A number that any thread may add to."""

    def __init__(self) -> None:
        self._number = 0
        self._lock = threading.Lock()

    def add(self, number: int) -> None:
        """Add to it."""
        with self._lock:
            self._number += number

    def take(self) -> int:
        """Return it, and start from 0 again."""
        with self._lock:
            number, self._number = self._number, 0
        return number


class _Sink:
    """What structlog calls with a finished line, whatever its level."""

    def __init__(self, write: Any) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = self.msg = write


def _is_read_by_journald(stream: TextIO, environ: Mapping[str, str]) -> bool:
    try:
        return journal_reads(environ, stream.fileno())
    except (OSError, ValueError):  # a stream that is no file
        return False


def _add_message_id(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    message = MESSAGES.get(event["event"])
    if message is not None:
        event["message_id"] = message.message_id
    return event


def _renderers(log_format: LogFormat, stream: TextIO) -> Sequence[Processor]:
    if log_format is LogFormat.TEXT:
        plain = structlog.dev.plain_traceback
        console = structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)
        return (_make_visible, console)
    return (structlog.processors.JSONRenderer(default=str),)


def _make_visible(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Let no text of an exception act on the terminal; the renderer does it for the fields."""
    if "exception" in event:
        event["exception"] = visible(str(event["exception"]))
    return event


_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_OWN_NAMES = {"trace_id": "TRACE_ID", "message_id": "MESSAGE_ID"}
_UNSPOKEN = frozenset({*_OWN_NAMES, "actor"})
"""Fields that are not in the text of a line, only beside it."""


def _for_journal(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    name = str(event.pop("event"))
    level = event.pop("level", "info")
    trace = event.pop("exception", None)
    words = [name, *(f"{key}={value}" for key, value in event.items() if key not in _UNSPOKEN)]
    message = " ".join(words) if trace is None else " ".join(words) + "\n" + str(trace)
    fields = {"MESSAGE": message, "PRIORITY": str(_PRIORITY.get(level, 6))}
    fields["SYSLOG_IDENTIFIER"] = "ai-ticket-daemon"
    fields["AI_TICKET_LOG"] = name
    for key, value in event.items():
        if value is not None:
            fields[_OWN_NAMES.get(key, f"AI_TICKET_{key.upper()}")] = str(value)
    return (fields,), {}
