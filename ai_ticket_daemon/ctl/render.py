"""How answers look on a terminal; ``--json`` never comes here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ai_ticket_daemon.control.why import seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import RenderableType

_COLOURS = {
    "healthy": "green",
    "degraded": "yellow",
    "unhealthy": "red",
    "ready": "green",
    "busy": "green",
    "unloaded": "cyan",
    "succeeded": "green",
    "running": "cyan",
    "queued": "blue",
    "failed": "red",
    "expired": "red",
    "cancelled": "yellow",
}


def coloured(word: str) -> str:
    """Return a state with the colour it has everywhere."""
    colour = _COLOURS.get(word, "red")
    return f"[{colour}]{escape(word)}[/]"


def status(report: Mapping[str, Any]) -> RenderableType:
    """Return one screen: what is wrong first, then who serves, then the queue."""
    head = Table.grid(padding=(0, 2))
    flags = [name for name in ("draining", "paused") if report[name]]
    head.add_row("status", " ".join([coloured(report["status"]), *map(coloured, flags)]))
    for reason in told_nowhere_else(report):
        head.add_row("", escape(reason))
    head.add_row(
        "daemon",
        escape(
            f"{report['version']}, pid {report['pid']}, up {seconds(report['uptime_seconds'])}, on "
            f"{', '.join(report['addresses'])}"
        ),
    )
    serving = report["serving"]
    pin = f", {serving['pinned']} is pinned" if serving["pinned"] else ""
    role = f"{serving['role']}{pin}: {serving['detail']}"
    usable = any(server["usable"] for server in report["backends"])
    head.add_row("serving", escape(role if usable else f"nobody, no server is usable; {role}"))
    isolated = report["severed"]
    if isolated["servers"]:
        head.add_row(
            "drill",
            f"[red]{escape(', '.join(isolated['servers']))} isolated for "
            f"{seconds(isolated['left_seconds'])} more[/]",
        )
    queue, oldest = report["queue"], report["oldest_queued_seconds"]
    age = "" if oldest is None else f", the oldest for {seconds(oldest)}"
    head.add_row(
        "queue",
        f"{queue.get('queued', 0)} queued{age}; {queue.get('running', 0)} running of "
        f"{min(report['max_concurrency'], report['capacity'])}",
    )
    ended = ", ".join(f"{queue.get(s, 0)} {s}" for s in ("succeeded", "failed", "expired"))
    head.add_row("ended", f"{ended}; {report['events_per_second']:.2g} events/s")
    fault = report["store"]["fault"]
    head.add_row("store", f"[red]{escape(fault)}[/]" if fault else escape(report["store"]["url"]))
    refused = report["reload"]["refused"]
    head.add_row("reload", f"[red]refused: {escape(refused[0])}[/]" if refused else "applied")
    for sentence in report["warnings"]:
        head.add_row("warning", f"[yellow]{escape(sentence)}[/]")
    for refused in report["refused_clients"][:3]:
        ago = seconds(time.time() - refused["last_at"])
        times = "once" if refused["number"] == 1 else f"{refused['number']} times"
        head.add_row(
            "refused",
            escape(f"{refused['client']}: {times}, {refused['error']} {ago} ago"),
        )
    if report["log_level"] != "info" or report["capture_payloads"]:
        head.add_row(
            "logging", f"{report['log_level']}, {report['capture_payloads']} payloads captured"
        )
    for waste in report["wasted"]:
        more = (
            f" and those of {waste['unknown']} attempts nobody counted" if waste["unknown"] else ""
        )
        made = f"{seconds(waste['seconds'])}, {waste['tokens']} tokens{more}"
        head.add_row("wasted", f"{made} on {escape(waste['backend'])}: {waste['cause']}")
    return Group(head, Text(), backends(report["backends"]))


def told_nowhere_else(report: Mapping[str, Any]) -> list[str]:
    """Return the reasons that do not stand on the screen anyway: with a server, or the store."""
    serving, fault = report["serving"], report["store"]["fault"]
    elsewhere = (
        serving["detail"],
        f"on the standby: {serving['detail']}",
        f"the store cannot be written: {fault}",
        *(f"backend {b['name']} is {b['state']}: " for b in report["backends"] if not b["usable"]),
    )
    return [
        reason
        for reason in report["reasons"]
        if not any(
            reason == told or (told.endswith(": ") and reason.startswith(told))
            for told in elsewhere
        )
    ]


def serving(answer: Mapping[str, Any]) -> RenderableType:
    """Return the servers of an answer, and what each can do."""
    servers = answer["backends"]
    can = Table.grid(padding=(0, 2))
    for server in servers:
        if server["features"]:
            can.add_row(escape(server["name"]), escape(", ".join(server["features"])))
    return Group(backends(servers), Text(), can) if can.rows else backends(servers)


def backends(servers: Sequence[Mapping[str, Any]]) -> Table:
    """Return the servers, a line each."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("server", "role", "state", "serves", "in flight", "version", "why"):
        table.add_column(name)
    for server in servers:
        serves = "pinned" if server["pinned"] else "yes" if server["active"] else "no"
        if not server["usable"]:
            serves = "pinned, but cannot" if server["pinned"] else "no"
        rest = server["resting_seconds"]
        why = server["reason"]
        if rest:
            why = f"left alone for {seconds(rest)} more: {why}"
        table.add_row(
            escape(server["name"]),
            server["role"],
            coloured(server["state"]),
            serves,
            f"{server['in_flight']} of {server['max_in_flight']}",
            escape(server["version"] or "unknown"),
            escape(why or ""),
        )
    return table


