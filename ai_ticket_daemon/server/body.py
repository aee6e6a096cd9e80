"""From the bytes of a request to JSON values: media type, text, depth, one or many."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NoReturn

import msgspec

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events.extract import json_type
from ai_ticket_daemon.server.headers import JSON_TYPE, NDJSON_TYPE

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_JSON_DEPTH = 64

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

    Raises:
        RequestRefused: ``invalid_request``: empty, not UTF-8, not JSON, or nested too deeply.
    """
    if not data.strip():
        raise _refused('The body is empty; send a JSON object such as {"content": "..."}.')
    try:
        # Reads what the standard library reads, or nothing; the latter knows what is wrong.
        value = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        value = _decode_slowly(data)
    # Counting brackets costs next to nothing and spares nearly every body the walk.
    if data.count(b"{") + data.count(b"[") > MAX_JSON_DEPTH and _depth(value) > MAX_JSON_DEPTH:
        raise _too_deep()
    return value


def decode_batch(
    data: bytes, media_type: str, *, max_items: int
) -> list[object] | list[object | RequestRefused]:
    """Return the JSON values that a batch holds; of NDJSON, what is wrong with a line instead.

    Blank lines of NDJSON do not count.

    Raises:
        RequestRefused: ``invalid_request`` if it is empty, or as a whole no batch;
            ``payload_too_large`` if it holds more than ``max_items``.
    """
    if media_type == NDJSON_TYPE:
        lines = [line for line in data.split(b"\n") if line.strip()]
        _check_count(len(lines), max_items)
        return [_decode_line(line) for line in lines]
    items = decode_json(data)
    if not isinstance(items, list):
        raise _refused(f"The body has to be a JSON array of events, not {json_type(items)}.")
    _check_count(len(items), max_items)
    return items


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


def _decode_line(line: bytes) -> object | RequestRefused:
    try:
        return decode_json(line)
    except RequestRefused as error:
        return error


def _decode_slowly(data: bytes) -> object:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _refused("The body is not UTF-8.", offset=error.start) from error
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise _refused(
            f"The body is not JSON: {error.msg} in line {error.lineno}, column {error.colno}.",
            line=error.lineno,
            column=error.colno,
        ) from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        # Python refuses to read integers of more than a few thousand digits.
        raise _refused("The body holds a number that is too long to be read.") from error


def _depth(value: object) -> int:
    """Return how deeply lists and objects nest in ``value``; no deeper than the limit plus one."""
    depth, level = 0, [value]
    while depth <= MAX_JSON_DEPTH:
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        if not any(isinstance(item, dict | list) for item in level):
            break
        depth, level = depth + 1, inner
    return depth


def _refuse_constant(name: str) -> NoReturn:
    raise _refused(f"The body holds {name}, which JSON does not know.")


def _too_deep() -> RequestRefused:
    return _refused(
        f"The body nests lists and objects deeper than {MAX_JSON_DEPTH}.",
        max_depth=MAX_JSON_DEPTH,
    )


def _refused(message: str, **details: int) -> RequestRefused:
    return RequestRefused(ErrorCode.INVALID_REQUEST, message, details=details or None)
