"""From the bytes of a request, or of an event of a batch, to a JSON value: text, depth, size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NoReturn

import msgspec

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events import json_bounds
from ai_ticket_daemon.events.json_bounds import (
    MAX_JSON_DEPTH,
    MAX_JSON_VALUES,
    Excess,
    Excessive,
)
from ai_ticket_daemon.server.headers import JSON_TYPE

if TYPE_CHECKING:
    from collections.abc import Collection

EMPTY = 'The body is empty; send a JSON object such as {"content": "..."}.'
_LONG_BYTES = 65_536
_LONG_NUMBER = b"0" * 100
_DIGITS_AS_ZEROS = bytes(48 if byte in b"0123456789" else 32 for byte in range(256))
BOM = b"\xef\xbb\xbf"
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
    data = data.removeprefix(BOM)
    if not data.strip():
        raise refused(EMPTY)
    check_excess(data)
    return decode(data)


def check_size(size_bytes: int, max_bytes: int) -> None:
    """Refuse an event of a batch that is longer than one may be."""
    if size_bytes > max_bytes:
        raise RequestRefused(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"The event is {size_bytes} bytes long, more than the {max_bytes} that one may have; "
            "shorten it or raise http.max_body_bytes.",
            details={"max_bytes": max_bytes, "actual_bytes": size_bytes},
        )


def check_excess(data: bytes) -> None:
    """Refuse what would become more values than one event may, or deeper ones."""
    try:
        json_bounds.values_of(data)
    except Excessive as error:
        if error.excess is Excess.DEPTH:
            raise _too_deep() from error
        raise too_many_values("event", MAX_JSON_VALUES) from error


def decode(data: bytes) -> object:
    """Return the JSON value that ``data`` holds; raises as :func:`decode_json`."""
    if len(data) > _LONG_BYTES and _has_long_number(data):
        # Such numbers take the fast reader ten times as long as the standard library.
        return _decode_slowly(data)
    try:
        # Reads what the standard library reads, or nothing; the latter knows what is wrong.
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _decode_slowly(data)


def _has_long_number(data: bytes) -> bool:
    """Tell whether there are so many digits in a row; a pattern takes up to 100 times as long."""
    return _LONG_NUMBER in data.translate(_DIGITS_AS_ZEROS)


def _decode_slowly(data: bytes) -> object:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise refused("The body is not UTF-8.", offset=error.start) from error
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise not_json(error.msg, error.lineno, error.colno) from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        # Python refuses to read integers of more than a few thousand digits.
        raise refused("The body holds a number that is too long to be read.") from error


def _refuse_constant(name: str) -> NoReturn:
    raise refused(f"The body holds {name}, which JSON does not know.")


def _too_deep() -> RequestRefused:
    return refused(
        f"The body nests lists and objects deeper than {MAX_JSON_DEPTH}.",
        max_depth=MAX_JSON_DEPTH,
    )


def too_many_values(what: str, max_values: int) -> RequestRefused:
    """Return what is told of an event or a batch of too many values."""
    return RequestRefused(
        ErrorCode.PAYLOAD_TOO_LARGE,
        f"The {what} is made of more than {max_values} JSON values; send it in parts.",
        details={"max_values": max_values},
    )


def not_json(reason: str, line: int, column: int) -> RequestRefused:
    """Return what is told of a body that stops being JSON at this place."""
    return refused(
        f"The body is not JSON: {reason} in line {line}, column {column}.", line=line, column=column
    )


def refused(message: str, **details: int) -> RequestRefused:
    """Return the refusal of a body."""
    return RequestRefused(ErrorCode.INVALID_REQUEST, message, details=details or None)
