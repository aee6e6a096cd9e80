"""The command ``ai-ticketctl``: looks at the running daemon and acts on it."""

from __future__ import annotations

import sys
from functools import partial
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
from ai_ticket_daemon.standard_streams import run_command

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NOT_FOUND = frozenset({"not_found", "event_not_found"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    run = partial(_main, arguments)
    return run_command("ai-ticketctl", run, quiet=EXIT_OK, unwritable=EXIT_REFUSED)


def _main(arguments: Sequence[str] | None) -> int:
    session = Session(parser().parse_args(arguments))
    try:
        return command_of(session.options.run)(session)
    except Unreachable as error:
        session.tell(f"ai-ticketctl: {error}")
        return EXIT_UNREACHABLE
    except Refused as error:
        session.tell(f"ai-ticketctl: {error} ({error.code})")
        return EXIT_NOT_FOUND if error.code in _NOT_FOUND else EXIT_REFUSED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        # Of a file named on the command line, or the disk it is on; one without a name is what
        # the answer was to be written to.
        if error.filename is None:
            raise
        session.tell(f"ai-ticketctl: {error}")
        return EXIT_REFUSED


def command_of(place: str) -> Callable[[Session], int]:
    """Return the function at ``module:function``; only what is used is imported."""
    module, _, function = place.partition(":")
    found: Callable[[Session], int] = getattr(
        import_module(f"ai_ticket_daemon.control.{module}"), function
    )
    return found


if __name__ == "__main__":
    sys.exit(main())
