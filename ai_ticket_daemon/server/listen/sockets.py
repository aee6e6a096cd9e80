"""Listening sockets: TCP, Unix, or handed over as a file descriptor."""

from __future__ import annotations

import errno
import os
import socket as stdlib_socket
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon.config.values.addresses import FdBind, TcpBind, UnixBind
from ai_ticket_daemon.server.listen.handed_over import path_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ai_ticket_daemon.config.values.addresses import Bind

BACKLOG = 1024
_UNIX_MODE = 0o660
_SAME_PORT_ATTEMPTS = 10
_NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
_CREDENTIALS = struct.Struct("3i")


class ListenerUnavailable(Exception):
    """An address cannot be listened on; the message names it and the cause."""


@dataclass(frozen=True, slots=True)
class BoundListener:
    """A socket that listens.

    Args:
        listener: the socket.
        address: what it is called in logs and messages.
        unix_path: the path of a Unix socket that is ours to remove.
        unix_inode: tells whether what is at that path is still ours.
        shared: the socket once more, if other processes may accept from it, too.
    """

    listener: trio.SocketListener
    address: str
    unix_path: Path | None = None
    unix_inode: int | None = None
    shared: stdlib_socket.socket | None = None

    @property
    def is_unix(self) -> bool:
        """Whether only this host can connect, over a path."""
        return self.listener.socket.family == stdlib_socket.AF_UNIX

    async def accept(self) -> trio.SocketStream:
        """Wait for a client.

        Raises:
            OSError: this client cannot be had; another one may.
        """
        if self.shared is None:
            return await self.listener.accept()
        while True:
            await trio.lowlevel.wait_readable(self.shared)
            # Whether a socket blocks is a property it has in all processes at once, and starting
            # one of them may set it; blocking here would stop the event loop.
            self.shared.setblocking(False)
            try:
                client, _ = self.shared.accept()
            except BlockingIOError:
                continue  # another process was faster
            return trio.SocketStream(trio.socket.from_stdlib_socket(client))

    def close(self) -> None:
        """Stop to listen, and remove the path of a Unix socket unless another took its place."""
        if self.listener.socket.fileno() == -1:
            return
        self.listener.socket.close()
        if self.unix_path is not None:
            with suppress(FileNotFoundError):
                if self.unix_path.stat().st_ino == self.unix_inode:
                    self.unix_path.unlink()


async def open_listeners(binds: Sequence[Bind]) -> list[BoundListener]:
    """Listen on all of ``binds``, or on none.

    Raises:
        ListenerUnavailable: one of them cannot be listened on.
    """
    opened: list[BoundListener] = []
    try:
        for bind in binds:
            try:
                opened.extend(await _open(bind))
            except OSError as error:
                raise ListenerUnavailable(
                    f"cannot listen on {bind}: {error.strerror or error}{_hint(error)}"
                ) from error
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    return opened


def watch_peer(socket: trio.socket.SocketType, timeout_seconds: float) -> None:
    """Have the kernel end a TCP connection whose client is silent though it should not be.

    A client that vanished without a word, or never reads, is gone after about ``timeout_seconds``,
    also while there is nothing to send.
    """
    if socket.family not in (stdlib_socket.AF_INET, stdlib_socket.AF_INET6):
        return
    probe_seconds = max(1, int(timeout_seconds / 3))
    tcp = stdlib_socket.IPPROTO_TCP
    socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_KEEPALIVE, 1)
    socket.setsockopt(tcp, stdlib_socket.TCP_KEEPIDLE, probe_seconds)
    socket.setsockopt(tcp, stdlib_socket.TCP_KEEPINTVL, probe_seconds)
    socket.setsockopt(tcp, stdlib_socket.TCP_KEEPCNT, 3)
    socket.setsockopt(tcp, stdlib_socket.TCP_USER_TIMEOUT, int(timeout_seconds * 1000))


def peer_of(socket: trio.socket.SocketType | stdlib_socket.socket) -> dict[str, int]:
    """Return who is at the other end, as the kernel tells it (unix(7), SO_PEERCRED).

    Nothing for a client that came over the network.
    """
    if socket.family != stdlib_socket.AF_UNIX:
        return {}
    credentials = socket.getsockopt(
        stdlib_socket.SOL_SOCKET, stdlib_socket.SO_PEERCRED, _CREDENTIALS.size
    )
    pid, uid, _ = _CREDENTIALS.unpack(credentials)
    return {"peer_pid": pid, "peer_uid": uid}


def peer_address(socket: trio.socket.SocketType) -> str | None:
    """Return the address at the other end; None for a Unix socket, "" if it has gone already."""
    if socket.family not in (stdlib_socket.AF_INET, stdlib_socket.AF_INET6):
        return None
    try:
        return str(socket.getpeername()[0])
    except OSError:
        return ""


