"""What a model thinks, written to standard error: whatever reads the output gets the completion."""

from __future__ import annotations

import sys
from contextlib import suppress

from ai_ticket_daemon.visible import visible


class Thinking:
    """What the model thinks before it answers; ``follow``: written as it comes."""

    def __init__(self, *, follow: bool) -> None:
        self.text = ""
        self._follow = follow
        self._open = False

    def add(self, piece: str) -> None:
        """Take a piece of it."""
        self.text += piece
        if piece and self._follow:
            self._open = True
            _write(piece)

    def end(self) -> None:
        """End the line it is on, so that what follows begins a new one."""
        if self._open:
            self._open = False
            _write("\n")


def tell_thinking(text: str | None) -> None:
    """Write what a model thought before its completion, if it did."""
    if text:
        _write(text + "\n")


def _write(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(visible(text))
        sys.stderr.flush()
