"""``ai-ticketctl drill failover``: moves live traffic to the standby and back, and measures it.

Guarded: it begins only if both roles are usable, nothing is pinned and the daemon is healthy; and
whatever happens, it ends with the pin it found: none.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon.control.client import Refused
from ai_ticket_daemon.control.session import EXIT_OK, EXIT_REFUSED
from ai_ticket_daemon.control.traffic import OpenLoop, Target, Traffic, run_trio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ai_ticket_daemon.control.client import Client
    from ai_ticket_daemon.control.session import Session
    from ai_ticket_daemon.control.traffic import Sent

SWITCH_SECONDS = 60.0
"""How long the first answer from the other server may take."""
TRAFFIC_SECONDS = 3600.0


def failover(session: Session) -> int:
    """Rehearse; exit code 1 if anything was lost, done twice, or did not move in time."""
    client, options = session.client, session.options
    standby = guard(client.look("status"))
    if not options.yes:
        session.say({"drill": "failover", "to": standby, "guards": "all met"})
        session.tell("Nothing was changed. Add --yes to do it.")
        return EXIT_OK
    try:
        report = run_trio(_rehearse, client, standby, options.rate)
    finally:
        client.change("auto")
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=2) + "\n")
    session.say(report)
    return EXIT_OK if report["verdict"] == "passed" else EXIT_REFUSED


def guard(status: dict[str, Any]) -> str:
    """Return the standby to move to.

    Raises:
        Refused: this is no moment for a drill.
    """
    usable = {role: [b["name"] for b in status["backends"] if b["usable"] and b["role"] == role]
              for role in ("primary", "standby")}  # fmt: skip
    reasons = {
        "a server is pinned already": status["serving"]["pinned"],
        "the daemon drains": status["draining"],
        "the daemon is paused": status["paused"],
        "no primary is usable": not usable["primary"],
        "no standby is usable": not usable["standby"],
        "the standby serves already": status["serving"]["role"] == "standby",
    }
    against = [reason for reason, holds in reasons.items() if holds]
    if against:
        raise Refused("guarded", f"no drill now: {'; '.join(against)}")
    return str(usable["standby"][0])


async def _rehearse(client: Client, standby: str, rate: float) -> dict[str, Any]:
    arrived = trio.Event()
    all_sent: list[Sent] = []

    def note(sent: Sent) -> None:
        nonlocal arrived
        all_sent.append(sent)
        arrived.set()
        arrived = trio.Event()

    traffic = Traffic(Target(client.path), {"content": "A failover drill.", "max_tokens": 8}, note)

    async def first(*, wanted: bool) -> float:
        """Return how long after now the first event ended there (or, for False, elsewhere)."""
        begin, seen = trio.current_time(), len(all_sent)
        with trio.fail_after(SWITCH_SECONDS):
            while True:
                fresh = all_sent[seen:]
                if any(s.backend and (s.backend == standby) is wanted for s in fresh):
                    return trio.current_time() - begin
                await arrived.wait()

    times: dict[str, float] = {}
    late: str | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(
                traffic.run, OpenLoop(rate), seconds=TRAFFIC_SECONDS, wait_seconds=SWITCH_SECONDS
            )
        )
        try:
            times["before_seconds"] = await first(wanted=False)
            times["ordered_seconds"] = await _timed(client, "failover", name=standby)
            times["to_standby_seconds"] = await first(wanted=True)
            await _timed(client, "auto")
            await _timed(client, "failback")
            times["back_seconds"] = await first(wanted=False)
        except trio.TooSlowError:
            late = f"no answer came from the other server within {SWITCH_SECONDS:g} s"
        finally:
            traffic.arriving.cancel()  # What is under way may end.
    return await _report(client, all_sent, times, late)


async def _timed(client: Client, operation: str, **arguments: object) -> float:
    begin = trio.current_time()
    await trio.to_thread.run_sync(lambda: client.change(operation, **arguments))
    return trio.current_time() - begin


async def _report(
    client: Client, all_sent: Sequence[Sent], times: dict[str, float], late: str | None
) -> dict[str, Any]:
    lost = [sent.error for sent in all_sent if sent.error is not None]
    doubled = 0
    for sent in all_sent:
        if sent.event_id is not None and sent.attempts > 1:
            look = partial(client.look, "event", event_id=sent.event_id)
            event = await trio.to_thread.run_sync(look)
            doubled += sum(attempt["error"] is None for attempt in event["attempts"]) > 1
    audit = await trio.to_thread.run_sync(client.look, "audit")
    passed = not (lost or doubled or late or audit["difference"])
    return {
        "drill": "failover",
        "events": len(all_sent),
        **{name: round(value, 3) for name, value in times.items()},
        "lost": len(lost),
        "lost_with": lost,
        "doubled": doubled,
        "unaccounted": audit["difference"],
        "late": late,
        "verdict": "passed" if passed else "failed",
    }
