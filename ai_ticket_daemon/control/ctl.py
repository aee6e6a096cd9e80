"""The command ``ai-ticketctl``: looks at the running daemon and acts on it.

Exit codes: 0 done; 1 refused, failed, or a verdict was not met; 2 wrong usage; 4 no such event or
server; 69 the daemon cannot be reached; 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_ticket_daemon import __version__
from ai_ticket_daemon.control.client import Client, Refused, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.console import RenderableType

SOCKET_VARIABLE = "AI_TICKET_SOCKET"
WIDE = 1000
EXIT_OK, EXIT_REFUSED, EXIT_NOT_FOUND, EXIT_UNREACHABLE, EXIT_INTERRUPTED = 0, 1, 4, 69, 130
_NOT_FOUND = frozenset({"not_found", "event_not_found"})


class Session:
    """One run of the command: whom to ask, and how to say what came back."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.client = Client(options.socket, options.timeout)

    def say(self, answer: Any, screen: Callable[[Any], RenderableType] | None = None) -> None:
        """Print an answer: as JSON, or as ``screen`` shows it."""
        if self.options.json:
            sys.stdout.write(json.dumps(answer, ensure_ascii=False, indent=2) + "\n")
            return
        from rich.console import Console  # noqa: PLC0415 - not needed for --json

        from ai_ticket_daemon.control.screen import fields  # noqa: PLC0415

        # What a program reads is not to be folded.
        width = None if sys.stdout.isatty() else WIDE
        Console(width=width, highlight=False).print((screen or fields)(answer))

    def tell(self, sentence: str) -> None:
        """Say something to whoever sits there, not to what reads the output."""
        sys.stderr.write(sentence + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = parser().parse_args(arguments)
    if options.socket is None:
        instance = f"-{options.instance}" if options.instance else ""
        default = f"/run/ai-ticket{instance}/control.sock"
        options.socket = Path(os.environ.get(SOCKET_VARIABLE) or default)
    session = Session(options)
    try:
        code: int = options.run(session) or EXIT_OK
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
    return code


# Looking at the daemon and acting on it.


def _look(operation: str, screen: str | None = None) -> Callable[[Session], int]:
    def run(session: Session) -> int:
        session.say(session.client.look(operation), _screen(screen))
        return EXIT_OK

    return run


def _change(operation: str, *names: str) -> Callable[[Session], int]:
    def run(session: Session) -> int:
        arguments = {name: getattr(session.options, name) for name in names}
        session.say(session.client.change(operation, **arguments))
        return EXIT_OK

    return run


def _screen(name: str | None) -> Callable[[Any], RenderableType] | None:
    if name is None:
        return None

    def show(answer: Any) -> RenderableType:
        from ai_ticket_daemon.control import screen  # noqa: PLC0415 - not needed for --json

        made: RenderableType = getattr(screen, name)(answer)
        return made

    return show


def _backends(session: Session) -> int:
    answer = session.client.look("backends")
    session.say(answer, lambda a: _shown("backends", a["backends"]))
    return EXIT_OK


def _shown(name: str, answer: Any) -> RenderableType:
    show = _screen(name)
    assert show is not None  # noqa: S101 - it has a name
    return show(answer)


def _top(session: Session) -> int:
    from rich.live import Live  # noqa: PLC0415

    with Live(refresh_per_second=4, screen=True) as live:
        while True:
            live.update(_shown("status", session.client.look("status")))
            time.sleep(session.options.interval)


def _reload(session: Session) -> int:
    if session.options.plan:
        answer = session.client.look("reload-plan")
        session.say(answer)
        return EXIT_OK if answer["valid"] else EXIT_REFUSED
    answer = session.client.change("reload")
    session.say(answer)
    return EXIT_OK if answer["applied"] else EXIT_REFUSED


def _check_config(session: Session) -> int:
    answer = session.client.look("reload-plan")
    session.say({"valid": answer["valid"], "problems": answer["problems"]})
    return EXIT_OK if answer["valid"] else EXIT_REFUSED


def _audit(session: Session) -> int:
    answer = session.client.look("audit")
    session.say(answer)
    return EXIT_REFUSED if answer["problems"] or answer["difference"] else EXIT_OK


def _list(session: Session) -> int:
    options = session.options
    found: list[Any] = []
    below: int | None = None
    while len(found) < options.limit:
        limit = min(500, options.limit - len(found))
        page = session.client.look("events", **wanted(options), below=below, limit=limit)
        found += page["events"]
        below = page["below"]
        if below is None:
            break
    session.say(found, lambda a: _shown("events", a))
    return EXIT_OK


def _event(operation: str, screen: str | None = None) -> Callable[[Session], int]:
    def run(session: Session) -> int:
        answer = session.client.look(operation, event_id=session.options.event)
        session.say(answer, _screen(screen))
        return EXIT_OK

    return run


def _act(action: str) -> Callable[[Session], int]:
    def run(session: Session) -> int:
        from ai_ticket_daemon.control.bulk import act  # noqa: PLC0415

        return act(session, action)

    return run


def _elsewhere(module: str) -> Callable[[Session], int]:
    """Return a command that lives in a module of its own, imported when it is used."""

    def run(session: Session) -> int:
        from importlib import import_module  # noqa: PLC0415

        name, _, function = module.partition(":")
        code: int = getattr(import_module(f"ai_ticket_daemon.control.{name}"), function)(session)
        return code

    return run


def wanted(options: argparse.Namespace) -> Mapping[str, object]:
    """Return the filter that was given, in the words of the control socket."""
    return {
        "state": options.state or None,
        "error": options.error,
        "token": options.token,
        "older_than": options.older_than,
        "newer_than": options.newer_than,
    }


# The words.


def duration(text: str) -> float:
    """Return seconds, from ``90``, ``90s``, ``15m``, ``2h`` or ``3d``."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    number, factor = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    try:
        return float(number) * factor
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 90s, 15m, 2h") from None


def parser() -> argparse.ArgumentParser:
    """Return what the command understands."""
    import shtab  # noqa: PLC0415 - only for whoever builds a parser

    top = argparse.ArgumentParser(
        prog="ai-ticketctl",
        description="Looks at the running ai-ticket-daemon and acts on it.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""examples:
  ai-ticketctl status                         one screen: who serves, what waits, what is wrong
  ai-ticketctl events list --state failed     the dead letters
  ai-ticketctl why EVENT                      what happened to one event, step by step
  ai-ticketctl failover standby               move the traffic, and keep it there
  ai-ticketctl --json status | jq .queue      for scripts

exit codes: 0 done; 1 refused or failed; 2 wrong usage; 4 no such event or server;
69 the daemon cannot be reached; 130 interrupted""",
    )
    top.add_argument(
        "--socket", type=Path, metavar="PATH",
        help=f"the control socket; default ${SOCKET_VARIABLE} or /run/ai-ticket/control.sock",
    )  # fmt: skip
    top.add_argument("--instance", metavar="N", help="the instance ai-ticket@N on this host")
    top.add_argument("--json", action="store_true", help="print the answer as JSON")
    top.add_argument(
        "--timeout", type=float, default=5.0, metavar="SECONDS",
        help="how long the daemon may be silent (5)",
    )  # fmt: skip
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    shtab.add_argument_to(top, "--print-completion", help="print the completion for a shell")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[Session], int], about: str, **more: Any
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=about, description=about, **more)
        added.set_defaults(run=run)
        return added

    command("status", _look("status", "status"), "Show one screen of how the daemon does.")
    live = command("top", _top, "Show that screen live, until Ctrl-C.")
    live.add_argument("--interval", type=float, default=1.0, metavar="SECONDS")
    command("backends", _backends, "List the servers, and why each is as it is.")
    _add_events(commands)
    why = command("why", _event("why", "why"), "Tell the life of an event in plain words.")
    why.add_argument("event")
    over = command("failover", _change("failover", "name"), "Pin a server: only it serves.")
    over.add_argument("name", metavar="SERVER")
    command("failback", _change("failback"), "Let the primaries serve again now.")
    command("auto", _change("auto"), "Unpin: let the rules decide who serves.")
    command("pause", _change("pause"), "Accept and keep events, but start none.")
    command("unpause", _change("unpause"), "Start events again.")
    command("drain", _change("drain"), "Refuse new events; finish what clients wait for.")
    command("resume", _change("resume"), "Take new events again.")
    reload = command("reload", _reload, "Put the changed conf file in force.")
    reload.add_argument("--plan", action="store_true", help="only show what would change")
    command("check-config", _check_config, "Check the conf file as a reload would.")
    level = command("log-level", _change("log-level", "level"), "Log more or less, from now on.")
    level.add_argument("level", choices=["debug", "info", "warning", "error"])
    capture = command(
        "capture", _change("capture", "payloads"), "Keep payloads of failing events, redacted."
    )
    capture.add_argument("payloads", type=int, help="how many; 0 to stop")
    command("audit", _audit, "Recount the store: is every accepted event somewhere, once?")
    _add_files(command)
    _add_traffic(command)
    return top


