"""A daemon with one more route, ``POST /noop``, which reads its body and answers with a constant.

``python intake_server.py FOLDER`` keeps its events in ``FOLDER`` and prints its address.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.app import Daemon
from ai_ticket_daemon.config.backends import ServerConfig
from ai_ticket_daemon.config.log import LogFormat, LogLevel
from ai_ticket_daemon.config.store import StoreConfig
from ai_ticket_daemon.server.http_exchange import HttpExchange
from ai_ticket_daemon.server.response import json_response
from ai_ticket_daemon.telemetry.logs.logs import Logs
from ai_ticket_daemon.testing.daemon import config_for

if TYPE_CHECKING:
    from ai_ticket_daemon.server.request import ClientSide, Request
    from ai_ticket_daemon.server.response import Response


class _Noop(HttpExchange):
    async def _handle(self) -> Response:
        await self.read_body()
        return json_response(202, {"accepted": True})


async def main(folder: Path) -> None:
    # Nobody listens at this port: events are accepted, and wait.
    config = replace(
        config_for(ServerConfig(name="none", url="http://127.0.0.1:1")),
        store=StoreConfig(url=f"sqlite:///{folder}/events.db", max_queued=10_000_000),
    )
    logs = Logs(LogLevel.ERROR, LogFormat.JSON, stream=sys.stderr)
    daemon = Daemon(config, load=lambda: config, logs=logs)

    served = daemon._front_end.app
    open_exchange = served.open_exchange

    def open_one(request: Request, client: ClientSide) -> HttpExchange:
        if request.target == b"/noop":
            return _Noop(served._context, request, client)
        return open_exchange(request, client)

    vars(served)["open_exchange"] = open_one
    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(daemon.run)
        print(f"ready on {addresses[0]}", flush=True)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
