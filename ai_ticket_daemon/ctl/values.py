"""What the arguments of a command may be, each as it is read and refused."""

from __future__ import annotations

import argparse
from difflib import get_close_matches
from typing import TYPE_CHECKING

from ai_ticket_daemon.ctl.load.arrivals import MAX_OPEN
from ai_ticket_daemon.events.state import EventState

if TYPE_CHECKING:
    from collections.abc import Callable


def duration(text: str) -> float:
    """Return seconds, from ``90``, ``90s``, ``15m``, ``2h`` or ``3d``."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    number, factor = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        return float(number) * factor
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 90s, 15m, 2h") from None


def positive(text: str) -> float:
    """Return a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return number


def clients(text: str) -> int:
    """Return a whole number: of clients that the generator can be, or of copies to keep."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_OPEN):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {MAX_OPEN}")
    return int(text)


def number(lowest: int, highest: int) -> Callable[[str], int]:
    """Return what reads a whole number from ``lowest`` to ``highest``."""

    def read(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            found = lowest - 1
        if not lowest <= found <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {lowest} to {highest}")
        return found

    return read


def states(text: str) -> str:
    """Return names of states, parted by commas, as they are."""
    known = [state.value for state in EventState]
    for name in filter(None, text.split(",")):
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise argparse.ArgumentTypeError(f"{name!r} is no state; {hint}")
    return text
