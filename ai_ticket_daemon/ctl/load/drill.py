"""``ai-ticketctl drill failover``: moves live traffic to the standby and back, and measures it.

Either by order, with a pin; or by isolating the primaries inside the daemon, which then has to
notice, and to find back, by its own rules. Guarded: it begins only if both roles are usable,
nothing is pinned and the daemon is healthy; and whatever happens, it ends with no pin and no server
isolated.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon.ctl.client import Refused, Unreachable
from ai_ticket_daemon.ctl.load.arrivals import OpenLoop
from ai_ticket_daemon.ctl.load.interruptible import run_trio
from ai_ticket_daemon.ctl.load.ledger import account
from ai_ticket_daemon.ctl.load.traffic import Target, Traffic
from ai_ticket_daemon.ctl.session import EXIT_OK, EXIT_REFUSED
from ai_ticket_daemon.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ai_ticket_daemon.ctl.client import Client
    from ai_ticket_daemon.ctl.load.traffic import Sent
    from ai_ticket_daemon.ctl.session import Session

SWITCH_SECONDS = 60.0
"""How long the first answer from the other server may take."""
BACK_SECONDS = 90.0
"""How long the way back may take, over the time for which a primary has to be healthy before."""
LONGEST_STEADY_SECONDS = 600.0
"""If that time is longer, or the failback is manual, it is ordered."""
LOOK_EVERY_SECONDS = 0.05
TRAFFIC_SECONDS = 7200.0
ACCOUNT_SECONDS = 120.0
_BODY = {"content": "A failover drill.", "max_tokens": 8}


def failover(session: Session) -> int:
    """Rehearse; exit code 1 if anything was lost, done twice, or did not move in time."""
    client, options = session.client, session.options
    client.need_to_act()
    standby = guard(client.look("status"))
    if not options.yes:
        session.say({"drill": "failover", "to": standby, "guards": "all met"})
        session.tell("Nothing was changed. Add --yes to do it.")
        return EXIT_OK
    output = options.output or kept_at(time.time(), os.environ)
    if output.exists():
        raise Refused("exists", f"{output} is there already; name another file")
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        report = run_trio(_rehearse, session, standby)
    finally:
        if options.unreachable:
            client.change("mend")
        else:
            client.change("auto", here=True)
    output.write_text(json.dumps(report, indent=2) + "\n")
    session.say(report)
    session.tell(f"The report is kept in {output}.")
    return EXIT_OK if report["verdict"] == "passed" else EXIT_REFUSED


def kept_at(now: float, environ: Mapping[str, str]) -> Path:
    """Return where a report is kept: in the state directory of whoever rehearses."""
    home = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME") or "~") / ".local" / "state"
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    return Path(home).expanduser() / "ai-ticket" / f"drill-failover-{stamp}.json"


def guard(status: dict[str, Any]) -> str:
    """Return the standby to move to.

    Raises:
        Refused: this is no moment for a drill.
    """
    usable = {role: [b["name"] for b in status["backends"] if b["usable"] and b["role"] == role]
              for role in ("primary", "standby")}  # fmt: skip
    reasons = {
        "a server is pinned already": status["serving"]["pinned"],
        "servers are isolated already": status["severed"]["servers"],
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


@dataclass(slots=True)
class Rehearsal:
    """One drill: its traffic, and the times at which what was waited for happened."""

    client: Client
    traffic: Traffic = field(init=False)
    sent: list[Sent] = field(default_factory=list)
    came: Wakeup = field(default_factory=Wakeup)
    times: dict[str, float] = field(default_factory=dict)
    back_by: str = "order"
    late: str | None = None

    def __post_init__(self) -> None:
        key = f"drill-{os.getpid()}-{time.time_ns()}"
        self.traffic = Traffic(Target(self.client.path), _BODY, self._note, key=key)

    def _note(self, sent: Sent) -> None:
        self.sent.append(sent)
        self.came.notify()

    async def change(self, operation: str, **arguments: object) -> float:
        """Order a change; return when that was (seconds, monotonic)."""
        at = trio.current_time()
        await trio.to_thread.run_sync(lambda: self.client.change(operation, **arguments))
        return at

    async def status(self) -> dict[str, Any]:
        """Return the daemon's report."""
        found: dict[str, Any] = await trio.to_thread.run_sync(self.client.look, "status")
        return found

    async def until(
        self,
        name: str,
        since: float,
        met: Callable[[dict[str, Any]], bool],
        *,
        within_seconds: float = SWITCH_SECONDS,
    ) -> None:
        """Note as ``name`` how long after ``since`` the report meets a condition."""
        with trio.fail_after(within_seconds):
            while True:
                if met(await self.status()):
                    break
                await trio.sleep(LOOK_EVERY_SECONDS)
        self.times[name] = trio.current_time() - since

    async def answered(self, name: str, since: float, met: Callable[[str], bool]) -> None:
        """Note as ``name`` how long after ``since`` the next answer came from such a server."""
        before = len(self.sent)
        with trio.fail_after(SWITCH_SECONDS):
            while not any(s.backend and met(s.backend) for s in self.sent[before:]):
                await self.came.wait(self.came.version)
        self.times[name] = trio.current_time() - since


