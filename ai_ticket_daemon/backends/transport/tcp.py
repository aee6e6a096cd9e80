"""A TCP connection as a stream of trio's, with as few turns of the loop as it needs.

Each turn that a task gives up costs more than the system call it waits for. Sending tries first,
since there is room as a rule; receiving waits first, since an answer is never there yet.
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator


class TcpStream(trio.abc.Stream):
    """A connected socket; it is closed without waiting for anything."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._cancelled_by_waits: trio.CancelScope | None = None
        self._has_looked = False
        if connected.family != socket.AF_UNIX:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything.

        Raises:
            trio.BrokenResourceError: the connection broke.
        """
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                if self._cancelled_by_waits is not None:
                    await self._refuse_to_wait(self._cancelled_by_waits)
                await trio.lowlevel.wait_writable(self._socket)
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from error

    def send_now(self, data: bytes) -> int:
        """Send what there is room for; return how many bytes that were.

        Raises:
            OSError: the connection broke.
        """
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room to send into."""
        await trio.lowlevel.wait_writable(self._socket)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what comes next; empty at the end.

        Raises:
            trio.BrokenResourceError: the connection broke.
        """
        while True:
            if self._cancelled_by_waits is None:
                await trio.lowlevel.wait_readable(self._socket)
            elif self._has_looked:
                await self._refuse_to_wait(self._cancelled_by_waits)
            self._has_looked = True
            try:
                return self._socket.recv(max_bytes or 65_536)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from error

    @contextmanager
    def cancelling_waits(self, scope: trio.CancelScope) -> Iterator[None]:
        """Receive what is there, once, and cancel ``scope`` where more would be needed.

        So what TLS holds can be had without waiting.
        """
        self._cancelled_by_waits, self._has_looked = scope, False
        try:
            yield
        finally:
            self._cancelled_by_waits = None

    @staticmethod
    async def _refuse_to_wait(scope: trio.CancelScope) -> None:
        scope.cancel()
        await trio.lowlevel.checkpoint()

    def receive_now(self, max_bytes: int) -> bytes:
        """Return what came already; empty if that is nothing, or the end."""
        try:
            return self._socket.recv(max_bytes)
        except OSError:
            return b""

    def is_silent(self) -> bool:
        """Whether nothing came, not even the end."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close the connection; whoever waits for it is told."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    async def aclose(self) -> None:
        """Close the connection, as trio asks for it."""
        self.close()
        await trio.lowlevel.checkpoint()


async def open_tcp(host: str, port: int, family: socket.AddressFamily | None) -> TcpStream:
    """Connect to a server.

    Args:
        host: a name or an address.
        port: its port.
        family: of the address; None: ``host`` is a name, which is looked up, and of whose addresses
            the first that answers is taken.

    Raises:
        OSError: it could not be reached.
    """
    if family is None:
        found = await trio.open_tcp_stream(host, port)
        named = socket.socket(fileno=found.socket.detach())
        named.setblocking(False)
        return TcpStream(named)
    connecting = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    connected = False
    try:
        try:
            connecting.connect((host, port))
        except BlockingIOError:
            await trio.lowlevel.wait_writable(connecting)
            number = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                raise OSError(number, os.strerror(number)) from None
        connected = True
        return TcpStream(connecting)
    finally:
        if not connected:
            connecting.close()
