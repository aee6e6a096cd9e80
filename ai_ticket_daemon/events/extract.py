"""From the ``content`` of a request to the messages of a prompt.

Four shapes are taken: a plain string; a string that holds JSON of one of the next two; an object
with ``messages`` or ``prompt``; a list of the former three, joined in their order into one
conversation. A string whose JSON is of another shape, such as what a chat's webhook sends, is text.
An operator whose clients send what strangers write has all strings taken for text.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events.event import Message, Role
from ai_ticket_daemon.events.json_bounds import (
    MAX_JSON_VALUES,
    Excess,
    Excessive,
    values_at_most,
    values_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAYBE_JSON = frozenset("{[ \t\r\n\v\f")
_HARDLY_ANY = 8
"""A string of so few values may be decoded, however many of them there are."""
_ROLES = {role.value: role for role in Role}
_SHAPES = 'a string, an object with "messages" or "prompt", or a list of those'


def extract_messages(
    content: object, *, max_bytes: int, json_in_strings: bool = True, field: str = "content"
) -> tuple[Message, ...]:
    """Return the conversation that ``content`` asks to be continued.

    Args:
        content: what the client sent, as decoded from JSON.
        max_bytes: how long all texts together may be, in bytes of UTF-8.
        json_in_strings: whether a string may hold the JSON of a conversation.
        field: what to call ``content`` in errors.

    Raises:
        RequestRefused: ``invalid_input_format`` if it has none of the shapes,
            ``prompt_extraction_failed`` if there is nothing in it to prompt with,
            ``payload_too_large`` if it is longer than ``max_bytes``.
    """
    if isinstance(content, str) and content[:1] not in _MAYBE_JSON:  # as most of them are
        messages: tuple[Message, ...] = (Message(Role.USER, content),)
        total_bytes = _text_bytes(content, field)
    else:
        allowance = _Allowance() if json_in_strings else None
        messages = tuple(_from_any(content, field, allowance))
        total_bytes = sum([_text_bytes(message.content, field) for message in messages])
    if total_bytes > max_bytes:
        raise RequestRefused(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f'"{field}" holds {total_bytes} bytes of text, more than the {max_bytes} allowed; '
            "shorten it or raise events.max_content_bytes.",
            details={"field": field, "max_bytes": max_bytes, "actual_bytes": total_bytes},
        )
    if not any(message.content.strip() for message in messages):
        raise _nothing(field, f'"{field}" holds no text; send something to answer.')
    return messages


class _Allowance:
    """How many more values the strings of one event may hold as JSON."""

    def __init__(self) -> None:
        self._left = MAX_JSON_VALUES

    def admits(self, text: str, field: str) -> bool:
        """Tell whether ``text`` may be decoded; False if it is too much for JSON, and so a text.

        Raises:
            RequestRefused: ``payload_too_large``: each of them may, but all together may not.
        """
        data = text.encode("utf-8", "surrogatepass")
        if values_at_most(data) <= _HARDLY_ANY:
            return True
        try:
            self._left -= values_of(data, max_values=self._left)
        except Excessive as error:
            if error.excess is Excess.DEPTH or self._left == MAX_JSON_VALUES:
                self._left -= min(self._left, MAX_JSON_VALUES // 2)
                return False
            raise RequestRefused(
                ErrorCode.PAYLOAD_TOO_LARGE,
                f'The strings of "{field}" hold more than {MAX_JSON_VALUES} JSON values; '
                "send fewer of them.",
                details={"field": field, "max_values": MAX_JSON_VALUES},
            ) from error
        return True


def _from_any(value: object, field: str, allowance: _Allowance | None) -> Iterator[Message]:
    if isinstance(value, list):
        if not value:
            raise _nothing(field, f'"{field}" is an empty list; send at least one item.')
        for index, item in enumerate(value):
            if isinstance(item, str) and item[:1] not in _MAYBE_JSON:
                yield Message(Role.USER, item)
                continue
            if isinstance(item, list):
                raise _malformed(f"{field}[{index}]", item, "a string or an object")
            yield from _from_any(item, f"{field}[{index}]", allowance)
    elif isinstance(value, str):
        inner = _from_json(value, field, allowance)
        if inner is None:
            yield Message(Role.USER, value)
        else:
            yield from inner
    elif isinstance(value, dict):
        yield from _from_object(value, field)
    else:
        raise _malformed(field, value, _SHAPES)


def _from_json(text: str, field: str, allowance: _Allowance | None) -> list[Message] | None:
    """Return the messages that ``text`` holds as JSON; None if it is to be taken as text."""
    if allowance is None or text.lstrip()[:1] not in ("{", "["):
        return None
    if not allowance.admits(text, field):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    items = value if isinstance(value, list) else [value]
    if not (items and all(map(_is_prompt_object, items))):
        return None
    try:
        return list(_from_any(value, field, allowance))
    except RequestRefused:  # it only looked like a prompt
        return None


def _is_prompt_object(value: object) -> bool:
    return isinstance(value, dict) and ("messages" in value or "prompt" in value)


def _from_object(value: dict[str, Any], field: str) -> Iterator[Message]:
    messages, prompt = value.get("messages"), value.get("prompt")
    if messages is not None and prompt is not None:
        raise RequestRefused(
            ErrorCode.INVALID_INPUT_FORMAT,
            f'"{field}" has both "messages" and "prompt"; send one of them.',
            details={"field": field},
        )
    if messages is not None:
        if not isinstance(messages, list):
            raise _malformed(f"{field}.messages", messages, "a list of messages")
        if not messages:
            raise _nothing(f"{field}.messages", f'"{field}.messages" is empty.')
        for index, message in enumerate(messages):
            yield _message(message, f"{field}.messages[{index}]")
    elif prompt is not None:
        if not isinstance(prompt, str):
            raise _malformed(f"{field}.prompt", prompt, "a string")
        yield Message(Role.USER, prompt)
    else:
        raise _nothing(field, f'"{field}" has neither "messages" nor "prompt"; send one of them.')


def _message(value: object, field: str) -> Message:
    if not isinstance(value, dict):
        raise _malformed(field, value, 'an object with "role" and "content"')
    name = value.get("role")
    role = _ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise _nothing(f"{field}.role", f'"{field}.role" has to be one of {", ".join(_ROLES)}.')
    content = value.get("content")
    if content is None:
        raise _nothing(f"{field}.content", f'"{field}" has no "content".')
    return Message(role, _text(content, f"{field}.content"))


def _text(content: object, field: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _malformed(field, content, "a string or a list of text parts")
    parts = []
    for index, part in enumerate(content):
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise _malformed(f"{field}[{index}]", part, '{"type": "text", "text": "..."}')
        parts.append(text)
    return "".join(parts)


def _text_bytes(text: str, field: str) -> int:
    """Return the length of ``text`` in UTF-8; refuse what no backend can be given."""
    # KoboldCPP is C++ underneath: it would take the text as ended at the first NUL.
    if "\0" in text:
        raise RequestRefused(
            ErrorCode.INVALID_INPUT_FORMAT,
            f'"{field}" holds a NUL character (\\u0000); remove it.',
            details={"field": field},
        )
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise RequestRefused(
            ErrorCode.INVALID_INPUT_FORMAT,
            f'"{field}" holds half of a surrogate pair (such as \\ud800), which is no character; '
            "remove it.",
            details={"field": field},
        ) from error


def json_type(value: object) -> str:
    """Return what JSON calls the type of ``value``."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def _malformed(field: str, value: object, expected: str) -> RequestRefused:
    return RequestRefused(
        ErrorCode.INVALID_INPUT_FORMAT,
        f'"{field}" has to be {expected}, not {json_type(value)}.',
        details={"field": field, "got": json_type(value)},
    )


def _nothing(field: str, message: str) -> RequestRefused:
    return RequestRefused(ErrorCode.PROMPT_EXTRACTION_FAILED, message, details={"field": field})