async def _rehearse(session: Session, standby: str) -> dict[str, Any]:
    options = session.options
    rehearsal = Rehearsal(session.client)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send, rehearsal.traffic, options.rate)
        try:
            await rehearsal.answered(
                "before_seconds", trio.current_time(), lambda name: name != standby
            )
            if options.unreachable:
                await _unreachable(rehearsal, options.limit)
            else:
                await _ordered(rehearsal, standby)
        except trio.TooSlowError:
            last = next(reversed(rehearsal.times), "the start")
            rehearsal.late = f"nothing more happened in time after {last}"
        finally:
            rehearsal.traffic.arriving.cancel()  # What is under way may end.
    return await _report(session, rehearsal)


async def _send(traffic: Traffic, rate: float) -> None:
    await traffic.run(OpenLoop(rate), seconds=TRAFFIC_SECONDS, wait_seconds=ACCOUNT_SECONDS)


async def _ordered(rehearsal: Rehearsal, standby: str) -> None:
    """Move the traffic there and back by order."""
    there = await rehearsal.change("failover", name=standby, here=True)
    await rehearsal.answered("to_standby_seconds", there, lambda name: name == standby)
    back = await rehearsal.change("auto", here=True)
    await rehearsal.change("failback", here=True)
    await rehearsal.answered("back_seconds", back, lambda name: name != standby)


async def _unreachable(rehearsal: Rehearsal, limit: float) -> None:
    """Cut the primaries off, and let the daemon find its way there and back."""
    status = await rehearsal.status()
    primaries = {b["name"] for b in status["backends"] if b["role"] == "primary"}

    def down(report: dict[str, Any]) -> bool:
        return not any(b["usable"] for b in report["backends"] if b["name"] in primaries)

    rehearsal.back_by = "rules"
    cut = await rehearsal.change("sever", seconds=limit)
    await rehearsal.until("detected_seconds", cut, down)
    await rehearsal.until(
        "switched_seconds", cut, lambda report: report["serving"]["role"] == "standby"
    )
    await rehearsal.answered("to_standby_seconds", cut, lambda name: name not in primaries)
    rejoined = await rehearsal.change("mend")
    await rehearsal.until("usable_again_seconds", rejoined, lambda report: not down(report))
    steady = (await rehearsal.status())["failback_after_seconds"]
    if steady is None or steady > LONGEST_STEADY_SECONDS:
        await rehearsal.change("failback", here=True)
        rehearsal.back_by = "order"
    await rehearsal.until(
        "failed_back_seconds",
        rejoined,
        lambda report: report["serving"]["role"] == "primary",
        within_seconds=BACK_SECONDS + (steady or 0.0),
    )
    await rehearsal.answered("back_seconds", rejoined, lambda name: name in primaries)


async def _report(session: Session, rehearsal: Rehearsal) -> dict[str, Any]:
    client, sent = session.client, rehearsal.sent
    keys = [one.key for one in sent if one.key is not None]
    again = await rehearsal.traffic.send_again(keys, within_seconds=ACCOUNT_SECONDS)
    known: dict[str, Any] = {}
    for event_id in {one.event_id for one in again if one.event_id is not None}:
        look = partial(client.look, "event", event_id=event_id)
        with suppress(Refused, Unreachable):  # It is counted as lost, then.
            known[event_id] = await trio.to_thread.run_sync(look)
    ledger = account(sent, again, known)
    audit = await trio.to_thread.run_sync(client.look, "audit")
    clean = ledger.clean and not rehearsal.late and not audit["difference"]
    return {
        "drill": "failover",
        "by": "cutting the primaries off" if session.options.unreachable else "order",
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "back_by": rehearsal.back_by,
        "events": ledger.events,
        "not_sent": ledger.not_sent,
        "events_that_moved": ledger.moved,
        **{name: round(value, 3) for name, value in rehearsal.times.items()},
        "looked_every_seconds": LOOK_EVERY_SECONDS,
        "lost": list(ledger.lost),
        "failed": dict(ledger.failed),
        "doubled": list(ledger.doubled),
        "unaccounted": audit["difference"],
        "late": rehearsal.late,
        "verdict": "passed" if clean else "failed",
    }
