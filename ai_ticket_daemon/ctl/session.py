"""One run of ``ai-ticketctl``: whom to ask, and how to say what came back.

Exit codes: 0 done; 1 refused, failed, or an objective was missed; 2 wrong usage; 4 no such event or
server; 69 the daemon cannot be reached; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.ctl.client import VIEW_DIRECTORY, Client
from ai_ticket_daemon.visible import visible, visible_in, visible_json

if TYPE_CHECKING:
    import argparse

SOCKET_VARIABLE = "AI_TICKET_SOCKET"
TOKEN_VARIABLE = "AI_TICKET_TOKEN"  # noqa: S105 - where to find one
WIDE = 1000
EXIT_OK, EXIT_REFUSED, EXIT_USAGE, EXIT_NOT_FOUND = 0, 1, 2, 4
EXIT_UNREACHABLE, EXIT_INTERRUPTED = 69, 130


class Session:
    """What a command has at hand.

    ``named``: whoever called said which daemon is meant, by its socket or its instance.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        given = options.socket or os.environ.get(SOCKET_VARIABLE)
        self.named = bool(given or options.instance)
        service = f"ai-ticket-{options.instance}" if options.instance else "ai-ticket"
        self.client = Client(
            Path(given or f"/run/{service}/control.sock"),
            options.timeout,
            view=None if given else VIEW_DIRECTORY / f"{service}.sock",
        )

    def say(self, answer: Any, screen: str = "fields") -> None:
        """Print an answer: as JSON, or as the function ``screen`` of :mod:`render` shows it."""
        if self.options.json:
            sys.stdout.write(visible_json(with_times(answer), indent=2) + "\n")
            return
        from rich.console import Console  # noqa: PLC0415 - not needed for --json

        from ai_ticket_daemon.ctl import render  # noqa: PLC0415

        shown = getattr(render, screen)(visible_in(answer))
        if sys.stdout.isatty():
            Console(highlight=False).print(shown)
            return
        # What a program reads is not to be folded, and has no blanks at the ends of its lines.
        console = Console(width=WIDE, highlight=False)
        with console.capture() as captured:
            console.print(shown)
        sys.stdout.writelines(line.rstrip() + "\n" for line in captured.get().splitlines())

    def tell(self, sentence: str) -> None:
        """Say something to whoever sits there, not to what reads the output."""
        sys.stderr.write(visible(sentence) + "\n")


def with_times(answer: Any) -> Any:
    """Return an answer with its times as ISO 8601 has them; 0 stands for none."""
    match answer:
        case dict():
            return {
                key: _iso(value) if _is_time(key, value) else with_times(value)
                for key, value in answer.items()
            }
        case list():
            return [with_times(value) for value in answer]
        case _:
            return answer


def _is_time(key: object, value: object) -> bool:
    return (key in ("at", "since") or str(key).endswith("_at")) and type(value) in (int, float)


def _iso(at: float) -> str | None:
    told = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return told.replace("+00:00", "Z") if at else None
