"""What ``ai-ticketctl`` understands: commands, options, and an example of each."""

from __future__ import annotations

import argparse
import re
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import shtab

from ai_ticket_daemon import __version__
from ai_ticket_daemon.ctl.load.load_report import Slo
from ai_ticket_daemon.ctl.session import SOCKET_VARIABLE
from ai_ticket_daemon.events.state import EventState
from ai_ticket_daemon.standard_streams import Parser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_OPEN = 1000
"""So many events may be under way at a time in a load test."""
TOKEN_VARIABLE = "AI_TICKET_TOKEN"  # noqa: S105 - where to find one
_FILE = shtab.FILE


def parser() -> argparse.ArgumentParser:
    """Return what the command understands.

    ``run`` of what is parsed names the function that does it, as ``module:function``.
    """
    top = _Parser(
        prog="ai-ticketctl",
        description="Looks at the running ai-ticket-daemon and acts on it.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""examples:
  ai-ticketctl status                         one screen: who serves, what waits, what is wrong
  ai-ticketctl events list --state failed     the dead letters
  ai-ticketctl why EVENT                      what happened to one event, step by step
  ai-ticketctl failover standby               move the traffic, and keep it there
  ai-ticketctl status --json | jq .queue      for scripts
  ai-ticketctl COMMAND --help                 more of them

exit codes: 0 done; 1 refused or failed; 2 wrong usage; 4 no such event or server;
69 the daemon cannot be reached; 130 interrupted""",
    )
    _add_common(top, inner=False)
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    shtab.add_argument_to(top, "--print-completion", help="print the completion for a shell")
    commands = _Commands(top.add_subparsers(title="commands", required=True, metavar="COMMAND"))
    _add_looks(commands)
    _add_changes(commands)
    _add_events(commands)
    _add_files(commands)
    _add_traffic(commands)
    return top


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


class _Parser(Parser):
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


class _Commands:
    """Makes commands that all take the common options, and show examples in their help."""

    def __init__(self, among: Any) -> None:
        self._among = among

    def add(
        self, name: str, run: str, about: str, *examples: str, **defaults: object
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
        _add_common(added, inner=True)
        return added

    def change(self, name: str, about: str, *arguments: str, example: str = "") -> Any:
        """Add a command that orders the change it is named for."""
        return self.add(
            name, "commands:change", about, example or name, operation=name, arguments=arguments
        )

    def order(self, name: str, about: str, *arguments: str, example: str = "") -> Any:
        """Add a command that orders a change for all daemons that share the store."""
        example = example or name
        added = self.add(
            name, "commands:change", f"{about} Holds for all daemons of the store.",
            example, f"{example} --here", operation=name, arguments=(*arguments, "here"),
        )  # fmt: skip
        added.add_argument("--here", action="store_true", help="this daemon alone, until it ends")
        return added

    def group(self, name: str, about: str) -> _Commands:
        """Add a command that has commands of its own."""
        added = self._among.add_parser(name, help=about, description=about)
        return _Commands(added.add_subparsers(title="actions", required=True, metavar="ACTION"))


def _add_common(to: argparse.ArgumentParser, *, inner: bool) -> None:
    """Add what may stand before the command and behind it; behind it, it overrides."""

    def default(value: object) -> Any:
        return argparse.SUPPRESS if inner else value

    socket = to.add_argument(
        "--socket", type=Path, metavar="PATH", default=default(None),
        help=f"the control socket; default ${SOCKET_VARIABLE} or /run/ai-ticket/control.sock",
    )  # fmt: skip
    socket.complete = _FILE  # type: ignore[attr-defined]
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


def _add_looks(commands: _Commands) -> None:
    commands.add(
        "status", "commands:status", "Show one screen of how the daemon does.",
        "status", "status --json | jq .serving",
    )  # fmt: skip
    live = commands.add(
        "top", "top:top", "Show that screen live, until q or Ctrl-C; with --json, a line a time.",
        "top --interval 5", "top --json > status.ndjson",
    )  # fmt: skip
    live.add_argument("--interval", type=positive, default=1.0, metavar="SECONDS")
    commands.add(
        "backends", "commands:backends", "List the servers, and why each is as it is.",
        "backends", "backends --json | jq '.backends[] | select(.usable | not)'",
    )  # fmt: skip
    why = commands.add(
        "why", "commands:why", "Tell the life of an event in plain words.",
        "why 01890a5d-ac96-774b-bcce-b302099a8057",
    )  # fmt: skip
    why.add_argument("event")
    commands.add(
        "check-config", "commands:check_config", "Check the conf file as a reload would.",
        "check-config",
    )  # fmt: skip
    commands.add(
        "audit", "commands:audit", "Recount the store: is every accepted event somewhere, once?",
        "audit", "audit --json | jq .difference",
    )  # fmt: skip


def _add_changes(commands: _Commands) -> None:
    over = commands.order(
        "failover", "Pin a server: only it serves.", "name", example="failover standby"
    )
    over.add_argument("name", metavar="SERVER")
    commands.order("failback", "Let the primaries serve again now.")
    commands.order("auto", "Unpin: let the rules decide who serves.")
    commands.order("pause", "Accept and keep events, but start none.")
    commands.order("unpause", "Start events again.")
    commands.order("drain", "Refuse new events; finish what clients wait for.")
    commands.order("resume", "Take new events again.")
    reload = commands.add(
        "reload", "commands:reload", "Put the changed conf file in force.",
        "reload --plan", "reload",
    )  # fmt: skip
    reload.add_argument("--plan", action="store_true", help="only show what would change")
    level = commands.change(
        "log-level", "Log more or less, from now on.", "level", example="log-level debug"
    )
    level.add_argument("level", choices=["debug", "info", "warning", "error"])
    capture = commands.change(
        "capture", "Keep payloads of failing events, redacted.", "payloads", example="capture 20"
    )
    capture.add_argument("payloads", type=number(0, 10_000), help="how many; 0 to stop")


def _add_events(commands: _Commands) -> None:
    events = commands.group("events", "List, show, retry, cancel or purge events.")
    listing = events.add(
        "list", "commands:events", "List events, the newest first.",
        "events list --state failed,expired --newer-than 15m",
        "events list --token billing --limit 500",
    )  # fmt: skip
    listing.add_argument(
        "--limit", type=number(1, 1_000_000), default=50, metavar="N", help="at most so many (50)"
    )
    _add_filter(listing)
    for name, run, about in (
        ("show", "commands:event", "Show what is known of one event."),
        ("why", "commands:why", "Tell its life in plain words."),
    ):
        one = events.add(name, run, about, f"events {name} 01890a5d-ac96-774b-bcce-b302099a8057")
        one.add_argument("event")
    for name, about, example in (
        ("retry", "Queue failed events again.", "--error api_timeout --newer-than 1h"),
        ("cancel", "End queued and running events.", "--state queued --older-than 1d"),
        ("purge", "Forget events that have ended.", "--state succeeded --older-than 3d"),
    ):
        many = events.add(
            name, f"bulk:{name}", f"{about} Several by a filter: first only counted.",
            f"events {name} {example}", f"events {name} {example} --yes",
        )  # fmt: skip
        many.add_argument("event", nargs="?", help="one event; without it, what the filter finds")
        many.add_argument("--yes", action="store_true", help="do it; without, only count")
        _add_filter(many)


def _add_filter(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--state",
        type=states,
        metavar="STATE[,STATE]",
        help=f"of {', '.join(EventState)}",
    )
    to.add_argument("--error", metavar="CODE", help="ended with this error code")
    to.add_argument("--token", metavar="NAME", help="submitted with the token of this name")
    to.add_argument("--older-than", type=duration, metavar="AGE", help="such as 15m, 2h, 3d")
    to.add_argument("--newer-than", type=duration, metavar="AGE")


def _add_files(commands: _Commands) -> None:
    bundle = commands.add(
        "bundle", "bundle:bundle", "Write a support archive, without secrets and prompts.",
        "bundle --output /tmp/bundle.tar.gz",
    )  # fmt: skip
    _add_path(bundle, "--output", "FILE.tar.gz", required=True)
    backup = commands.add(
        "backup", "restore:backup", "Copy the store while it is in use.",
        "backup --output /var/backups/events.db",
        "backup --directory /var/backups/ai-ticket --keep 7",
    )  # fmt: skip
    where = backup.add_mutually_exclusive_group(required=True)
    _add_path(where, "--output", "FILE", help="the copy")
    _add_path(where, "--directory", "DIRECTORY", help="for copies named by their time (UTC)")
    backup.add_argument(
        "--keep", type=clients, metavar="NUMBER",
        help="delete older copies in the directory, but so many of the newest",
    )  # fmt: skip
    restore = commands.add(
        "restore", "restore:restore", "Put a backup in place; the daemon is stopped.",
        "restore /var/backups/events.db",
        "restore events.db --to /var/lib/ai-ticket-2/events.db",
    )  # fmt: skip
    backup_file = restore.add_argument("backup", type=Path)
    backup_file.complete = _FILE  # type: ignore[attr-defined]
    _add_path(restore, "--to", "FILE", default=Path("/var/lib/ai-ticket/events.db"))


def _add_traffic(commands: _Commands) -> None:
    submit = commands.add(
        "submit", "submit:submit", "Submit one event, or many as NDJSON.",
        'submit "Classify: the printer burns." --follow',
        "submit --file tickets.ndjson > answers.ndjson",
        "submit < tickets.ndjson --no-wait",
    )  # fmt: skip
    submit.add_argument("text", nargs="?", help="the prompt; without it, or -, NDJSON from stdin")
    _add_path(submit, "--file", "FILE", help="NDJSON, an event per line")
    submit.add_argument("--follow", action="store_true", help="print the text as it is made")
    submit.add_argument("--no-wait", action="store_true", help="print the id and go")
    submit.add_argument("--max-tokens", type=number(1, 2**31), metavar="N")
    submit.add_argument("--priority", type=number(0, 9), metavar="0-9")
    submit.add_argument(
        "--deadline",
        type=duration,
        metavar="AGE",
        help="no result is wanted after; such as 30s, 10m",
    )
    wait = commands.add(
        "wait", "submit:wait", "Wait for an event and print its completion.",
        "wait 01890a5d-ac96-774b-bcce-b302099a8057",
        "wait 01890a5d-ac96-774b-bcce-b302099a8057 --json | jq -r .completion",
    )  # fmt: skip
    wait.add_argument("event")
    _add_loadtest(commands)
    drills = commands.group("drill", "Rehearse an incident on the running daemon, measured.")
    drill = drills.add(
        "failover", "load.drill:failover", "Move the traffic to the standby and back, and measure.",
        "drill failover", "drill failover --yes", "drill failover --unreachable --yes",
    )  # fmt: skip
    drill.add_argument("--yes", action="store_true", help="do it; without, only check the guards")
    drill.add_argument(
        "--unreachable", action="store_true",
        help="cut the primaries off from the daemon, in place of ordering it to the standby",
    )  # fmt: skip
    drill.add_argument(
        "--limit", type=positive, default=60.0, metavar="SECONDS",
        help="the daemon ends the cut by itself after (60)",
    )  # fmt: skip
    drill.add_argument("--rate", type=positive, default=2.0, help="events per second meanwhile (2)")
    _add_path(drill, "--output", "FILE", help="keep the report there, not in the state directory")


def _add_loadtest(commands: _Commands) -> None:
    slo = Slo()
    load = commands.add(
        "loadtest", "load.loadtest:loadtest",
        "Send events, measure the answers, judge them by an SLO.",
        "loadtest --rate 2 --seconds 60",
        "loadtest --url http://127.0.0.1:5000 --metrics http://127.0.0.1:9464/metrics --stream",
        "loadtest --url https://host --token-file token --clients 4 --output report.json",
    )  # fmt: skip
    where = load.add_argument_group("where to")
    where.add_argument(
        "--url", metavar="URL",
        help="the public address, as clients use it; without it, the control socket",
    )  # fmt: skip
    _add_path(where, "--token-file", "FILE", help=f"the token; else ${TOKEN_VARIABLE}, if any")
    where.add_argument(
        "--metrics", metavar="URL",
        help="the metrics page, for slot use and queue; else the control socket, if it is named",
    )  # fmt: skip
    how = load.add_argument_group("what")
    pattern = how.add_mutually_exclusive_group()
    pattern.add_argument(
        "--rate", type=positive, default=1.0, metavar="N",
        help="events per second that arrive at random, whatever comes back (1)",
    )  # fmt: skip
    pattern.add_argument(
        "--clients", type=clients, metavar="N",
        help="instead, so many clients; each waits for an answer before it sends again",
    )  # fmt: skip
    how.add_argument(
        "--seconds", type=positive, default=30.0, metavar="N", help="send for so long (30)"
    )
    how.add_argument(
        "--wait", type=positive, default=300.0, metavar="SECONDS",
        help="wait so long for the last answers (300)",
    )  # fmt: skip
    how.add_argument("--stream", action="store_true", help="as streams; measures the first text")
    how.add_argument("--max-tokens", type=int, default=32, metavar="N")
    how.add_argument("--prompt", default="Classify this ticket: the printer is on fire.")
    how.add_argument("--seed", type=int, default=1, metavar="N", help="of the random arrivals (1)")
    goal = load.add_argument_group("objectives (the defaults are those of the alert rules)")
    goal.add_argument(
        "--slo-p95", type=positive, default=slo.p95_seconds, metavar="SECONDS",
        help=f"95 of 100 answers are there within ({slo.p95_seconds:g})",
    )  # fmt: skip
    goal.add_argument(
        "--slo-first-text", type=positive, default=slo.first_text_p95_seconds, metavar="SECONDS",
        help="of streams: 95 of 100 begin within (none)",
    )  # fmt: skip
    goal.add_argument(
        "--slo-errors", type=float, default=slo.error_share, metavar="SHARE",
        help=f"no larger share fails ({slo.error_share:g})",
    )  # fmt: skip
    goal.add_argument(
        "--slo-queue-age", type=positive, default=slo.queue_age_seconds, metavar="SECONDS",
        help=f"no event is queued for longer ({slo.queue_age_seconds:g})",
    )  # fmt: skip
    _add_path(load, "--output", "FILE", help="keep the report there, as JSON")


def _add_path(to: Any, option: str, metavar: str, **more: Any) -> None:
    added = to.add_argument(option, type=Path, metavar=metavar, **more)
    added.complete = _FILE
