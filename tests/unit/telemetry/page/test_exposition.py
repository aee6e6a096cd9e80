from __future__ import annotations

import gzip
from http import HTTPStatus

import pytest
from prometheus_client import CollectorRegistry, Gauge

from ai_ticket_daemon.telemetry.page.exposition import (
    BadRequest,
    Scrape,
    read_request,
    refusal,
    render,
)

OPEN_METRICS = "application/openmetrics-text;version=1.0.0"


def registry() -> CollectorRegistry:
    found = CollectorRegistry()
    Gauge("one", "The first.", registry=found).set(1)
    Gauge("two", "The second.", registry=found).set(2)
    return found


def test_what_prometheus_asks_is_understood() -> None:
    head = (
        "GET /metrics?name[]=one HTTP/1.1\r\nHost: a\r\nACCEPT: text/plain \r\n"
        "Accept-Encoding: gzip, deflate"
    )
    assert read_request(head.encode()) == (Scrape("text/plain", True, ("one",)), False)
    assert read_request(b"HEAD / HTTP/1.0") == (Scrape("", False, ()), True)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"POST /metrics HTTP/1.1", HTTPStatus.METHOD_NOT_ALLOWED),
        (b"get /metrics HTTP/1.1", HTTPStatus.METHOD_NOT_ALLOWED),
        (b"GET /metrics/ HTTP/1.1", HTTPStatus.NOT_FOUND),
        (b"GET /favicon.ico HTTP/1.1", HTTPStatus.NOT_FOUND),
        (b"GET //metrics HTTP/1.1", HTTPStatus.NOT_FOUND),
        (b"GET /metrics", HTTPStatus.BAD_REQUEST),
        (b"GET /metrics HTTP/2.0", HTTPStatus.BAD_REQUEST),
        (b"\xff\x00\x16\x03\x01", HTTPStatus.BAD_REQUEST),
        (b"", HTTPStatus.BAD_REQUEST),
        (b"GET /metrics?" + b"&".join([b"name[]=x"] * 65) + b" HTTP/1.1", HTTPStatus.BAD_REQUEST),
    ],
)
def test_whatever_else_is_refused(line: bytes, status: HTTPStatus) -> None:
    with pytest.raises(BadRequest) as raised:
        read_request(line)
    assert raised.value.status is status
    assert refusal(status).startswith(f"HTTP/1.1 {status.value} ".encode())


def test_a_page_is_whole_packed_or_of_some_families() -> None:
    page = render(registry(), Scrape("", False, ()))
    assert b"one 1.0\n" in page.body
    assert b"two 2.0\n" in page.body
    assert f"Content-Length: {len(page.body)}\r\n".encode() in page.head
    packed = render(registry(), Scrape(OPEN_METRICS, True, ("two",)))
    assert b"Content-Encoding: gzip\r\n" in packed.head
    assert b"Content-Type: application/openmetrics-text" in packed.head
    text = gzip.decompress(packed.body)
    assert b"two 2.0\n" in text
    assert b"one" not in text
    assert text.endswith(b"# EOF\n")
