"""From the bytes of a request to a JSON value: media type, size, text, depth."""

from __future__ import annotations

import json
from typing import NoReturn

from ai_ticket_daemon.errors import ErrorCode, RequestRefused

MAX_JSON_DEPTH = 64

_UTF8_NAMES = frozenset({"utf-8", "utf8", "us-ascii"})


def check_media_type(content_type: str, content_encoding: str) -> None:
    """Accept a body whose headers say that it is plain JSON in UTF-8; "" is no header.

    Raises:
        RequestRefused: ``unsupported_media_type``.
    """
    media_type, *parameters = [part.strip().lower() for part in content_type.split(";")]
    if media_type != "application/json":
        raise RequestRefused(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE,
            "The body has to be JSON and say so; add the header 'content-type: application/json'.",
            details={"content_type": content_type or None},
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


def decode_json(data: bytes) -> object:
    """Return the JSON value that ``data`` holds; of a name given twice the last one counts.

    Raises:
        RequestRefused: ``invalid_request``: empty, not UTF-8, not JSON, or nested too deeply.
    """
    if not data.strip():
        raise _refused('The body is empty; send a JSON object such as {"content": "..."}.')
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _refused("The body is not UTF-8.", offset=error.start) from error
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
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
    # Counting brackets costs next to nothing and spares nearly every body the walk.
    if text.count("{") + text.count("[") > MAX_JSON_DEPTH and _depth(value) > MAX_JSON_DEPTH:
        raise _too_deep()
    return value


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
