from __future__ import annotations

import pytest

from ai_ticket_daemon.server.listen.framing import (
    MAX_HEADER_BYTES,
    HeadRefused,
    check_framing,
    check_size,
)

LENGTH, CHUNKED = (b"content-length", b"1"), (b"transfer-encoding", b"chunked")


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        (b"1.1", []),
        (b"1.1", [LENGTH]),
        (b"1.1", [CHUNKED]),
        (b"1.0", [LENGTH]),
        (b"1.2", [CHUNKED]),
    ],
)
def test_what_has_one_end_is_let_through(
    version: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    check_framing(version, headers)


@pytest.mark.parametrize(
    ("version", "headers", "status"),
    [
        (b"1.1", [LENGTH, CHUNKED], 400),
        (b"1.1", [CHUNKED, (b"x", b"y"), LENGTH], 400),
        (b"1.0", [LENGTH, CHUNKED], 400),
        (b"1.0", [CHUNKED], 400),
        (b"0.9", [], 505),
        (b"2.0", [], 505),
        (b"3.1", [LENGTH], 505),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(
    version: bytes, headers: list[tuple[bytes, bytes]], status: int
) -> None:
    with pytest.raises(HeadRefused) as refused:
        check_framing(version, headers)
    assert refused.value.http_status == status


def test_the_first_line_counts_as_the_headers_do_and_each_field_counts_a_little_more() -> None:
    name, value = b"x" * 68, b"y" * 100  # 200 with what each field counts besides
    check_size(MAX_HEADER_BYTES - 400, [(name, value)] * 2)
    for first_line_bytes, fields in ((MAX_HEADER_BYTES - 399, 2), (0, 82), (16_385, 0)):
        with pytest.raises(HeadRefused) as refused:
            check_size(first_line_bytes, [(name, value)] * fields)
        assert refused.value.http_status == 431
