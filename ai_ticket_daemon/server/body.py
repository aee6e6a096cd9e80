"""From the bytes of a request to JSON values: media type, text, depth, one or many."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, NoReturn

import msgspec

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events import json_bounds
from ai_ticket_daemon.events.json_bounds import (
    MAX_JSON_DEPTH,
    MAX_JSON_VALUES,
    Excess,
    Excessive,
    Unbalanced,
)
from ai_ticket_daemon.server.headers import JSON_TYPE, NDJSON_TYPE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

VALUES_PER_EVENT = 200
"""How many values an event of a batch may be made of on average."""

PAUSE: Final = object()
"""Stands between the events of a batch where others may get a turn."""

_EMPTY = 'The body is empty; send a JSON object such as {"content": "..."}.'
_LONG_BYTES = 65_536
_LONG_NUMBER = re.compile(rb"[0-9]{100}")
_BLANKS = re.compile(rb"[ \t\r\n\v\f]*")
_BOM = b"\xef\xbb\xbf"
_DECODER = msgspec.json.Decoder()
_UTF8_NAMES = frozenset({"utf-8", "utf8", "us-ascii"})


def check_media_type(
    content_type: str, content_encoding: str, *, allowed: Collection[str] = (JSON_TYPE,)
) -> str:
    """Return the media type of a body in plain UTF-8, by its headers; "" is no header.

    Raises:
        RequestRefused: ``unsupported_media_type``: it is not one of ``allowed``, or not in UTF-8.
    """
    if content_type in allowed and not content_encoding:
        return content_type
    media_type, *parameters = [part.strip().lower() for part in content_type.split(";")]
    if media_type not in allowed:
        names = " or ".join(f"'content-type: {name}'" for name in allowed)
        raise RequestRefused(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            f"The body has to be JSON and say so; add the header {names}.",
            details={"content_type": content_type or None, "allowed": list(allowed)},
        )
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in _UTF8_NAMES:
            raise RequestRefused(
                ErrorCode.UNSUPPORTED_MEDIA_TYPE,
                "JSON is read as UTF-8 only; send the body in UTF-8.",
                details={"content_type": content_type},
            )
    if content_encoding.strip().lower() not in ("", "identity"):
        raise RequestRefused(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            "Compressed bodies are not read; send the body without a content-encoding.",
            details={"content_encoding": content_encoding},
        )
    return media_type


def decode_json(data: bytes) -> object:
    """Return the JSON value that ``data`` holds; of a name given twice the last one counts.

    A byte order mark before it is skipped.

    Raises:
        RequestRefused: ``invalid_request``: empty, not UTF-8, not JSON, or nested too deeply;
            ``payload_too_large``: made of too many values.
    """
    data = data.removeprefix(_BOM)
    if not data.strip():
        raise _refused(_EMPTY)
    _check_excess(data)
    return _decode(data)


def decode_batch(
    data: bytes, media_type: str, *, max_items: int, max_item_bytes: int
) -> Iterator[object]:
    """Yield the JSON values that a batch holds, or what is wrong with one; now and then ``PAUSE``.

    One after the other, so that there are never the values of more than one. Blank lines of NDJSON
    do not count.

    Raises:
        RequestRefused: ``invalid_request`` if it is empty, or as a whole no batch;
            ``payload_too_large`` if it holds more than ``max_items``, or too many values.
    """
    is_lines = media_type == NDJSON_TYPE
    max_values = MAX_JSON_VALUES + VALUES_PER_EVENT * max_items
    count, line, counted_to = 0, 1, 0
    for place in (_lines if is_lines else _items)(data, max_values):
        if place is None:
            yield PAUSE
            continue
        start, end = place
        count += 1
        if count > max_items:
            continue
        item: object
        try:
            _check_size(end - start, max_item_bytes)
            item = data[start:end].removeprefix(_BOM)
            _check_excess(item)
        except RequestRefused as error:
            item = error
        else:
            try:
                item = _decode(item)
            except RequestRefused as error:
                # A line stands for itself; a list with an item that is no JSON is none, either.
                if not is_lines:
                    raise _moved(error, data, start) from error
                # Counted on from the last one, so that many of them cost no more than one.
                line += data.count(b"\n", counted_to, start)
                counted_to = start
                item = _in_line(error, line)
        yield item
    _check_count(count, max_items)


def _items(data: bytes, max_values: int) -> Iterator[tuple[int, int] | None]:
    """Yield where the items of a list are; None where others get a turn."""
    if not (text := data.removeprefix(_BOM).lstrip()).startswith(b"["):
        kind = "an object" if text.startswith(b"{") else "something else"
        raise _refused(f"The body has to be a JSON array, not {kind}." if text else _EMPTY)
    try:
        yield from json_bounds.items(data, len(data) - len(text), max_values)
    except Excessive as error:
        raise _too_many_values("batch", max_values) from error
    except Unbalanced as error:
        place = _place(data, error.position)
        raise _not_json("the array does not end where the body does", *place) from error


def _lines(data: bytes, max_values: int) -> Iterator[tuple[int, int] | None]:
    """Yield where the lines are that are not blank; None where others get a turn."""
    start, paused_at, size, left = 0, 0, len(data), max_values
    while start < size:
        blanks = _BLANKS.match(data, start, start + json_bounds.WINDOW_BYTES)
        if blanks is not None and blanks.end() > start:
            start = blanks.end()
            yield None
            continue
        end = data.find(b"\n", start)
        end = size if end < 0 else end
        line = data[start:end]
        if line.strip() != _BOM:
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
                    raise _too_many_values("batch", max_values) from error
            left = max(0, left - values)
            yield start, end
        start = end + 1
        if start - paused_at > json_bounds.WINDOW_BYTES:
            yield None
            paused_at = start


def _check_count(count: int, max_items: int) -> None:
    if not count:
        raise _refused("The batch holds no event; send at least one.")
    if count > max_items:
        raise RequestRefused(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"The batch holds {count} events, more than the {max_items} allowed; "
            "send it in parts or raise events.max_batch.",
            details={"max_batch": max_items, "actual": count},
        )


def _check_size(size_bytes: int, max_bytes: int) -> None:
    if size_bytes > max_bytes:
        raise RequestRefused(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"The event is {size_bytes} bytes long, more than the {max_bytes} that one may have; "
            "shorten it or raise http.max_body_bytes.",
            details={"max_bytes": max_bytes, "actual_bytes": size_bytes},
        )


def _check_excess(data: bytes) -> None:
    try:
        json_bounds.values_of(data)
    except Excessive as error:
        if error.excess is Excess.DEPTH:
            raise _too_deep() from error
        raise _too_many_values("event", MAX_JSON_VALUES) from error


def _decode(data: bytes) -> object:
    if len(data) > _LONG_BYTES and _LONG_NUMBER.search(data):
        # Such numbers take the fast reader ten times as long as the standard library.
        return _decode_slowly(data)
    try:
        # Reads what the standard library reads, or nothing; the latter knows what is wrong.
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _decode_slowly(data)


def _decode_slowly(data: bytes) -> object:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _refused("The body is not UTF-8.", offset=error.start) from error
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise _not_json(error.msg, error.lineno, error.colno) from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        # Python refuses to read integers of more than a few thousand digits.
        raise _refused("The body holds a number that is too long to be read.") from error


def _refuse_constant(name: str) -> NoReturn:
    raise _refused(f"The body holds {name}, which JSON does not know.")


def _too_deep() -> RequestRefused:
    return _refused(
        f"The body nests lists and objects deeper than {MAX_JSON_DEPTH}.",
        max_depth=MAX_JSON_DEPTH,
    )


def _too_many_values(what: str, max_values: int) -> RequestRefused:
    return RequestRefused(
        ErrorCode.PAYLOAD_TOO_LARGE,
        f"The {what} is made of more than {max_values} JSON values; send it in parts.",
        details={"max_values": max_values},
    )


def _not_json(reason: str, line: int, column: int) -> RequestRefused:
    return _refused(
        f"The body is not JSON: {reason} in line {line}, column {column}.", line=line, column=column
    )


def _moved(error: RequestRefused, data: bytes, start: int) -> RequestRefused:
    """Return what is wrong with the item at ``start`` as what is wrong with ``data``."""
    details = error.details or {}
    if "offset" in details:
        return _refused(error.message, offset=start + details["offset"])
    if "line" not in details:
        return error
    line, column = _place(data, start)
    line, column = (
        line + details["line"] - 1,
        details["column"] + (column - 1 if details["line"] == 1 else 0),
    )
    return _not_json(_reason(error), line, column)


def _in_line(error: RequestRefused, line: int) -> RequestRefused:
    """Return what is wrong with a line as what is wrong with the body it is in."""
    details = error.details or {}
    if "line" not in details:
        return error
    return _not_json(_reason(error), line, details["column"])


def _reason(error: RequestRefused) -> str:
    return error.message.partition(": ")[2].rpartition(" in line ")[0]


def _place(data: bytes, position: int) -> tuple[int, int]:
    """Return line and column of ``position``, both counted from 1."""
    start = data.rfind(b"\n", 0, position) + 1
    column = len(data[start:position].decode("utf-8", "replace")) + 1
    return data.count(b"\n", 0, position) + 1, column


def _refused(message: str, **details: int) -> RequestRefused:
    return RequestRefused(ErrorCode.INVALID_REQUEST, message, details=details or None)
