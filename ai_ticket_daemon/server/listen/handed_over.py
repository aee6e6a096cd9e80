"""The sockets that systemd hands over: what they are bound to, and when they are served."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.open_sockets import SOCKET_UNIT, HandedOver
from ai_ticket_daemon.config.values.addresses import FdBind, TcpBind, UnixBind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ai_ticket_daemon.config.http import HttpConfig
    from ai_ticket_daemon.config.values.addresses import Bind

_SHIPPED_NAME = "http"
"""``FileDescriptorName=`` of the socket unit that comes with the daemon."""


def served(http: HttpConfig, listen_fds: Sequence[tuple[int, str]]) -> HttpConfig:
    """Return the ``[http]`` section, with the sockets that systemd handed over if it did.

    They are served in place of ``http.bind``, unless that names descriptors itself.
    """
    if not listen_fds or any(isinstance(bind, FdBind) for bind in http.bind):
        return http
    return replace(http, bind=tuple(FdBind(fd) for fd, _ in listen_fds))


def look_at(listen_fds: Sequence[tuple[int, str]], bind: Sequence[Bind] = ()) -> HandedOver | None:
    """Return what was handed over; None if nothing was.

    Args:
        listen_fds: file descriptors, with the names they were given.
        bind: ``http.bind``, which may name some of the descriptors.
    """
    named = [item.fd for item in bind if isinstance(item, FdBind)]
    taken = named or [fd for fd, _ in listen_fds]
    if not taken:
        return None
    binds = [found for fd in taken for found in _bound_to(fd)]
    names = {name for fd, name in listen_fds if fd in taken}
    by = SOCKET_UNIT if names == {_SHIPPED_NAME} else "the socket unit"
    return HandedOver(tuple(dict.fromkeys(binds)), by)


def path_of(handed_over: socket.socket) -> str | None:
    """Return the path of a Unix socket; None if it has none."""
    name = handed_over.getsockname()
    return name if isinstance(name, str) and name.startswith("/") else None


def _bound_to(fd: int) -> Iterator[Bind]:
    try:
        with socket.socket(fileno=os.dup(fd)) as held:
            if held.family == socket.AF_UNIX:
                path = path_of(held)
                yield FdBind(fd) if path is None else UnixBind(Path(path))
                return
            host, port, *_ = held.getsockname()
            yield TcpBind(host, port)
            if (
                held.family == socket.AF_INET6
                and host == "::"
                and not held.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            ):
                yield TcpBind("0.0.0.0", port)  # noqa: S104 - it listens there, too
    except (OSError, ValueError):
        # What it is will be said when it is to be listened on.
        yield FdBind(fd)
