"""The command ``ai-ticketctl``: looks at the running daemon and acts on it."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from ai_ticket_daemon.control.client import Refused, Unreachable
from ai_ticket_daemon.control.session import (
    EXIT_INTERRUPTED,
    EXIT_NOT_FOUND,
    EXIT_OK,
    EXIT_REFUSED,
    EXIT_UNREACHABLE,
    Session,
)
from ai_ticket_daemon.control.words import parser

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NOT_FOUND = frozenset({"not_found", "event_not_found"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    session = Session(parser().parse_args(arguments))
    try:
        code = command_of(session.options.run)(session)
        sys.stdout.flush()
    except Unreachable as error:
        session.tell(f"ai-ticketctl: {error}")
        return EXIT_UNREACHABLE
    except Refused as error:
        session.tell(f"ai-ticketctl: {error} ({error.code})")
        return EXIT_NOT_FOUND if error.code in _NOT_FOUND else EXIT_REFUSED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except OSError as error:  # of a file named on the command line, or the disk it is on
        session.tell(f"ai-ticketctl: {error}")
        return EXIT_REFUSED
    return code


def command_of(place: str) -> Callable[[Session], int]:
    """Return the function at ``module:function``; only what is used is imported."""
    module, _, function = place.partition(":")
    found: Callable[[Session], int] = getattr(
        import_module(f"ai_ticket_daemon.control.{module}"), function
    )
    return found


if __name__ == "__main__":
    sys.exit(main())
