"""From the decoded body of a request to an event, field by field.

Everything is checked here, before anything is stored or sent: a backend answers most bad input
with nonsense rather than with an error. A field that is null counts as not given; unknown fields
are ignored.
"""

from __future__ import annotations

import json
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events.event import Event, Sampling
from ai_ticket_daemon.events.extract import extract_messages, json_type
from ai_ticket_daemon.events.limits import (
    MAX_METADATA_BYTES,
    MAX_STOP_CHARACTERS,
    MAX_STOP_STRINGS,
    MAX_TOKENS,
    PRIORITY,
    SEED,
    SEED_OF_BACKEND,
    TEMPERATURE,
    TIMEOUT_SECONDS,
    TOP_P,
    takes_stop,
)
from ai_ticket_daemon.events.reasoning import Reasoning, ReasoningEffort

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ai_ticket_daemon.events.limits import Range

_ENCODER = msgspec.json.Encoder()
Word = TypeVar("Word", bound=StrEnum)


class EventLimits(Protocol):
    """The part of the conf file's ``[events]`` section that a single event has to keep to."""

    @property
    def max_content_bytes(self) -> int:
        """How long the texts of one event may be together, in bytes of UTF-8."""

    @property
    def json_in_strings(self) -> bool:
        """Whether a string may hold the JSON of a conversation."""

    @property
    def default_max_tokens(self) -> int:
        """What ``max_tokens`` is where the client does not say."""

    @property
    def max_max_tokens(self) -> int:
        """The most a client may ask for."""

    @property
    def default_timeout_seconds(self) -> float:
        """What ``timeout_seconds`` is where the client does not say."""


def parse_event(
    body: object,
    *,
    limits: EventLimits,
    now: float,
    event_id: str,
    trace_context: Mapping[str, str],
    owner: str = "",
    idempotency_key: str | None = None,
    best_priority: int = PRIORITY.least,
    client: str | None = None,
) -> Event:
    """Return the event that ``body`` asks for.

    Args:
        body: the request's body as decoded from JSON; any value will do.
        limits: what an event may ask for.
        now: seconds since the Unix epoch; the deadline counts from here.
        event_id: the id of the event to be.
        trace_context: W3C headers of the client's trace.
        owner: the name of the token it comes with; "" without tokens.
        idempotency_key: the client's own name for it, if it has one.
        best_priority: the lowest number its priority may have.
        client: the address it comes from, if that is recorded.

    Raises:
        RequestRefused: the body is no event; ``details["field"]`` names the field at fault.
    """
    if not isinstance(body, dict):
        raise RequestRefused(
            ErrorCode.INVALID_REQUEST,
            f"The body has to be a JSON object, not {json_type(body)}.",
            details={"field": None, "got": json_type(body)},
        )
    content = body.get("content")
    if content is None:
        shape = '{"content": "..."}'
        if "messages" in body:
            shape = '{"content": {"messages": [...]}}: the messages belong in it'
        raise RequestRefused(
            ErrorCode.MISSING_CONTENT_FIELD,
            f'The body has no "content"; send {shape}.',
            details={"field": "content"},
        )
    messages = extract_messages(
        content, max_bytes=limits.max_content_bytes, json_in_strings=limits.json_in_strings
    )
    lengths = _lengths(limits.default_max_tokens, limits.max_max_tokens)
    timeouts = _timeouts(limits.default_timeout_seconds)
    timeout_seconds = _number(body, "timeout_seconds", timeouts)
    seed = _integer(body, "seed", SEED)
    return Event(
        event_id=event_id,
        messages=messages,
        sampling=Sampling(
            max_tokens=_integer(body, "max_tokens", lengths),
            temperature=_number(body, "temperature", TEMPERATURE),
            top_p=_number(body, "top_p", TOP_P),
            stop=_stop(body.get("stop")),
            seed=None if seed == SEED_OF_BACKEND else seed,
        ),
        submitted_at=now,
        deadline_at=now + timeout_seconds,
        priority=_priority(body, best_priority),
        stream=_stream(body.get("stream")),
        metadata=_metadata(body.get("metadata")),
        trace_context=trace_context,
        owner=owner,
        idempotency_key=idempotency_key,
        timeout_seconds=timeout_seconds,
        client=client,
        reasoning=_word(body, "reasoning", Reasoning) or Reasoning.DROP,
        reasoning_effort=_word(body, "reasoning_effort", ReasoningEffort),
    )


# Events come by the thousand, and the settings do not change between them.
@lru_cache(maxsize=4)
def _lengths(default: int, most: int) -> Range[int]:
    return MAX_TOKENS.within(most=most, default=min(default, most))


@lru_cache(maxsize=4)
def _timeouts(default: float) -> Range[float]:
    return TIMEOUT_SECONDS.within(most=TIMEOUT_SECONDS.most, default=default)


@lru_cache(maxsize=16)
def _priorities(best: int) -> Range[int]:
    return PRIORITY.within(most=PRIORITY.most, default=max(PRIORITY.default, best))