def _add_events(commands: Any) -> None:
    events = commands.add_parser("events", help="List, show, retry, cancel or purge events.")
    actions = events.add_subparsers(title="actions", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="List events, the newest first.")
    listing.set_defaults(run=_list)
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="at most so many (50)")
    _add_filter(listing)
    for name, run, about in (
        ("show", _event("event"), "Show what is known of one event."),
        ("why", _event("why", "why"), "Tell its life in plain words."),
    ):
        one = actions.add_parser(name, help=about)
        one.set_defaults(run=run)
        one.add_argument("event")
    for name, about in (
        ("retry", "Queue failed events again."),
        ("cancel", "End queued and running events."),
        ("purge", "Forget events that have ended."),
    ):
        many = actions.add_parser(
            name, help=about, description=f"{about} Several by a filter: first only counted."
        )
        many.set_defaults(run=_act(name))
        many.add_argument("event", nargs="?", help="one event; without it, what the filter finds")
        many.add_argument("--yes", action="store_true", help="do it; without, only count")
        _add_filter(many)


def _add_filter(to: argparse.ArgumentParser) -> None:
    to.add_argument("--state", metavar="STATE[,STATE]", help="queued, running, succeeded, ...")
    to.add_argument("--error", metavar="CODE", help="ended with this error code")
    to.add_argument("--token", metavar="NAME", help="submitted with the token of this name")
    to.add_argument("--older-than", type=duration, metavar="AGE", help="such as 15m, 2h, 3d")
    to.add_argument("--newer-than", type=duration, metavar="AGE")


