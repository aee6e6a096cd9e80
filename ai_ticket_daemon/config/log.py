"""``[log]``: what is logged, and how it looks."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from ai_ticket_daemon.config.values.rules import absolute_path, choice, integer
from ai_ticket_daemon.config.values.schema import setting


class LogLevel(StrEnum):
    """The least serious lines to write."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How log lines look."""

    AUTO = "auto"
    """``JOURNALD`` under systemd, else ``TEXT`` on a terminal, else ``JSON``."""
    JOURNALD = "journald"
    TEXT = "text"
    JSON = "json"


MOST_CAPTURES = 10_000
"""How many payloads of failing events may be kept, also when an operator asks at run time."""


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What is logged, and how it looks."""

    live: ClassVar[bool] = True
    level: LogLevel = field(
        default=LogLevel.INFO,
        metadata=setting(choice(LogLevel), "The least serious lines to write."),
    )
    format: LogFormat = field(
        default=LogFormat.AUTO,
        metadata=setting(
            choice(LogFormat),
            "`auto` is `journald` under systemd, else `text` on a terminal, else `json`.",
            live=False,
        ),
    )
    capture_payloads: int = field(
        default=0,
        metadata=setting(
            integer(0, MOST_CAPTURES, "payloads"),
            "How many payloads of failed and expired events to keep, and how many of those refused "
            "as invalid, the newest ones, redacted and readable by the daemon's user only; 0 keeps "
            "no more than there are already.",
        ),
    )
    capture_directory: Path = field(
        default=Path("/var/lib/ai-ticket/captures"),
        metadata=setting(absolute_path, "Folder of the kept payloads; made when it is needed."),
    )
