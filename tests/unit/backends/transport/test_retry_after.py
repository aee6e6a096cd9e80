"""When a server wants to be asked again."""

from __future__ import annotations

import pytest

from ai_ticket_daemon.backends.transport.retry_after import LONGEST_SECONDS, retry_after_seconds

NOON = 784_123_200.0  # Sun, 06 Nov 1994 12:00:00 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("999999999999", LONGEST_SECONDS),
        ("Sun, 06 Nov 1994 12:00:30 GMT", 30.0),
        ("Sunday, 06-Nov-94 12:00:30 GMT", 30.0),
        ("Sun Nov  6 12:00:30 1994", 30.0),
        ("Sun, 06 Nov 1994 11:59:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_SECONDS),
        ("", None),
        ("-5", None),
        ("soon", None),
        ("nan", None),
        ("Sun, 99 Nov 1994 12:00:30 GMT", None),
        ("Sun, 06 Nov 99999 12:00:30 GMT", None),
        ("9" * 5000, None),
    ],
)
def test_seconds_and_dates_are_read_and_bounded(value: str, seconds: float | None) -> None:
    assert retry_after_seconds({"retry-after": value}, NOON) == seconds


def test_a_date_counts_from_the_clock_of_the_server() -> None:
    headers = {
        "retry-after": "Sun, 06 Nov 1994 10:00:30 GMT",
        "date": "Sun, 06 Nov 1994 10:00:00 GMT",
    }
    assert retry_after_seconds(headers, NOON) == 30.0
    assert retry_after_seconds(headers | {"date": "yesterday"}, NOON) == 0.0


def test_an_answer_without_the_header_wishes_nothing() -> None:
    assert retry_after_seconds({}, NOON) is None
