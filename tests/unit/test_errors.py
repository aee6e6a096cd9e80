from __future__ import annotations

import pytest

from ai_ticket_daemon import errors
from ai_ticket_daemon.errors import HTTP_STATUS, ErrorCode, TicketError


def test_every_code_has_a_status_and_no_status_lacks_a_code() -> None:
    assert set(HTTP_STATUS) == set(ErrorCode)


@pytest.mark.parametrize("code", ErrorCode)
def test_every_status_is_an_error_of_http(code: ErrorCode) -> None:
    assert 400 <= TicketError(code, "x").http_status <= 599


def test_every_exception_is_drawn_at_the_top_of_its_module() -> None:
    classes = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert classes
    assert [name for name in classes if name not in (errors.__doc__ or "")] == []


def test_repr_shows_the_code_and_the_message() -> None:
    assert repr(TicketError(ErrorCode.CANCELLED, "gone")) == "TicketError(cancelled: gone)"
