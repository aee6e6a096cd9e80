"""How TLS is spoken, with which certificate, and what a client is told that does not speak it."""

from __future__ import annotations

import socket as stdlib_socket
import ssl
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.config.values.certificate import CertificateUnusable, load_pair
from ai_ticket_daemon.host.exhaustion import exhausted
from ai_ticket_daemon.server.listen.sockets import ListenerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ai_ticket_daemon.config.http import HttpConfig
    from ai_ticket_daemon.config.values.certificate import Chain

_HANDSHAKE = 0x16
"""The first byte of a client that speaks TLS."""
_LINGER_SECONDS = 2.0
_TOLD = b"This port speaks HTTPS: ask with https:// in place of http://.\n"
PLAIN_TEXT_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (len(_TOLD), _TOLD)
)

Signature = tuple[tuple[int, int, int, int], ...]
"""What a pair of files was seen as: it changes with whatever is done to one of them."""


def make_context() -> ssl.SSLContext:
    """Return how TLS is spoken: version 1.2 or later, HTTP/2 before HTTP/1.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # RFC 9113 section 9.2.2 forbids all others under TLS 1.2 and HTTP/2.
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


class ServedCertificate:
    """The certificate that new connections are served with.

    It is replaced as a whole or not at all: what cannot be used leaves the one before in place, and
    connections that are open keep the one they began with.

    Args:
        http: the ``[http]`` section in force, which names the files.
    """

    def __init__(self, http: Callable[[], HttpConfig]) -> None:
        self._http = http
        self.context: ssl.SSLContext | None = None
        """What a new connection is encrypted with; None: not at all."""
        self.chain: Chain | None = None
        self.problem: str | None = None
        """Why what the files hold now is not served; None if it is."""
        self._served: Signature = ()
        self._seen: Signature = ()
        self._refused: Signature = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of the certificate and its key; none if there is none to be served."""
        http = self._http()
        if http.tls_cert is None or http.tls_key is None:
            return ()
        return (http.tls_cert, http.tls_key)

    def start(self) -> None:
        """Take the certificate for the first time.

        Raises:
            ListenerUnavailable: it cannot be used.
        """
        try:
            self.take()
        except CertificateUnusable as error:
            raise ListenerUnavailable(f"http.{error.key}: {error}") from error

    def take(self) -> bool:
        """Serve what the files hold from now on; return whether that is another certificate.

        Raises:
            CertificateUnusable: it cannot be used; the one before is served on.
        """
        paths = self.paths
        if not paths:
            changed = self.context is not None
            self.context = self.chain = self.problem = None
            self._served = ()
            return changed
        signature = signature_of(paths)
        context = make_context()
        try:
            chain = load_pair(context, *paths)
        except CertificateUnusable as error:
            if exhausted(error) is not None:
                raise  # nothing is known of the files: the next look may fare better
            self._refused = signature
            self.problem = f"http.{error.key}: {error}; the certificate from before is served"
            raise
        self.problem = None
        changed = signature != self._served
        self.context, self.chain, self._served = context, chain, signature
        return changed

    def warnings(self, now: float) -> list[str]:
        """Return what deserves a word at the time ``now``, in seconds since the Unix epoch."""
        expiry = None if self.chain is None else self.chain.warning(now)
        return [sentence for sentence in (self.problem, expiry) if sentence is not None]

    def should_take(self, signature: Signature) -> bool:
        """Return whether the files, seen like this, hold another certificate and are at rest.

        A pair that is being written is seen to change from one look to the next.
        """
        at_rest, self._seen = signature == self._seen, signature
        return at_rest and signature not in ((), self._served, self._refused)


def signature_of(paths: tuple[Path, ...]) -> Signature:
    """Return what these files look like; symbolic links are followed, a missing file is nothing."""
    seen = []
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            seen.append((0, 0, 0, 0))
            continue
        seen.append((found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size))
    return tuple(seen)


async def answered_in_clear(stream: trio.SocketStream) -> bool:
    """Tell a client that does not speak TLS so, in clear text; return whether it was one.

    Nothing of what a client sends is taken: whoever speaks TLS is served as if nobody had looked.
    """
    try:
        first = await stream.socket.recv(1, stdlib_socket.MSG_PEEK)
    except OSError:
        return True
    if not first or first[0] == _HANDSHAKE:
        return False
    if not first.isalpha():
        return True  # no HTTP either: there is nothing it would understand
    await stream.send_all(PLAIN_TEXT_ANSWER)
    await stream.send_eof()
    # Closing a socket with unread bytes makes the kernel reset it, and the client lose the answer.
    with trio.move_on_after(_LINGER_SECONDS):
        while await stream.receive_some(65_536):
            pass
    return True
