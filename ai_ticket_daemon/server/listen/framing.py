"""Where a request of HTTP/1 begins and ends, and how long its head may be: what must be certain.

A request whose length can be read in two ways is how one request is hidden in another (RFC 9112
section 11.2). So it is refused, and its connection closed: what follows has no certain beginning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.errors import ErrorCode, RequestRefused

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_HEADER_BYTES = 16_384
"""How long the headers of a request may be, with its first line (of HTTP/2: its pseudo-headers)."""

_PER_FIELD_BYTES = 32
"""What a field counts beside its name and value (RFC 9113 section 6.5.2), whatever the protocol."""


class HeadRefused(RequestRefused):
    """The head of a request cannot be served, and its connection not be used any more.

    ``status`` is the one that HTTP has for this, whatever is usual for the code.
    """

    def __init__(
        self, status: int, message: str, code: ErrorCode = ErrorCode.INVALID_REQUEST
    ) -> None:
        super().__init__(code, message)
        self._status = status

    @property
    def http_status(self) -> int:
        """The status to answer with."""
        return self._status


def check_framing(version: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Check that there is one way to read where a request of HTTP/1 ends.

    Args:
        version: as the first line has it, such as ``1.1``.
        headers: names in lower case.

    Raises:
        HeadRefused: there is none, or more than one.
    """
    if not version.startswith(b"1."):
        raise HeadRefused(505, "This is a version of HTTP that is not spoken here; use HTTP/1.1.")
    names = {name for name, _ in headers}
    if b"transfer-encoding" not in names:
        return
    if b"content-length" in names:
        raise HeadRefused(
            400, "The request has both Content-Length and Transfer-Encoding; send one of them."
        )
    if version == b"1.0":
        raise HeadRefused(400, "HTTP/1.0 knows no Transfer-Encoding; send Content-Length.")


def check_size(first_line_bytes: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Check that the head of a request is no longer than it may be.

    Raises:
        HeadRefused: it is longer.
    """
    size_bytes = first_line_bytes + sum(
        len(name) + len(value) + _PER_FIELD_BYTES for name, value in headers
    )
    if size_bytes > MAX_HEADER_BYTES:
        raise too_long()


def too_long() -> HeadRefused:
    """Return what is told whose headers are too long."""
    return HeadRefused(431, "The headers of the request are too long; send fewer or shorter ones.")


def too_late() -> HeadRefused:
    """Return what is told who began a request and did not get to the end of its headers."""
    return HeadRefused(
        408,
        "The headers of the request did not arrive in time; send them faster.",
        ErrorCode.REQUEST_TIMEOUT,
    )


def unknown_coding() -> HeadRefused:
    """Return what is told whose body comes in a way that is not understood."""
    return HeadRefused(501, "Of all transfer encodings only chunked is understood.")


def malformed() -> HeadRefused:
    """Return what is told whose request is no HTTP."""
    return HeadRefused(400, "The request is not valid HTTP.")
