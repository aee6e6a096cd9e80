"""No bad body keeps the event loop for long in one turn, by the time its own thread computes.

In this process and without sockets: what else goes on on the machine is not counted. A group that
has a long turn is sent again (see loop_meter.py).
"""

from __future__ import annotations

import gc
import time
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio

from ai_ticket_daemon.config.auth import AuthConfig
from ai_ticket_daemon.config.events import EventsConfig
from ai_ticket_daemon.config.http import HttpConfig
from ai_ticket_daemon.config.rate_limit import RateLimitConfig
from ai_ticket_daemon.server.app import create_app
from ai_ticket_daemon.testing.pipeline import ScriptedPipeline
from tests.attacks.test_bodies import LONG, attacks
from tests.support.attacks.loop_meter import least, slowness

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ai_ticket_daemon.server.ports import HealthView

MOST_SECONDS = 0.05


@pytest.fixture(autouse=True)
def _as_in_the_daemon() -> Iterator[None]:
    """Keep collections from what was there before, as the daemon does at its start.

    Else the longest turn is that in which all objects of all tests are looked at.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Turns(trio.abc.Instrument):
    """The longest time of the processor that one turn of a task took."""

    def __init__(self) -> None:
        self.longest_seconds = 0.0
        self._began = time.thread_time()

    def before_task_step(self, _task: trio.lowlevel.Task) -> None:
        self._began = time.thread_time()

    def after_task_step(self, _task: trio.lowlevel.Task) -> None:
        self.longest_seconds = max(self.longest_seconds, time.thread_time() - self._began)


async def send(app: Any, route: str, media_type: str, body: bytes) -> int:
    """Hand a request to the app as the listener does; return the status of its answer."""
    statuses = []
    to_app, from_client = trio.open_memory_channel[dict[str, Any]](8)
    for at in range(0, len(body), 2**22):
        more = at + 2**22 < len(body)
        piece = body[at : at + 2**22]
        to_app.send_nowait({"type": "http.request", "body": piece, "more_body": more})

    async def take(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
        await trio.lowlevel.checkpoint()

    headers = [
        (b"host", b"a"),
        (b"content-type", media_type.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"prefer", b"respond-async"),
    ]
    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": route,
        "raw_path": route.encode(), "query_string": b"", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 5000), "state": {},
    }  # fmt: skip
    await app(scope, from_client.receive, take)
    [status] = statuses
    return cast("int", status)


@pytest.mark.parametrize("together", [1, 16] if LONG else [16])
async def test_no_bad_body_takes_a_long_turn_of_the_event_loop(together: int) -> None:
    app = create_app(
        pipeline=ScriptedPipeline(),
        health=cast("HealthView", None),
        http=HttpConfig,
        events=EventsConfig,
        auth=AuthConfig,
        rate_limit=lambda: RateLimitConfig(requests=0),
    )
    sent = attacks()
    slow = []
    for begin in range(0, len(sent), together):
        some = sent[begin : begin + together]
        seconds = await least(partial(longest_turn, app, some), MOST_SECONDS)
        if seconds > MOST_SECONDS:
            about = [(route, kind, body[:60], len(body)) for route, kind, body in some]
            slow.append((round(seconds, 3), about))
    assert not slow


async def longest_turn(app: Any, some: list[tuple[str, str, bytes]]) -> float:
    """Send these together; return the longest turn, by the yardstick before and after it."""
    before, turns = slowness(), Turns()
    async with trio.open_nursery() as nursery:
        trio.lowlevel.add_instrument(turns)
        for attack in some:
            nursery.start_soon(send, app, *attack)
    trio.lowlevel.remove_instrument(turns)
    return turns.longest_seconds / max(before, slowness())


async def test_a_turn_that_is_too_long_is_seen() -> None:
    async def decoding(_scope: Any, _receive: Any, send: Any) -> None:
        until = time.thread_time() + 4 * MOST_SECONDS
        while time.thread_time() < until:
            pass
        await send({"type": "http.response.start", "status": 200})

    longest = partial(longest_turn, decoding, [("/", "text/plain", b"")])
    assert await least(longest, MOST_SECONDS) > MOST_SECONDS
