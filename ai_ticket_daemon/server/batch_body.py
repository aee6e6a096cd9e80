"""From the bytes of a batch to the JSON values of its events, one after the other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events import json_bounds
from ai_ticket_daemon.events.json_bounds import MAX_JSON_VALUES, Excessive, Unbalanced
from ai_ticket_daemon.server.body import (
    BOM,
    EMPTY,
    check_excess,
    check_size,
    decode,
    not_json,
    refused,
    too_many_values,
)
from ai_ticket_daemon.server.headers import NDJSON_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterator

VALUES_PER_EVENT = 200
"""How many values an event of a batch may be made of on average."""

PAUSE: Final = object()
"""Stands between the events of a batch where others may get a turn."""

_BLANKS = re.compile(rb"[ \t\r\n\v\f]*")


class BatchItems:
    """Reads the JSON values that a batch holds, or what is wrong with one; and ``PAUSE``.

    One after the other, so that there are never the values of more than one. Blank lines of NDJSON
    do not count.

    Args:
        data: the body.
        media_type: NDJSON, or that of an array.
        max_items: how many events it may hold.
        max_item_bytes: how long one may be.
    """

    def __init__(
        self, data: bytes, media_type: str, *, max_items: int, max_item_bytes: int
    ) -> None:
        self._data = data
        self._is_lines = media_type == NDJSON_TYPE
        self._max_items = max_items
        self._max_item_bytes = max_item_bytes
        self._start = 0
        self._line = 1
        self._counted_to = 0

    def __iter__(self) -> Iterator[object]:
        """Yield them.

        Raises:
            RequestRefused: ``invalid_request`` if it is empty, or as a whole no batch;
                ``payload_too_large`` if it holds more than ``max_items``, or too many values.
        """
        data, count = self._data, 0
        max_values = MAX_JSON_VALUES + VALUES_PER_EVENT * self._max_items
        places = (
            _lines(data, max_values, self._max_item_bytes)
            if self._is_lines
            else _items(data, max_values)
        )
        for place in places:
            if place is None:
                yield PAUSE
                continue
            start, end = place
            count += 1
            if count > self._max_items:
                continue
            self._start = start
            yield self._item(start, end)
        _check_count(count, self._max_items)

    def _item(self, start: int, end: int) -> object:
        try:
            check_size(end - start, self._max_item_bytes)
            item = self._data[start:end].removeprefix(BOM)
            check_excess(item)
        except RequestRefused as error:
            return self.placed(error)
        try:
            return decode(item)
        except RequestRefused as error:
            # A line stands for itself; a list with an item that is no JSON is none, either.
            if not self._is_lines:
                raise _moved(error, self._data, start) from error
            return self.placed(error)

    def placed(self, error: RequestRefused) -> RequestRefused:
        """Return what is wrong with the item that was yielded last, with its line if it has one."""
        if not self._is_lines:
            return error
        # Counted on from the last one, so that many of them cost no more than one.
        self._line += self._data.count(b"\n", self._counted_to, self._start)
        self._counted_to = self._start
        return _in_line(error, self._line)


def _items(data: bytes, max_values: int) -> Iterator[tuple[int, int] | None]:
    """Yield where the items of a list are; None where others get a turn."""
    if not (text := data.removeprefix(BOM).lstrip()).startswith(b"["):
        kind = "an object" if text.startswith(b"{") else "something else"
        raise refused(f"The body has to be a JSON array, not {kind}." if text else EMPTY)
    try:
        yield from json_bounds.items(data, len(data) - len(text), max_values)
    except Excessive as error:
        raise too_many_values("batch", max_values) from error
    except Unbalanced as error:
        place = _place(data, error.position)
        raise not_json("the array does not end where the body does", *place) from error


def _lines(data: bytes, max_values: int, max_line_bytes: int) -> Iterator[tuple[int, int] | None]:
    """Yield where the lines are that are not blank; None where others get a turn.

    The values of a line that is too long are not counted: nothing is made of it.
    """
    start, paused_at, size, left = 0, 0, len(data), max_values
    while start < size:
        blanks = _BLANKS.match(data, start, start + json_bounds.WINDOW_BYTES)
        if blanks is not None and blanks.end() > start:
            start = blanks.end()
            yield None
            continue
        end = data.find(b"\n", start)
        end = size if end < 0 else end
        if end - start > max_line_bytes:
            yield start, end
        elif (line := data[start:end]).strip() != BOM:
            values = json_bounds.values_at_most(line)
            # What an event may be made of on average need not be looked at closely.
            if values > VALUES_PER_EVENT:
                try:
                    for counted in json_bounds.counted(line, left):
                        if counted is None:
                            yield None
                        else:
                            values = counted
                except Excessive as error:
                    raise too_many_values("batch", max_values) from error
            left = max(0, left - values)
            yield start, end
        start = end + 1
        if start - paused_at > json_bounds.WINDOW_BYTES:
            yield None
            paused_at = start


def _check_count(count: int, max_items: int) -> None:
    if not count:
        raise refused("The batch holds no event; send at least one.")
    if count > max_items:
        raise RequestRefused(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"The batch holds {count} events, more than the {max_items} allowed; "
            "send it in parts or raise events.max_batch.",
            details={"max_batch": max_items, "actual": count},
        )


def _moved(error: RequestRefused, data: bytes, start: int) -> RequestRefused:
    """Return what is wrong with the item at ``start`` as what is wrong with ``data``."""
    details = error.details or {}
    if "offset" in details:
        return refused(error.message, offset=start + details["offset"])
    if "line" not in details:
        return error
    line, column = _place(data, start)
    line, column = (
        line + details["line"] - 1,
        details["column"] + (column - 1 if details["line"] == 1 else 0),
    )
    return not_json(_reason(error), line, column)


def _in_line(error: RequestRefused, line: int) -> RequestRefused:
    """Return what is wrong with a line as what is wrong with the body it is in."""
    details = error.details or {}
    if "line" in details:
        return not_json(_reason(error), line, details["column"])
    return RequestRefused(
        error.code, f"Line {line}: {error.message}", details={**details, "line": line}
    )


def _reason(error: RequestRefused) -> str:
    return error.message.partition(": ")[2].rpartition(" in line ")[0]


def _place(data: bytes, position: int) -> tuple[int, int]:
    """Return line and column of ``position``, both counted from 1."""
    start = data.rfind(b"\n", 0, position) + 1
    column = len(data[start:position].decode("utf-8", "replace")) + 1
    return data.count(b"\n", 0, position) + 1, column
