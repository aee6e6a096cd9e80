"""Logging: a fixed event name plus fields, written as journald fields, JSON lines or text."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO, cast

import structlog

from ai_ticket_daemon.config.log import LogFormat, LogLevel
from ai_ticket_daemon.telemetry.journald import JournalSocket, open_journal

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from structlog.typing import FilteringBoundLogger, Processor

_RANK = {LogLevel.DEBUG: 10, LogLevel.INFO: 20, LogLevel.WARNING: 30, LogLevel.ERROR: 40}
_SEVERITY = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


class Logs:
    """The one place log lines leave from; hands out loggers, and can change the level live.

    Args:
        level: the least serious lines to write.
        log_format: how they look; ``AUTO`` decides from where they go.
        stream: where text and JSON go.
        environ: tells whether journald reads (``JOURNAL_STREAM``, systemd.exec(5)).
    """

    def __init__(
        self,
        level: LogLevel = LogLevel.INFO,
        log_format: LogFormat = LogFormat.AUTO,
        *,
        stream: TextIO = sys.stderr,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.level = level
        self._stream = stream
        self.format = _choose(log_format, stream, environ)
        self._journal: JournalSocket | None = None
        if self.format is LogFormat.JOURNALD:
            self._journal = open_journal()

    def logger(self, **fields: object) -> FilteringBoundLogger:
        """Return a logger whose lines all carry ``fields``."""
        processors: list[Processor] = [
            self._drop_quiet,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
        ]
        if self._journal is not None:
            write: Any = self._journal.write
            processors.append(_for_journal)
        else:
            write = _StreamWriter(self._stream)
            stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
            processors += [stamp, _renderer(self.format, self._stream)]
        return cast(
            "FilteringBoundLogger",
            structlog.wrap_logger(
                _Sink(write),
                processors=processors,
                wrapper_class=structlog.make_filtering_bound_logger(0),
                cache_logger_on_first_use=False,
            ).bind(**fields),
        )

    def library_logger(self, event: str, **fields: object) -> logging.Logger:
        """Return a logger of :mod:`logging`, known to nobody else, for a library that wants one."""
        logger = logging.Logger(event)  # noqa: LOG001 - not in the global tree of loggers
        logger.addHandler(LogHandler(self.logger(**fields), event))
        return logger

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
        say(self._event, detail=record.getMessage(), exc_info=record.exc_info or None)


class _Sink:
    """What structlog calls with a finished line, whatever its level."""

    def __init__(self, write: Any) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = self.msg = write


class _StreamWriter:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


def _choose(log_format: LogFormat, stream: TextIO, environ: Mapping[str, str]) -> LogFormat:
    if log_format is not LogFormat.AUTO:
        return log_format
    if "JOURNAL_STREAM" in environ:
        return LogFormat.JOURNALD
    return LogFormat.TEXT if stream.isatty() else LogFormat.JSON


def _renderer(log_format: LogFormat, stream: TextIO) -> Processor:
    if log_format is LogFormat.TEXT:
        return structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    return structlog.processors.JSONRenderer(default=str)


_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_OWN_NAMES = {"trace_id": "TRACE_ID", "message_id": "MESSAGE_ID"}


def _for_journal(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    name = str(event.pop("event"))
    level = event.pop("level", "info")
    trace = event.pop("exception", None)
    words = [name, *(f"{key}={value}" for key, value in event.items() if key not in _OWN_NAMES)]
    message = " ".join(words) if trace is None else " ".join(words) + "\n" + str(trace)
    fields = {"MESSAGE": message, "PRIORITY": str(_PRIORITY.get(level, 6))}
    fields["AI_TICKET_LOG"] = name
    for key, value in event.items():
        fields[_OWN_NAMES.get(key, f"AI_TICKET_{key.upper()}")] = str(value)
    return (fields,), {}
