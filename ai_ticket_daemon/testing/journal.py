"""A journald to test against: a datagram socket that is read, or not."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def decode(datagram: bytes) -> dict[str, str]:
    """Return the fields of one datagram as journald would store them."""
    fields = {}
    while datagram:
        name, _, rest = datagram.partition(b"\n")
        if b"=" in name:
            name, _, value = name.partition(b"=")
            fields[name.decode()] = value.decode()
            datagram = rest
            continue
        (length,) = struct.unpack("<Q", rest[:8])
        fields[name.decode()] = rest[8 : 8 + length].decode()
        if rest[8 + length : 9 + length] != b"\n":
            raise ValueError(f"the field {name!r} has no end: journald would drop the line")
        datagram = rest[9 + length :]
    return fields


def receive(server: socket.socket) -> dict[str, str]:
    """Receive one line, in a datagram or in a file that came with it."""
    datagram, descriptors, _, _ = socket.recv_fds(server, 2**18, 1)
    if descriptors:
        with os.fdopen(descriptors[0], "rb") as file:
            file.seek(0)
            datagram = file.read()
    return decode(datagram)


@contextmanager
def journal(folder: Path) -> Iterator[tuple[str, socket.socket]]:
    """Listen as journald does, in ``folder``; gives the path and the socket to read from."""
    path = str(folder / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        server.settimeout(5)
        yield path, server
