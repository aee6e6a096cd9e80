"""The metrics page turn by turn: the test owns the clock and drives the loop of the page."""

from __future__ import annotations

import errno
import socket
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily

from ai_ticket_daemon.host.exhaustion import Exhaustion, Resource
from ai_ticket_daemon.telemetry.page.scrapes import (
    ACCEPT_AGAIN_SECONDS,
    MAX_CONNECTIONS,
    REQUEST_SECONDS,
    SLOW_SECONDS,
    WRITE_SECONDS,
    Scrapes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ASK = b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n"
GUARD_SECONDS = 60.0
LARGE = "x" * 16_000_000
"""More than what the kernel keeps for somebody who does not read."""


class Counting:
    """A collector that counts how often it was asked, and has a page as long as a test needs."""

    def __init__(self) -> None:
        self.times = 0
        self.text = "a"
        self.costs = 0.0
        self.now = 100.0

    def collect(self) -> Iterator[GaugeMetricFamily]:
        self.times += 1
        self.now += self.costs
        yield GaugeMetricFamily("times", self.text, value=self.times)


class House:
    """The page and its clients."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.pages = Counting()
        registry = CollectorRegistry()
        registry.register(self.pages)
        self.pages.times = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.listener.setblocking(False)
        self.address = self.listener.getsockname()
        self.said: list[Resource] = []
        self.scrapes = Scrapes(
            self.listener,
            registry,
            Exhaustion(lambda resource, *_: self.said.append(resource)),
            clock=lambda: self.pages.now,
        )
        self.closes_itself = False
        stack.callback(self.close)

    def close(self) -> None:
        if not self.closes_itself:
            self.scrapes._close()

    def client(self, sends: bytes = b"") -> socket.socket:
        client = socket.create_connection(self.address, timeout=GUARD_SECONDS)
        self.stack.callback(client.close)
        if sends:
            client.sendall(sends)
        return client

    def turns(self, count: int = 2 * MAX_CONNECTIONS) -> None:
        for _ in range(count):
            self.scrapes.turn(0.0)

    def joined(self, sends: bytes = b"") -> socket.socket:
        """Return a client that the page has let in, and whose request it has read."""
        client = self.client(sends)
        self.turns()
        return client


@pytest.fixture
def house() -> Iterator[House]:
    with ExitStack() as stack:
        yield House(stack)


def read(client: socket.socket) -> bytes:
    """Return all that comes until the page closes its side."""
    whole = b""
    while piece := client.recv(65_536):
        whole += piece
    return whole


def is_gone(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    finally:
        client.settimeout(GUARD_SECONDS)


def test_a_request_that_does_not_come_is_waited_for_no_longer_than_its_time(house: House) -> None:
    silent, half = house.joined(), house.joined(ASK[:-2])
    house.pages.now += REQUEST_SECONDS - 0.01
    house.turns()
    assert not is_gone(silent)
    assert not is_gone(half)
    house.pages.now += 0.01
    house.turns()
    assert is_gone(silent)
    assert is_gone(half)
    assert len(house.scrapes) == 0


def test_bytes_that_drip_in_buy_no_time(house: House) -> None:
    client = house.joined(ASK[:4])
    house.pages.now += REQUEST_SECONDS - 1
    client.sendall(ASK[4:8])
    house.turns()
    house.pages.now += 1
    house.turns()
    assert is_gone(client)


def test_whoever_does_not_read_an_answer_is_let_go_after_its_time(house: House) -> None:
    house.pages.text = LARGE
    client = house.joined(ASK)
    house.pages.now += WRITE_SECONDS - 0.01
    house.turns()
    assert len(house.scrapes) == 1
    house.pages.now += 0.01
    house.turns()
    assert len(house.scrapes) == 0
    assert len(read_until_reset(client)) < len(LARGE)


def read_until_reset(client: socket.socket) -> bytes:
    try:
        return read(client)
    except ConnectionResetError:
        return b""


def test_the_one_that_has_been_silent_longest_makes_room(house: House) -> None:
    first, second, *_ = [house.joined() for _ in range(MAX_CONNECTIONS)]
    asks = house.joined(ASK)
    assert is_gone(first)
    assert not is_gone(second)
    assert read(asks).startswith(b"HTTP/1.1 200 ")
    assert len(house.scrapes) <= MAX_CONNECTIONS


def test_who_is_being_served_stays_and_who_comes_then_is_told_503(house: House) -> None:
    house.pages.text = LARGE
    served = [house.client(ASK) for _ in range(MAX_CONNECTIONS)]
    house.turns()
    assert len(house.scrapes) == MAX_CONNECTIONS
    assert read(house.joined()).startswith(b"HTTP/1.1 503 ")
    assert len(house.scrapes) == MAX_CONNECTIONS

    house.pages.now += SLOW_SECONDS
    house.joined(ASK)
    assert len(house.scrapes) == MAX_CONNECTIONS
    assert len(read_until_reset(served[0])) < len(LARGE)


def test_all_who_wait_get_one_page(house: House) -> None:
    clients = [house.client(ASK) for _ in range(MAX_CONNECTIONS // 2)]
    house.pages.costs = 1.0
    first = house.joined(ASK)  # its page costs a second, so the next is due later
    made = house.pages.times
    late = [house.client(ASK) for _ in range(3)]
    house.turns()
    assert house.pages.times == made
    house.pages.now += 4.0
    house.turns()
    assert house.pages.times == made + 1
    bodies = {read(client).partition(b"\r\n\r\n")[2] for client in late}
    assert len(bodies) == 1
    assert all(read(client).startswith(b"HTTP/1.1 200 ") for client in [first, *clients])


class Full:
    """A listener of a host that has run out of something; the real one otherwise."""

    def __init__(self, listener: socket.socket, number: int) -> None:
        self._listener, self._number = listener, number
        self.tries = 0

    def accept(self) -> tuple[socket.socket, object]:
        self.tries += 1
        raise OSError(self._number, "")

    def __getattr__(self, name: str) -> object:
        return getattr(self._listener, name)


@pytest.mark.parametrize(
    ("number", "resource"),
    [
        (errno.EMFILE, Resource.DESCRIPTORS),
        (errno.ENFILE, Resource.DESCRIPTORS),
        (errno.ENOMEM, Resource.MEMORY),
        (errno.ENOBUFS, Resource.BUFFERS),
    ],
)
def test_a_host_that_lacks_something_is_asked_again_later_and_not_all_the_time(
    house: House, monkeypatch: pytest.MonkeyPatch, number: int, resource: Resource
) -> None:
    full = Full(house.listener, number)

    client = house.client(ASK)
    monkeypatch.setattr(house.scrapes, "_listener", full)
    real = house.scrapes._selector.unregister
    monkeypatch.setattr(
        house.scrapes._selector,
        "unregister",
        lambda one: real(house.listener if one is full else one),
    )
    house.scrapes._accept()
    tries = full.tries
    assert house.said == [resource]
    monkeypatch.setattr(house.scrapes, "_listener", house.listener)
    house.turns()
    assert len(house.scrapes) == 0
    house.pages.now += ACCEPT_AGAIN_SECONDS
    house.turns()
    assert full.tries == tries
    assert read(client).startswith(b"HTTP/1.1 200 ")


def test_the_page_answers_while_nothing_else_of_the_process_turns(house: House) -> None:
    house.closes_itself = True
    thread = threading.Thread(target=house.scrapes.run)
    thread.start()
    try:
        # This thread is where the event loop would be, and it waits in a plain read.
        assert read(house.client(ASK)).startswith(b"HTTP/1.1 200 ")
    finally:
        house.scrapes.stop()
        thread.join(GUARD_SECONDS)
    assert not thread.is_alive()
