"""What ``ai-ticketctl`` understands: commands, options, and an example of each."""

from __future__ import annotations

import argparse
from pathlib import Path

import shtab

from ai_ticket_daemon import __version__
from ai_ticket_daemon.ctl import bulk, commands, on_demand
from ai_ticket_daemon.ctl.command_tree import FILE, CommandParser, Commands, add_common, add_path
from ai_ticket_daemon.ctl.load.objectives import Slo
from ai_ticket_daemon.ctl.session import TOKEN_VARIABLE
from ai_ticket_daemon.ctl.values import clients, duration, number, positive, states
from ai_ticket_daemon.events.reasoning import ReasoningEffort
from ai_ticket_daemon.events.state import EventState


def parser() -> argparse.ArgumentParser:
    """Return what the command understands.

    ``run`` of what is parsed is the function that does it.
    """
    top = CommandParser(
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
    add_common(top, inner=False)
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    shtab.add_argument_to(top, "--print-completion", help="print the completion for a shell")
    to = Commands(top.add_subparsers(title="commands", required=True, metavar="COMMAND"))
    _add_looks(to)
    _add_changes(to)
    _add_events(to)
    _add_files(to)
    _add_traffic(to)
    return top


def _add_looks(to: Commands) -> None:
    to.add(
        "status", commands.status, "Show one screen of how the daemon does.",
        "status", "status --json | jq .serving",
    )  # fmt: skip
    live = to.add(
        "top", on_demand.top,
        "Show that screen live, until q or Ctrl-C; with --json, a line a time.",
        "top --interval 5", "top --json > status.ndjson",
    )  # fmt: skip
    live.add_argument("--interval", type=positive, default=1.0, metavar="SECONDS")
    to.add(
        "backends", commands.backends, "List the servers, and why each is as it is.",
        "backends", "backends --json | jq '.backends[] | select(.usable | not)'",
    )  # fmt: skip
    why = to.add(
        "why", commands.why, "Tell the life of an event in plain words.",
        "why 01890a5d-ac96-774b-bcce-b302099a8057",
    )  # fmt: skip
    why.add_argument("event")
    to.add(
        "check-config", commands.check_config, "Check the conf file as a reload would.",
        "check-config",
    )  # fmt: skip
    to.add(
        "audit", commands.audit, "Recount the store: is every accepted event somewhere, once?",
        "audit", "audit --json | jq .difference",
    )  # fmt: skip


def _add_changes(to: Commands) -> None:
    over = to.order("failover", "Pin a server: only it serves.", "name", example="failover standby")
    over.add_argument("name", metavar="SERVER")
    to.order("failback", "Let the primaries serve again now.")
    to.order("auto", "Unpin: let the rules decide who serves.")
    wake = to.change(
        "wake", "Have a server that has unloaded its model load it.", "name", example="wake standby"
    )
    wake.add_argument("name", metavar="SERVER")
    to.order("pause", "Accept and keep events, but start none.")
    to.order("unpause", "Start events again.")
    to.order("drain", "Refuse new events; finish what clients wait for.")
    to.order("resume", "Take new events again.")
    reload = to.add(
        "reload", commands.reload, "Put the changed conf file in force.",
        "reload --plan", "reload",
    )  # fmt: skip
    reload.add_argument("--plan", action="store_true", help="only show what would change")
    level = to.change(
        "log-level", "Log more or less, from now on.", "level", example="log-level debug"
    )
    level.add_argument("level", choices=["debug", "info", "warning", "error"])
    capture = to.change(
        "capture", "Keep payloads of failing events, redacted.", "payloads", example="capture 20"
    )
    capture.add_argument("payloads", type=number(0, 10_000), help="how many; 0 to stop")


def _add_events(to: Commands) -> None:
    events = to.group("events", "List, show, retry, cancel or purge events.")
    listing = events.add(
        "list", commands.events, "List events, the newest first.",
        "events list --state failed,expired --newer-than 15m",
        "events list --token billing --limit 500",
    )  # fmt: skip
    listing.add_argument(
        "--limit", type=number(1, 1_000_000), default=50, metavar="N", help="at most so many (50)"
    )
    _add_filter(listing)
    for name, run, about in (
        ("show", commands.event, "Show what is known of one event."),
        ("why", commands.why, "Tell its life in plain words."),
    ):
        one = events.add(name, run, about, f"events {name} 01890a5d-ac96-774b-bcce-b302099a8057")
        one.add_argument("event")
    for name, run, about, example in (
        ("retry", bulk.retry, "Queue failed events again.", "--error api_timeout --newer-than 1h"),
        ("cancel", bulk.cancel, "End queued and running events.", "--state queued --older-than 1d"),
        (
            "purge",
            bulk.purge,
            "Forget events that have ended.",
            "--state succeeded --older-than 3d",
        ),
    ):
        many = events.add(
            name, run, f"{about} Several by a filter: first only counted.",
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


def _add_files(to: Commands) -> None:
    bundle = to.add(
        "bundle", on_demand.bundle, "Write a support archive, without secrets and prompts.",
        "bundle --output /tmp/bundle.tar.gz",
    )  # fmt: skip
    add_path(bundle, "--output", "FILE.tar.gz", required=True)
    backup = to.add(
        "backup", on_demand.backup, "Copy the store while it is in use.",
        "backup --output /var/backups/events.db",
        "backup --directory /var/backups/ai-ticket --keep 7",
    )  # fmt: skip
    where = backup.add_mutually_exclusive_group(required=True)
    add_path(where, "--output", "FILE", help="the copy")
    add_path(where, "--directory", "DIRECTORY", help="for copies named by their time (UTC)")
    backup.add_argument(
        "--keep", type=clients, metavar="NUMBER",
        help="delete older copies in the directory, but so many of the newest",
    )  # fmt: skip
    restore = to.add(
        "restore", on_demand.restore, "Put a backup in place; the daemon is stopped.",
        "restore /var/backups/events.db",
        "restore events.db --to /var/lib/ai-ticket-2/events.db",
    )  # fmt: skip
    backup_file = restore.add_argument("backup", type=Path)
    backup_file.complete = FILE  # type: ignore[attr-defined]
    add_path(restore, "--to", "FILE", default=Path("/var/lib/ai-ticket/events.db"))


def _add_traffic(to: Commands) -> None:
    submit = to.add(
        "submit", on_demand.submit, "Submit one event, or many as NDJSON.",
        'submit "Classify: the printer burns." --follow',
        "submit --file tickets.ndjson > answers.ndjson",
        "submit < tickets.ndjson --no-wait",
        'submit "Is it urgent?" --reasoning --reasoning-effort low --max-tokens 800',
    )  # fmt: skip
    submit.add_argument("text", nargs="?", help="the prompt; without it, or -, NDJSON from stdin")
    add_path(submit, "--file", "FILE", help="NDJSON, an event per line")
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
    submit.add_argument(
        "--reasoning",
        action="store_true",
        help="also print what the model thinks, to standard error; in `reasoning` with --json",
    )
    submit.add_argument(
        "--reasoning-effort",
        choices=[effort.value for effort in ReasoningEffort],
        help="how much the model is to think",
    )
    wait = to.add(
        "wait", on_demand.wait, "Wait for an event and print its completion.",
        "wait 01890a5d-ac96-774b-bcce-b302099a8057",
        "wait 01890a5d-ac96-774b-bcce-b302099a8057 --json | jq -r .completion",
    )  # fmt: skip
    wait.add_argument("event")
    wait.add_argument(
        "--reasoning",
        action="store_true",
        help="also print what the model thought, if that was asked for, to standard error",
    )
    _add_loadtest(to)
    drills = to.group("drill", "Rehearse an incident on the running daemon, measured.")
    drill = drills.add(
        "failover", on_demand.drill_failover,
        "Move the traffic to the standby and back, and measure.",
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
    add_path(drill, "--output", "FILE", help="keep the report there, not in the state directory")


def _add_loadtest(to: Commands) -> None:
    slo = Slo()
    load = to.add(
        "loadtest", on_demand.loadtest,
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
    add_path(where, "--token-file", "FILE", help=f"the token; else ${TOKEN_VARIABLE}, if any")
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
    add_path(load, "--output", "FILE", help="keep the report there, as JSON")
