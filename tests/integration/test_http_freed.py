"""What a client took is free again when it has gone, without a collection of garbage.

A collection comes late, looks at everything that all clients hold, and keeps the event loop for as
long. So nothing of a connection may know itself in a circle.
"""

from __future__ import annotations

import gc
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trio

from ai_ticket_daemon.server.http_exchange import HttpExchange
from ai_ticket_daemon.server.listen.admission import Guest
from ai_ticket_daemon.server.listen.connection import Connection
from ai_ticket_daemon.server.listen.http1 import Http1
from ai_ticket_daemon.server.listen.http2 import Http2
from ai_ticket_daemon.server.listen.remote_settings import BoundedEncoder
from ai_ticket_daemon.testing.http import serving
from tests.integration.test_http_disconnect import GET, held, post
from tests.support.http2_client import Http2Client
from tests.support.lacks import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from ai_ticket_daemon.testing.http import Served

KINDS = (Connection, Guest, HttpExchange, Http1, Http2, BoundedEncoder)
"""What is made for a client; the last is hyper-h2's, by the part of it that is ours."""


@pytest.fixture(autouse=True)
def _no_collections() -> Iterator[None]:
    gc.collect()
    gc.freeze()  # what is there already need not be looked at
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def there() -> list[str]:
    return [type(found).__name__ for found in gc.get_objects() if isinstance(found, KINDS)]


@asynccontextmanager
async def all_freed() -> AsyncIterator[Served]:
    """Serve clients; what was made for them has to be gone when they are."""
    async with serving(pipeline=held()) as served:
        before = len(there())
        yield served
        with suppress(trio.TooSlowError):
            await until(lambda: len(there()) == before)
        assert len(there()) == before, there()


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(GET, id="one request"),
        pytest.param(GET + GET, id="two requests"),
        pytest.param(b"no HTTP\r\n\r\n", id="no HTTP"),
    ],
)
async def test_a_client_that_was_answered_leaves_nothing(sent: bytes) -> None:
    async with all_freed() as served:
        client = await served.connect()
        await client.send(sent)
        await client.reply()
        await client.stream.aclose()


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(post(stream=False), id="waiting"),
        pytest.param(post(stream=False) + GET, id="waiting, with more sent ahead"),
        pytest.param(post(stream=True), id="reading a stream"),
        pytest.param(post(stream=False)[:-1], id="sending"),
    ],
)
async def test_a_client_that_left_leaves_nothing(sent: bytes) -> None:
    is_whole = sent != post(stream=False)[:-1]
    made = [Connection, Guest, HttpExchange, Http1]
    async with all_freed() as served:
        client = await served.connect()
        await client.send(sent)
        await until(lambda: len(there()) == len(made))
        await until(lambda: bool(served.pipeline.submissions) == is_whole)
        await client.stream.aclose()


@pytest.mark.parametrize("waits", [False, True], ids=["answered", "waiting"])
async def test_a_client_of_http2_leaves_nothing(waits: bool) -> None:
    async with all_freed() as served:
        client = await Http2Client.open(served)
        if waits:
            head, _, body = post(stream=False).partition(b"\r\n\r\n")
            assert b"POST /event " in head
            await client.ask(
                ("content-type", "application/json"),
                body=body,
                pseudo={"method": "POST", "path": "/event"},
            )
            await until(lambda: bool(served.pipeline.submissions))
        else:
            assert (await client.answer(await client.ask())).status == 200
        await client.stream.aclose()
