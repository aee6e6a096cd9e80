"""What a handler answers: a whole response, or one whose body is written as it is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ai_ticket_daemon.server.answers import to_json
from ai_ticket_daemon.server.headers import JSON_TYPE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Write = Callable[[bytes], Awaitable[None]]

_OK = 200


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response. The names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Streamed:
    """A response whose body is written as it is made; its status is 200.

    ``write_body`` writes the body and returns its last piece. The headers go out with the first
    piece; what it raises before that is answered with a status of its own.
    """

    headers: Mapping[str, str]
    write_body: Callable[[Write], Awaitable[bytes]]
    status: int = _OK


def json_response(status: int, value: object, headers: Mapping[str, str] | None = None) -> Response:
    """Return ``value`` as the whole of a response."""
    return Response(
        status,
        {"content-type": JSON_TYPE, "cache-control": "no-store", **(headers or {})},
        to_json(value),
    )


def streamed(
    headers: Mapping[str, str], write_body: Callable[[Write], Awaitable[bytes]]
) -> Streamed:
    """Return a response whose body ``write_body`` writes."""
    return Streamed({"cache-control": "no-store", **headers}, write_body)
