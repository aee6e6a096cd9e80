"""``ai-ticketctl loadtest``: sends events, looks at the daemon meanwhile, judges by an SLO."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import httpx
import trio

from ai_ticket_daemon.ctl.client import Refused, Unreachable
from ai_ticket_daemon.ctl.load.arrivals import ClosedLoop, OpenLoop
from ai_ticket_daemon.ctl.load.gauges import Gauges, from_metrics, from_status
from ai_ticket_daemon.ctl.load.interruptible import run_trio
from ai_ticket_daemon.ctl.load.load_report import Tally, judge
from ai_ticket_daemon.ctl.load.objectives import Slo
from ai_ticket_daemon.ctl.load.traffic import Target, Traffic
from ai_ticket_daemon.ctl.session import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_REFUSED,
    EXIT_USAGE,
    TOKEN_VARIABLE,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ai_ticket_daemon.ctl.session import Session

LOOK_EVERY_SECONDS = 1.0


def loadtest(session: Session) -> int:
    """Run the test; exit code 1 if an objective is missed."""
    options, target = session.options, target_of(session)
    if options.clients is not None and options.clients > target.max_open:
        session.tell(
            f"ai-ticketctl: the control socket is for {target.max_open} clients at most; use --url"
        )
        return EXIT_USAGE
    if options.output is not None and options.output.exists():
        raise Refused("exists", f"{options.output} is there already; name another file")
    if options.url is None:
        session.client.need_to_act()
    stop = trio.Event()
    report = run_trio(_run, session, target, stop, stop=stop)
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=2) + "\n")
    session.say(report, "loadtest")
    if report["interrupted"]:
        return EXIT_INTERRUPTED
    return EXIT_OK if report["verdict"] == "met" else EXIT_REFUSED


async def _run(session: Session, target: Target, stop: trio.Event) -> dict[str, Any]:
    """Send for as long as asked, or until ``stop`` is set; return the report on what was sent."""
    options = session.options
    await _greet(target, options.timeout)
    body = {"content": options.prompt, "max_tokens": options.max_tokens, "stream": options.stream}
    pattern = (
        OpenLoop(options.rate, options.seed)
        if options.clients is None
        else ClosedLoop(options.clients)
    )
    tally = Tally()
    traffic = Traffic(target, body, tally.take)
    # With a public address, the control socket here may well be that of another daemon.
    here = session.client.path if options.url is None or session.named else None
    watcher = Watcher(options.metrics, here, options.timeout)
    began_on = time.time()
    async with trio.open_nursery() as nursery:
        await nursery.start(watcher.run, traffic.arrived)
        began_at = trio.current_time()
        async with trio.open_nursery() as sending:
            sending.start_soon(_stop_arrivals, traffic, stop)
            await traffic.run(pattern, seconds=options.seconds, wait_seconds=options.wait)
            sending.cancel_scope.cancel()
        took_seconds = trio.current_time() - began_at
    slo = Slo(options.slo_p95, options.slo_errors, options.slo_queue_age, options.slo_first_text)
    return {
        "loadtest": "open-loop" if options.clients is None else "closed-loop",
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began_on)),
        "target": options.url or str(session.client.path),
        "seconds": round(traffic.arrived_seconds, 3),
        "interrupted": stop.is_set(),
        "pattern": asdict(pattern),
        "stream": options.stream,
        "max_tokens": options.max_tokens,
        "slo": asdict(slo),
        **judge(
            tally,
            watcher.gauges.summary(),
            slo,
            open_loop=options.clients is None,
            seconds=traffic.arrived_seconds,
            took_seconds=took_seconds,
        ),
    }


async def _stop_arrivals(traffic: Traffic, stop: trio.Event) -> None:
    await stop.wait()
    traffic.arriving.cancel()


def target_of(session: Session) -> Target:
    """Return where the events go; the token comes from a file or the environment."""
    options = session.options
    if options.url is None:
        return Target(session.client.path)
    token = os.environ.get(TOKEN_VARIABLE)
    if options.token_file is not None:
        token = options.token_file.read_text().strip()
    return Target(None, options.url, token or None)


async def _greet(target: Target, timeout_seconds: float) -> None:
    """Make sure that there is a daemon at all.

    Raises:
        Unreachable: nobody answers there, or somebody else.
    """
    try:
        async with target.connect() as client:
            with trio.fail_after(timeout_seconds):
                answer = await client.get("/live")
    except (httpx.HTTPError, httpx.InvalidURL, trio.TooSlowError) as error:
        where = target.url if target.socket is None else target.socket
        raise Unreachable(f"nobody answers at {where}: {_words(error)}") from error
    if answer.status_code != httpx.codes.OK:
        raise Unreachable(f"{target.url} is not this daemon: /live answered {answer.status_code}")


class Watcher:
    """Looks at the daemon, by its metrics page or its control socket, for what it says of itself.

    Args:
        metrics: the address of the page, if it is to be that.
        socket: the control socket, else.
        timeout_seconds: how long the daemon may take.
    """

    def __init__(self, metrics: str | None, socket: Path | None, timeout_seconds: float) -> None:
        self._metrics = metrics
        self._socket = socket
        self._timeout_seconds = timeout_seconds
        self.gauges = Gauges()

    async def run(
        self,
        until: trio.Event,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Look now, then every second, and once more when ``until`` is set.

        A look that fails later on is left out: the test goes on.

        Raises:
            Unreachable: the first look failed.
        """
        if self._metrics is None and self._socket is None:
            task_status.started()
            return
        uds = None if self._metrics or self._socket is None else str(self._socket)
        async with httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=uds), timeout=self._timeout_seconds
        ) as client:
            try:
                await self._look(client)
            except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
                where = self._metrics or self._socket
                raise Unreachable(
                    f"no slot use and queue to be had from {where}: {_words(error)}"
                ) from error
            task_status.started()
            while not until.is_set():
                with trio.move_on_after(LOOK_EVERY_SECONDS):
                    await until.wait()
                with suppress(httpx.HTTPError, ValueError, KeyError):
                    await self._look(client)

    async def _look(self, client: httpx.AsyncClient) -> None:
        answer = await client.get(self._metrics or "http://localhost/control/status")
        answer.raise_for_status()
        self.gauges.take(from_metrics(answer.text) if self._metrics else from_status(answer.json()))


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
