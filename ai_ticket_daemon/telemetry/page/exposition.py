"""What is asked of the metrics page and what it answers: plain functions of bytes."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from prometheus_client.exposition import choose_encoder, gzip_accepted

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

MAX_HEAD_BYTES = 8192
"""How long a request may be; Prometheus' take some 300 bytes."""
END_OF_HEAD = b"\r\n\r\n"
_PATHS = frozenset({"/metrics", "/"})
_METHODS = "GET, HEAD"
_MOST_NAMES = 64
_GZIP_LEVEL = 4
"""Half the time of the usual one, for a page a few per cent longer."""


class BadRequest(Exception):
    """The request is answered with ``status``, and with nothing else."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


@dataclass(frozen=True, slots=True)
class Scrape:
    """What is asked for: in which format, whether packed, and which families; all for none."""

    accept: str
    packed: bool
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """The page as it goes out: its head and what follows it."""

    head: bytes
    body: bytes


def read_request(head: bytes) -> tuple[Scrape, bool]:
    """Return what the head of a request asks for, and whether only the head of the page.

    Raises:
        BadRequest: it is not for this page.
    """
    line, *rest = head.decode("latin-1").split("\r\n")
    words = line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest(HTTPStatus.BAD_REQUEST)
    method, target, _ = words
    path, _, query = target.partition("?")
    if path not in _PATHS:
        raise BadRequest(HTTPStatus.NOT_FOUND)
    if method not in ("GET", "HEAD"):
        raise BadRequest(HTTPStatus.METHOD_NOT_ALLOWED)
    fields = {
        name.strip().lower(): value.strip()
        for name, colon, value in (one.partition(":") for one in rest)
        if colon
    }
    try:
        names = parse_qs(query, max_num_fields=_MOST_NAMES).get("name[]", [])
    except ValueError:
        raise BadRequest(HTTPStatus.BAD_REQUEST) from None
    packed = gzip_accepted(fields.get("accept-encoding", ""))
    return Scrape(fields.get("accept", ""), packed, tuple(names)), method == "HEAD"


def render(registry: CollectorRegistry, scrape: Scrape) -> Page:
    """Return the page as it is now."""
    encoder, content_type = choose_encoder(scrape.accept)
    source = registry.restricted_registry(list(scrape.names)) if scrape.names else registry
    body = encoder(source)
    more = [f"Content-Type: {content_type}"]
    if scrape.packed:
        body = gzip.compress(body, _GZIP_LEVEL)
        more.append("Content-Encoding: gzip")
    return Page(_head(HTTPStatus.OK, len(body), *more), body)


def refusal(status: HTTPStatus) -> bytes:
    """Return the answer that says no more than ``status``."""
    body = f"{status.phrase}\n".encode()
    more = ["Content-Type: text/plain; charset=utf-8"]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        more.append(f"Allow: {_METHODS}")
    return _head(status, len(body), *more) + body


def _head(status: HTTPStatus, length: int, *more: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        *more,
        f"Content-Length: {length}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
