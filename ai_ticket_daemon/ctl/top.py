"""``ai-ticketctl top``: the status, live, until ``q`` or Ctrl-C, also while the daemon is away."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ai_ticket_daemon.ctl import render
from ai_ticket_daemon.ctl.client import Refused, Unreachable
from ai_ticket_daemon.ctl.session import EXIT_OK, EXIT_USAGE, with_times
from ai_ticket_daemon.visible import visible, visible_in, visible_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from ai_ticket_daemon.ctl.session import Session


def top(session: Session) -> int:
    """Show the screen again and again."""
    if session.options.json:
        return _lines(session)
    console = Console(highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        session.tell("ai-ticketctl: top needs a terminal; ask for status again and again instead")
        return EXIT_USAGE
    try:
        with _keys(), Live(console=console, auto_refresh=False, screen=True) as live:
            shown: RenderableType = Text()
            while True:
                head = Text(time.strftime("%H:%M:%S"), style="dim")
                try:
                    shown = render.status(visible_in(session.client.look("status")))
                except (Unreachable, Refused) as error:
                    # What was seen last stays on the screen, below what is wrong now.
                    head.append(f"  {visible(str(error))}", style="bold red")
                live.update(Group(head, Text(), shown), refresh=True)
                if _quit_within(session.options.interval):
                    return EXIT_OK
    except KeyboardInterrupt:
        return EXIT_OK


def _lines(session: Session) -> int:
    """Print the status as a line of JSON, again and again, until interrupted."""
    while True:
        report = with_times(session.client.look("status"))
        sys.stdout.write(visible_json(report) + "\n")
        sys.stdout.flush()
        time.sleep(session.options.interval)


@contextmanager
def _keys() -> Iterator[None]:
    """Have single keys come in at once, unseen, for the length of a block."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _quit_within(seconds: float) -> bool:
    """Wait so long; return at once, and True, if ``q`` is typed, or the terminal is gone."""
    if not sys.stdin.isatty():
        time.sleep(seconds)
        return False
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if select.select([sys.stdin], [], [], left)[0]:
            typed = os.read(sys.stdin.fileno(), 64)
            if not typed or b"q" in typed.lower():
                return True
    return False