def events(listed: Sequence[Mapping[str, Any]]) -> Table:
    """Return events, a line each."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("event", "state", "age", "priority", "server", "token", "error"):
        table.add_column(name)
    for event in listed:
        table.add_row(
            event["event_id"],
            coloured(event["state"]),
            seconds(time.time() - event["submitted_at"]),
            str(event["priority"]),
            escape(event["backend"] or ""),
            escape(event["owner"]),
            escape(event["error"] or ""),
        )
    return table


def why(answer: Mapping[str, Any]) -> Table:
    """Return the time line of an event; times are this host's, then since its submission."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    lines = answer["lines"]
    begin = lines[0]["at"]
    for line in lines:
        clock = time.strftime("%H:%M:%S", time.localtime(line["at"]))
        millis = int(line["at"] % 1 * 1000)
        table.add_row(f"{clock}.{millis:03d}", f"+{line['at'] - begin:.3f} s", escape(line["text"]))
    return table


def loadtest(report: Mapping[str, Any]) -> RenderableType:
    """Return the report on a load test: the verdict first, then what it is made of."""
    head = Table.grid(padding=(0, 2))
    verdict = "[green]met[/]" if report["verdict"] == "met" else "[bold red]missed[/]"
    head.add_row("verdict", verdict)
    for sentence in report["missed"]:
        head.add_row("", escape(sentence))
    pattern = report["pattern"]
    how = f"{pattern['rate']:g}/s" if "rate" in pattern else f"{pattern['clients']} clients"
    streams = ", streams" if report["stream"] else ""
    head.add_row(
        "test",
        escape(f"{report['loadtest']}, {how} for {report['seconds']:.3g} s, up to "
               f"{report['max_tokens']} tokens{streams}, to {report['target']}"),
    )  # fmt: skip
    slo = report["slo"]
    first = slo["first_text_p95_seconds"]
    head.add_row(
        "objective",
        f"95% answered within {slo['p95_seconds']:g} s"
        + ("" if first is None else f", begun within {first:g} s")
        + f"; at most {slo['error_share']:.1%} failed; none queued for over "
        f"{slo['queue_age_seconds']:g} s",
    )
    head.add_row(
        "events",
        f"{report['events']} sent ({report['arrived_per_second']:.3g}/s), "
        f"{report['succeeded']} succeeded ({report['succeeded_per_second']:.3g}/s), "
        f"{report['failed']} failed ({report['error_share']:.1%})",
    )
    for code, number in report["errors"].items():
        head.add_row("", escape(f"{number} {code}"))
    daemon = report["daemon"]
    if daemon is None:
        head.add_row("slots", "not known")
    else:
        grown = daemon["queued_at_end"] - daemon["queued_at_start"]
        head.add_row("slots", f"{daemon['slot_use']:.0%} of {daemon['slots']} in use")
        head.add_row(
            "queue",
            f"{daemon['queued_at_start']} at the start, {daemon['queued_at_most']} at most, "
            f"{daemon['queued_at_end']} at the end ({grown:+d}); the oldest waited "
            f"{seconds(daemon['oldest_queued_seconds'])}",
        )
    for sentence in report["advice"]:
        head.add_row("note", escape(sentence))
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for name in report["answer_seconds"]:
        table.add_column(name, justify="right")
    for name, key in (
        ("answer", "answer_seconds"),
        ("first text", "first_text_seconds"),
        ("generator late", "generator_late_seconds"),
    ):
        if report[key] is not None:
            table.add_row(name, *(seconds(value) for value in report[key].values()))
    return Group(head, Text(), table)


def fields(answer: Mapping[str, Any]) -> Table:
    """Return any answer, a line for each thing it says."""
    table = Table.grid(padding=(0, 2))
    for key, value in answer.items():
        name = key.replace("_", " ")
        for item in value if isinstance(value, list) and value else [value]:
            table.add_row(name, escape(_told(key, item)))
            name = ""
    return table


def _told(key: str, value: object) -> str:
    return _time(value) if key.endswith("_at") else _words(value)


def _time(at: object) -> str:
    """Return a time as this host's clock has it, and how far away it is."""
    if not isinstance(at, int | float) or not at:
        return "none"
    away = time.time() - at
    far = f"{seconds(away)} ago" if away >= 0 else f"in {seconds(-away)}"
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(at))}, {far}"


def _words(value: object) -> str:
    match value:
        case None:
            return "none"
        case list() | dict() if not value:
            return "none"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(map(_words, value))
        case dict():
            return ", ".join(f"{key} {_told(key, item)}" for key, item in value.items())
        case _:
            return str(value)