async def _open(bind: Bind) -> list[BoundListener]:
    match bind:
        case TcpBind():
            return await _open_tcp(bind)
        case UnixBind():
            return [_open_unix(bind)]
        case FdBind():
            return [_open_fd(bind)]


async def _open_tcp(bind: TcpBind) -> list[BoundListener]:
    """Listen on all addresses of a name, on one port: also where the kernel chooses it."""
    found = await trio.socket.getaddrinfo(
        bind.host, bind.port, type=stdlib_socket.SOCK_STREAM, flags=stdlib_socket.AI_PASSIVE
    )
    # A hosts file may name an address twice.
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    for attempts_left in reversed(range(_SAME_PORT_ATTEMPTS)):
        try:
            return await _listen_on(addresses)
        except OSError as error:
            # The port that the kernel chose at the first address is taken at another one.
            taken = error.errno == errno.EADDRINUSE and bind.port == 0 and len(addresses) > 1
            if not taken or not attempts_left:
                raise
    raise AssertionError("unreachable")


async def _listen_on(
    addresses: Sequence[tuple[int, tuple[Any, ...]]],
) -> list[BoundListener]:
    """Listen on all of ``addresses``, on one port, or on none.

    An IPv6 address that this host does not have is left out if there is another one: many hosts
    have IPv6 switched off, and a line for it in their hosts file.
    """
    opened: list[BoundListener] = []
    left_out: OSError | None = None
    port = 0
    try:
        for family, (host, asked_port, *rest) in addresses:
            try:
                socket = await _listening(family, (host, asked_port or port, *rest))
            except OSError as error:
                if family != stdlib_socket.AF_INET6 or error.errno not in _NO_IPV6:
                    raise
                left_out = error
                continue
            opened.append(_bound(socket))
            port = port or socket.getsockname()[1]
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    if left_out is not None and not opened:
        raise left_out
    return opened


async def _listening(family: int, address: tuple[Any, ...]) -> trio.socket.SocketType:
    socket = trio.socket.socket(family, stdlib_socket.SOCK_STREAM)
    try:
        socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_REUSEADDR, 1)
        if family == stdlib_socket.AF_INET6:
            # So that "[::]:5000" and "0.0.0.0:5000" can stand side by side.
            socket.setsockopt(stdlib_socket.IPPROTO_IPV6, stdlib_socket.IPV6_V6ONLY, 1)
        await socket.bind(address)
        socket.listen(BACKLOG)
    except BaseException:
        socket.close()
        raise
    return socket


def _open_unix(bind: UnixBind) -> BoundListener:
    path = bind.path
    _remove_stale(path)
    socket = stdlib_socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_STREAM)
    try:
        socket.bind(str(path))
        # Nobody can connect before listen(), so the mode is right from the first moment.
        path.chmod(_UNIX_MODE)
        inode = path.stat().st_ino
        socket.listen(BACKLOG)
    except BaseException:
        socket.close()
        raise
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(socket))
    return BoundListener(listener, str(bind), path, inode)


def _remove_stale(path: Path) -> None:
    """Remove the socket that a killed daemon left behind; leave alone whatever else is there."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "there is a file of this name that is not a socket")
    with stdlib_socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # its backlog is full: somebody listens
    raise OSError(errno.EADDRINUSE, "Address already in use")


def _open_fd(bind: FdBind) -> BoundListener:
    # A copy: the listener may be started anew, and the descriptor it was given has to last.
    socket = stdlib_socket.socket(fileno=os.dup(bind.fd))
    listens = (
        socket.type == stdlib_socket.SOCK_STREAM
        and socket.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_ACCEPTCONN) == 1
    )
    if not listens:
        socket.close()
        raise OSError(errno.EINVAL, "it is no listening stream socket")
    path = path_of(socket) if socket.family == stdlib_socket.AF_UNIX else None
    name = f"unix:{path}" if path else str(bind)
    bound = _bound(trio.socket.from_stdlib_socket(socket), name)
    return replace(bound, shared=socket)


def _bound(socket: trio.socket.SocketType, name: str | None = None) -> BoundListener:
    if socket.family == stdlib_socket.AF_UNIX:
        address = name or "unix"
    else:
        host, port, *_ = socket.getsockname()
        address = str(TcpBind(host, port))
    return BoundListener(trio.SocketListener(socket), address)


def _hint(error: OSError) -> str:
    """Return what to do about ``error``, where there is something typical."""
    match error.errno:
        case errno.EADDRINUSE:
            return "; stop what listens there, or change http.bind"
        case errno.EACCES:
            return "; use a port above 1023 or a directory the daemon may write to"
        case errno.EADDRNOTAVAIL:
            return "; http.bind has to name an address of this host"
    return "; change http.bind"
