"""The command ``ai-ticketctl``: looks at the running daemon and acts on it."""

from __future__ import annotations

import errno
import sys
from functools import partial
from typing import TYPE_CHECKING

from ai_ticket_daemon.ctl.cli import parser
from ai_ticket_daemon.ctl.client import Refused, Unreachable
from ai_ticket_daemon.ctl.session import (
    EXIT_INTERRUPTED,
    EXIT_NOT_FOUND,
    EXIT_OK,
    EXIT_REFUSED,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    Session,
)
from ai_ticket_daemon.standard_streams import run_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_ticket_daemon.ctl.command_tree import Action

_NOT_FOUND = frozenset({"not_found", "event_not_found"})
_WRONG_USAGE = frozenset({"invalid_parameter"})
_REMEDIES: dict[type[OSError], str] = {
    FileNotFoundError: "is the path right, and does its directory exist?",
    PermissionError: "use sudo, or name a place that this user may use",
    IsADirectoryError: "name a file in it",
    NotADirectoryError: "a part of the path is a file",
    FileExistsError: "name another one, or remove it first",
}
_REMEDIES_BY_NUMBER = {
    errno.ENOSPC: "free space there, or name a place on another disk",
    errno.EROFS: "name a place that can be written to",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    run = partial(_main, arguments)
    return run_command("ai-ticketctl", run, quiet=EXIT_OK, unwritable=EXIT_REFUSED)


def _main(arguments: Sequence[str] | None) -> int:
    session = Session(parser().parse_args(arguments))
    run: Action = session.options.run
    try:
        return run(session)
    except Unreachable as error:
        session.tell(f"ai-ticketctl: {error}")
        return EXIT_UNREACHABLE
    except Refused as error:
        session.tell(f"ai-ticketctl: {error} ({error.code})")
        if error.code in _WRONG_USAGE:
            return EXIT_USAGE
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
        session.tell(f"ai-ticketctl: {file_error(error)}")
        return EXIT_REFUSED


def file_error(error: OSError) -> str:
    """Return what is wrong with a file, where, and what to do about it."""
    reason = error.strerror or str(error)
    remedy = _REMEDIES.get(type(error)) or _REMEDIES_BY_NUMBER.get(error.errno or 0, "")
    place = "" if error.filename is None else f"{error.filename}: "
    return f"{place}{reason}{f'; {remedy}' if remedy else ''}"


if __name__ == "__main__":
    sys.exit(main())
