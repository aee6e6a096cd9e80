"""How the commands are made: each with the common options, examples, and what does it."""

from __future__ import annotations

import argparse
import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import shtab

from ai_ticket_daemon.ctl import commands
from ai_ticket_daemon.ctl.session import SOCKET_VARIABLE
from ai_ticket_daemon.ctl.values import positive
from ai_ticket_daemon.standard_streams import Parser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ai_ticket_daemon.ctl.session import Session

    Action = Callable[[Session], int]
    """Does what a command is for and returns the exit code."""

FILE = shtab.FILE


def each_command(
    of: argparse.ArgumentParser, name: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield every command that does something, by its words."""
    inner = [a for a in of._actions if isinstance(a, argparse._SubParsersAction)]  # noqa: SLF001
    if not inner:
        yield name, of
    for action in inner:
        for word, command in action.choices.items():
            yield from each_command(command, f"{name} {word}".strip())


class CommandParser(Parser):
    """Suggests what may have been meant by a word that is not known."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, with the nearest word, and end with the code for wrong usage."""
        wrong = re.match(r"(.*invalid choice: '(.*)') \(choose from (.*)\)$", message)
        if wrong is not None:
            known = re.findall(r"'([^']*)'", wrong[3])
            near = get_close_matches(wrong[2], known, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
            message = f"{wrong[1]}{hint}"
        super().error(message)


class Commands:
    """Makes commands that all take the common options, and show examples in their help."""

    def __init__(self, among: Any) -> None:
        self._among = among

    def add(
        self, name: str, run: Action, about: str, *examples: str, **defaults: object
    ) -> argparse.ArgumentParser:
        """Add a command that is done by ``run``."""
        added: argparse.ArgumentParser = self._among.add_parser(
            name,
            help=about,
            description=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog="\n  ".join(["examples:", *(f"ai-ticketctl {line}" for line in examples)]),
        )
        added.set_defaults(run=run, **defaults)
        add_common(added, inner=True)
        return added

    def change(self, name: str, about: str, *arguments: str, example: str = "") -> Any:
        """Add a command that orders the change it is named for."""
        return self.add(
            name, commands.change, about, example or name, operation=name, arguments=arguments
        )

    def order(self, name: str, about: str, *arguments: str, example: str = "") -> Any:
        """Add a command that orders a change for all daemons that share the store."""
        example = example or name
        added = self.add(
            name, commands.change, f"{about} Holds for all daemons of the store.",
            example, f"{example} --here", operation=name, arguments=(*arguments, "here"),
        )  # fmt: skip
        added.add_argument("--here", action="store_true", help="this daemon alone, until it ends")
        return added

    def group(self, name: str, about: str) -> Commands:
        """Add a command that has commands of its own."""
        added = self._among.add_parser(name, help=about, description=about)
        return Commands(added.add_subparsers(title="actions", required=True, metavar="ACTION"))


def add_common(to: argparse.ArgumentParser, *, inner: bool) -> None:
    """Add what may stand before the command and behind it; behind it, it overrides."""

    def default(value: object) -> Any:
        return argparse.SUPPRESS if inner else value

    socket = to.add_argument(
        "--socket", type=Path, metavar="PATH", default=default(None),
        help=f"the control socket; default ${SOCKET_VARIABLE} or /run/ai-ticket/control.sock",
    )  # fmt: skip
    socket.complete = FILE  # type: ignore[attr-defined]
    to.add_argument(
        "--instance", metavar="N", default=default(None), help="the instance ai-ticket@N on here"
    )
    to.add_argument(
        "--json", action="store_true", default=default(False), help="print the answer as JSON"
    )
    to.add_argument(
        "--timeout", type=positive, default=default(5.0), metavar="SECONDS",
        help="how long the daemon may be silent (5)",
    )  # fmt: skip


def add_path(to: Any, option: str, metavar: str, **more: Any) -> None:
    """Add an option that takes the path of a file; shells complete it."""
    added = to.add_argument(option, type=Path, metavar=metavar, **more)
    added.complete = FILE
