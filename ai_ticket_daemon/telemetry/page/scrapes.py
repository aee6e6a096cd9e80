"""Serves the metrics page from one thread: few connections, each for a short time.

Everybody may connect, so nobody may hold anything up. A request has to come, and its answer be
read, within seconds. Beyond ``MAX_CONNECTIONS`` whoever has been silent longest makes room for the
next one. One page is made for all who wait for it, and making them may take no
more than a share of the time. One descriptor is held back, so that the page can be had even when
there is no other left.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import chain
from typing import TYPE_CHECKING

from ai_ticket_daemon.host.exhaustion import Resource, exhausted
from ai_ticket_daemon.telemetry.page.exposition import (
    END_OF_HEAD,
    MAX_HEAD_BYTES,
    BadRequest,
    Scrape,
    read_request,
    refusal,
    render,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from ai_ticket_daemon.host.exhaustion import Exhaustion

MAX_CONNECTIONS = 16
REQUEST_SECONDS = 5.0
"""How long a request may take to come."""
WRITE_SECONDS = 10.0
"""How long an answer may take to be read."""
SLOW_SECONDS = 2.0
"""From when on somebody who has not read an answer has to make room for others."""
LINGER_SECONDS = 1.0
"""How long to wait for the client to close first, so that it does not lose the answer."""
ACCEPT_AGAIN_SECONDS = 0.5
"""How long connections are left waiting when none can be had."""
SHARE = 0.2
"""How much of the time may go into making pages."""
WHERE = "metrics"
_READ = selectors.EVENT_READ
_CHUNK_BYTES = 65_536


@dataclass(slots=True, eq=False)
class _Connection:
    socket: socket.socket
    until: float
    request: bytearray = field(default_factory=bytearray)
    scrape: Scrape | None = None
    head_only: bool = False
    answer: memoryview | None = None
    on_reserve: bool = False

    @property
    def has_asked(self) -> bool:
        return self.scrape is not None or self.answer is not None


class Scrapes:
    """Serves scrapes of ``registry`` that come in at ``listener``, which it closes in the end.

    Args:
        listener: a socket that listens and does not block.
        registry: what the page shows.
        exhaustion: told of what the host lacks.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        listener: socket.socket,
        registry: CollectorRegistry,
        exhaustion: Exhaustion,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener = listener
        self._registry = registry
        self._exhaustion = exhaustion
        self._clock = clock
        self._connections: list[_Connection] = []
        self._selector = selectors.DefaultSelector()
        self._awake, self._wake = socket.socketpair()
        self._reserve: int | None = None
        self._accepts = True
        self._accept_at = 0.0
        self._render_at = 0.0
        self._stopping = False
        self._selector.register(listener, _READ)
        self._selector.register(self._awake, _READ)
        self._take_reserve()

    def __len__(self) -> int:
        return len(self._connections)

    def run(self) -> None:
        """Serve until :meth:`stop`."""
        try:
            while not self._stopping:
                try:
                    self.turn(self._patience())
                except (
                    MemoryError
                ) as error:  # what was under way is over; the next one may fare better
                    self._exhaustion.meets(error, WHERE)
                    self._drop(*self._connections)
        finally:
            self._close()

    def stop(self) -> None:
        """Have :meth:`run` return; to be called from any thread."""
        self._stopping = True
        with suppress(OSError):  # it has ended by itself
            self._wake.send(b"\0")

    def turn(self, patience_seconds: float) -> None:
        """Do what can be done now, once something can or the time is over."""
        for key, _ in self._selector.select(patience_seconds):
            match key.data:
                case _Connection() as connection if connection in self._connections:
                    self._go_on(connection)
                case None if key.fileobj is self._listener:
                    self._accept()
        now = self._clock()
        self._drop(*[one for one in self._connections if one.until <= now])
        if not self._accepts and now >= self._accept_at:
            self._selector.register(self._listener, _READ)
            self._accepts = True
        self._answer_scrapes()

    def _patience(self) -> float:
        """How long there is nothing to do, unless somebody sends something."""
        times = [one.until for one in self._connections]
        if not self._accepts:
            times.append(self._accept_at)
        if any(one.scrape is not None for one in self._connections):
            times.append(self._render_at)
        now = self._clock()
        return max(0.0, min(times, default=now + REQUEST_SECONDS) - now)

    def _accept(self) -> None:
        on_reserve = False
        try:
            try:
                client, _ = self._listener.accept()
            except OSError as error:
                if exhausted(error) is not Resource.DESCRIPTORS or not self._give_reserve():
                    raise
                self._exhaustion.meets(error, WHERE)
                on_reserve = True
                client, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # of the host, or of a client that left while it waited
            if self._exhaustion.meets(error, WHERE) is not None:
                self._selector.unregister(self._listener)
                self._accepts = False
                self._accept_at = self._clock() + ACCEPT_AGAIN_SECONDS
            return
        if len(self._connections) >= MAX_CONNECTIONS and not self._make_room():
            self._refuse(client)
            return
        client.setblocking(False)
        connection = _Connection(client, self._clock() + REQUEST_SECONDS, on_reserve=on_reserve)
        self._connections.append(connection)
        self._selector.register(client, _READ, connection)

    def _make_room(self) -> bool:
        """Let go of one who can go; False if everybody is just being served.

        First of who has all that was asked for, then of who has been silent longest, then of who
        reads too slowly.
        """
        slow = self._clock() + WRITE_SECONDS - SLOW_SECONDS
        done = (one for one in self._connections if one.answer is not None and not one.answer)
        silent = (one for one in self._connections if not one.has_asked)
        slowest = (one for one in self._connections if one.answer and one.until <= slow)
        found = next(chain(done, silent, slowest), None)
        if found is None:
            return False
        self._drop(found)
        return True

    def _refuse(self, client: socket.socket) -> None:
        """Answer somebody who finds all places taken by those who are being served."""
        client.setblocking(False)
        try:
            client.send(refusal(HTTPStatus.SERVICE_UNAVAILABLE))
        except OSError:
            pass  # the client has gone
        finally:
            client.close()

    def _go_on(self, connection: _Connection) -> None:
        try:
            if connection.answer is None:
                self._read(connection)
            elif connection.answer:
                self._write(connection)
            elif not connection.socket.recv(_CHUNK_BYTES):  # read and thrown away
                self._drop(connection)
        except BlockingIOError:
            return
        except OSError:  # the client has gone
            self._drop(connection)

    def _read(self, connection: _Connection) -> None:
        data = connection.socket.recv(MAX_HEAD_BYTES)
        if not data:
            self._drop(connection)
            return
        if connection.scrape is not None:
            return  # what follows the request is no business of this page
        request = connection.request
        request += data
        head, end, _ = request.partition(END_OF_HEAD)
        if len(head) > MAX_HEAD_BYTES:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self._send(connection, refusal(status))
        elif end:
            try:
                connection.scrape, connection.head_only = read_request(bytes(head))
            except BadRequest as bad:
                self._send(connection, refusal(bad.status))
            else:
                # From here on this side is to be waited for, within bounds.
                connection.until = self._clock() + WRITE_SECONDS

    def _answer_scrapes(self) -> None:
        """Make one page, if somebody waits for one and the time for that has come."""
        began_at = self._clock()
        scrape = next((one.scrape for one in self._connections if one.scrape is not None), None)
        if scrape is None or began_at < self._render_at:
            return
        page = render(self._registry, scrape)
        now = self._clock()
        self._render_at = now + (now - began_at) * (1 / SHARE - 1)
        whole = page.head + page.body
        for connection in [one for one in self._connections if one.scrape == scrape]:
            self._send(connection, page.head if connection.head_only else whole)

    def _send(self, connection: _Connection, answer: bytes) -> None:
        connection.scrape = None
        connection.answer = memoryview(answer)
        connection.until = self._clock() + WRITE_SECONDS
        self._selector.modify(connection.socket, selectors.EVENT_WRITE, connection)
        self._go_on(connection)

    def _write(self, connection: _Connection) -> None:
        assert connection.answer is not None  # noqa: S101 - asked before
        connection.answer = connection.answer[connection.socket.send(connection.answer) :]
        if not connection.answer:
            connection.socket.shutdown(socket.SHUT_WR)
            connection.until = self._clock() + LINGER_SECONDS
            self._selector.modify(connection.socket, _READ, connection)

    def _drop(self, *connections: _Connection) -> None:
        for connection in connections:
            self._connections.remove(connection)
            self._selector.unregister(connection.socket)
            connection.socket.close()
            if connection.on_reserve:
                self._take_reserve()

    def _take_reserve(self) -> None:
        if self._reserve is None:
            try:
                self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:  # somebody else has taken it; tried again with the next one
                self._exhaustion.meets(error, WHERE)

    def _give_reserve(self) -> bool:
        if self._reserve is None:
            self._take_reserve()
        reserve, self._reserve = self._reserve, None
        if reserve is None:
            return False
        os.close(reserve)
        return True

    def _close(self) -> None:
        self._drop(*self._connections)
        self._selector.close()
        for one in (self._listener, self._awake, self._wake):
            one.close()
        if self._reserve is not None:
            os.close(self._reserve)