def _add_files(command: Callable[..., argparse.ArgumentParser]) -> None:
    bundle = command(
        "bundle", _elsewhere("files:bundle"), "Write a support archive, without secrets."
    )
    bundle.add_argument("--output", type=Path, required=True, metavar="FILE.tar.gz")
    backup = command("backup", _elsewhere("files:backup"), "Copy the store while it is in use.")
    backup.add_argument("--output", type=Path, required=True, metavar="FILE")
    restore = command(
        "restore", _elsewhere("files:restore"), "Put a backup in place; the daemon is stopped."
    )
    restore.add_argument("backup", type=Path)
    restore.add_argument(
        "--to", type=Path, default=Path("/var/lib/ai-ticket/events.db"), metavar="FILE"
    )


def _add_traffic(command: Callable[..., argparse.ArgumentParser]) -> None:
    submit = command("submit", _elsewhere("submit:submit"), "Submit one event, or many as NDJSON.")
    submit.add_argument("text", nargs="?", help="the prompt; without it, or -, NDJSON from stdin")
    submit.add_argument("--file", type=Path, metavar="FILE", help="NDJSON, an event per line")
    submit.add_argument("--follow", action="store_true", help="print the text as it is made")
    submit.add_argument("--no-wait", action="store_true", help="print the id and go")
    submit.add_argument("--max-tokens", type=int, metavar="N")
    submit.add_argument("--priority", type=int, metavar="0-9")
    load = command(
        "loadtest", _elsewhere("loadtest:loadtest"), "Send events at a steady rate, and judge."
    )
    load.add_argument("--rate", type=float, default=1.0, help="arrivals per second (1)")
    load.add_argument("--seconds", type=float, default=30.0, help="for how long (30)")
    load.add_argument("--max-tokens", type=int, default=32, metavar="N")
    load.add_argument("--prompt", default="Classify this ticket: the printer is on fire.")
    load.add_argument("--slo-p95", type=float, default=30.0, metavar="SECONDS")
    load.add_argument("--slo-errors", type=float, default=0.01, metavar="SHARE")
    load.add_argument("--seed", type=int, default=1, help="of the random arrivals")
    drill = command("drill", _elsewhere("drill:failover"), "Rehearse a failover, measured.")
    drill.add_argument("what", choices=["failover"])
    drill.add_argument("--yes", action="store_true", help="do it; without, only check the guards")
    drill.add_argument("--rate", type=float, default=2.0, help="events per second meanwhile (2)")
    drill.add_argument("--output", type=Path, metavar="FILE", help="keep the report there")


if __name__ == "__main__":
    sys.exit(main())