def _integer(body: Mapping[str, Any], field: str, allowed: Range[int]) -> int:
    value = body.get(field)
    if value is None:
        return allowed.default
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON has one kind of number: 4.0 is as whole as 4
    if not allowed.admits(value):
        bounds = {"minimum": allowed.least, "maximum": allowed.most}
        raise _refused(field, str(allowed), value, bounds)
    return int(value)


def _number(body: Mapping[str, Any], field: str, allowed: Range[float]) -> float:
    value = body.get(field)
    if value is None:
        return allowed.default
    if not allowed.admits(value):
        raise _refused(field, str(allowed), value, {"maximum": allowed.most})
    return float(value)


def _priority(body: Mapping[str, Any], best: int) -> int:
    priority = _integer(body, "priority", _priorities(best))
    if priority < best:
        raise RequestRefused(
            ErrorCode.FORBIDDEN,
            f'"priority" {priority} takes an access token with the scope "priority:{priority}"; '
            f"this one may go down to {best}.",
            details={
                "field": "priority",
                "got": str(priority),
                "minimum": best,
                "needed": [f"priority:{priority}"],
            },
        )
    return priority


def _stop(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, list) or not takes_stop(strings):
        raise _refused(
            "stop",
            f"a string or a list of at most {MAX_STOP_STRINGS} strings, none empty, of at most "
            f"{MAX_STOP_CHARACTERS} characters together",
            value,
            {"max_strings": MAX_STOP_STRINGS, "max_characters": MAX_STOP_CHARACTERS},
        )
    return tuple(strings)


def _word(body: Mapping[str, Any], field: str, words: type[Word]) -> Word | None:
    value = body.get(field)
    if value is None:
        return None
    known = {word.value: word for word in words}
    word = known.get(value) if isinstance(value, str) else None
    if word is None:
        raise _refused(field, f"one of {', '.join(known)}", value, {"allowed": list(known)})
    return word


def _stream(value: object) -> bool:
    if value is None:
        return False
    if not isinstance(value, bool):
        raise _refused("stream", "true or false", value, {})
    return value


def _metadata(value: object) -> Mapping[str, Any] | None:
    if value is None:
        return None
    expected = f"a JSON object of at most {MAX_METADATA_BYTES} bytes"
    if not isinstance(value, dict):
        raise _refused("metadata", expected, value, {})
    if (least_bytes := _least_bytes(value)) > MAX_METADATA_BYTES:
        raise _refused(
            "metadata",
            expected,
            value,
            {"max_bytes": MAX_METADATA_BYTES, "actual_bytes": least_bytes},
        )
    if _is_surely_small(value):
        return value
    try:
        size_bytes = len(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
    except (ValueError, RecursionError) as error:
        # A number beyond the range of a double, half a surrogate pair, or nested without end:
        # none of them could be returned as given.
        raise _refused(
            "metadata", f"{expected}, of numbers and texts that JSON can hold", value, {}
        ) from error
    if size_bytes > MAX_METADATA_BYTES:
        raise _refused(
            "metadata",
            expected,
            value,
            {"max_bytes": MAX_METADATA_BYTES, "actual_bytes": size_bytes},
        )
    return value


def _least_bytes(value: object) -> int:
    """Return how long the JSON of ``value`` is at the least, or something beyond the limit.

    To write a whole number of thousands of digits takes longer than to read it.
    """
    size_bytes, rest = 0, [value]
    while rest and size_bytes <= MAX_METADATA_BYTES:
        match rest.pop():
            case dict() as inner:
                size_bytes += 2 + sum(map(len, inner)) + 3 * len(inner)
                rest += list(inner.values())[:MAX_METADATA_BYTES]
            case list() as inner:
                size_bytes += 2 + len(inner)
                rest += inner[:MAX_METADATA_BYTES]
            case str() as text:
                size_bytes += 2 + len(text)
            case int() as number:
                size_bytes += 1 + number.bit_length() // 4
            case _:
                size_bytes += 1
    return size_bytes


def _is_surely_small(value: object) -> bool:
    """Tell whether ``value`` is well within the limit and certainly JSON; quickly, or False."""
    try:
        text = _ENCODER.encode(value)
    except (UnicodeEncodeError, RecursionError):
        return False
    # It has no blanks, which could double it; and a number beyond all doubles becomes null.
    return 2 * len(text) <= MAX_METADATA_BYTES and b"null" not in text


def _refused(
    field: str, expected: str, value: object, details: Mapping[str, Any]
) -> RequestRefused:
    shown = value if isinstance(value, bool | int | float) and abs(value) < 1e15 else None
    got = json_type(value) if shown is None else json.dumps(shown)
    return RequestRefused(
        ErrorCode.INVALID_PARAMETER,
        f'"{field}" has to be {expected}; got {got}.',
        details={"field": field, "got": got, **details},
    )
