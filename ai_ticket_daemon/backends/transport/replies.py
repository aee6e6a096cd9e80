"""What an answer says before any dialect is asked: its JSON, or the error it reports."""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from ai_ticket_daemon.backends.bounds import MOST_PARTS
from ai_ticket_daemon.backends.observation import AttemptFailed, Observation, Seen
from ai_ticket_daemon.backends.text.cleaning import clean_name, clean_sentence, whole_number
from ai_ticket_daemon.backends.transport.retry_after import retry_after_seconds

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.transport.answer import Answer

_decode = msgspec.json.Decoder().decode
_MAX_ERROR_BYTES = 64 * 1024
_ERROR_SECONDS = 2.0
"""How long what a server says of an error may take to come."""
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_ -]{0,63}")
CONTEXT_OVERFLOW = "context_length_exceeded"
_OVERFLOW = re.compile(
    r"(maximum|exceeds?|available) .{0,40}context (length|size|window)"
    r"|context (length|size|window).{0,20}exceed",
    re.IGNORECASE,
)
_UNSPECIFIED = 500
"""Status of an error that a server reports in an answer of status 200 without saying which."""
_TOO_MANY = 429
_LATER = re.compile(
    r"rate_?limit|overloaded|too_many_requests|server_(busy|overloaded)", re.IGNORECASE
)
_COMPLETION = frozenset({"choices", "results", "token"})


def parse_json(data: bytes) -> Any:
    """Return the JSON value of an answer; NaN and the infinities, which are none, become None.

    Raises:
        AttemptFailed: it is none, or made of more parts than any answer needs.
    """
    if len(data) > MOST_PARTS and sum(map(data.count, (b",", b"[", b"{"))) > MOST_PARTS:
        raise AttemptFailed.seen(Seen.TOO_LARGE)
    try:
        return _decode(data)
    except (ValueError, RecursionError):
        return _parse_odd_json(data)


def _parse_odd_json(data: bytes) -> Any:
    """Return the value of JSON that the strict decoder refuses: NaN, half characters, a mark."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise AttemptFailed.seen(Seen.NOT_UTF8) from None
    try:
        return json.loads(text, parse_constant=lambda _name: None)
    # Too deep a nesting ends the parser with a RecursionError.
    except (ValueError, RecursionError):
        raise AttemptFailed.seen(Seen.NOT_JSON) from None


def refuse_encoded(answer: Answer) -> None:
    """Raise if an answer is compressed, which no request asks for.

    Raises:
        AttemptFailed: it is.
    """
    encoding = answer.headers.get("content-encoding", "").strip().casefold()
    if encoding not in ("", "identity"):
        raise AttemptFailed(Observation(Seen.ENCODED, error_type=clean_name(encoding[:32])))


async def refuse_error_status(answer: Answer) -> None:
    """Raise what an answer that is not 200 says; do nothing if it is.

    Raises:
        AttemptFailed: the status is not 200.
    """
    if answer.status == 200:
        return
    data = b""
    # The status says enough where the rest cannot be read, or does not come.
    with trio.move_on_after(_ERROR_SECONDS), suppress(AttemptFailed):
        refuse_encoded(answer)
        data = await answer.read_all(_MAX_ERROR_BYTES)
    try:
        error: object = parse_json(data)
    except AttemptFailed:
        error = _plain_text(data)
    wait = retry_after_seconds(answer.headers, time.time())
    raise AttemptFailed(error_observation(answer.status, error, wait))


def refuse_error(value: object, *, called_error: bool = False) -> None:
    """Raise what an answer of status 200 says that reports an error.

    The forms are KoboldCPP's, OpenAI's, vLLM's, FastAPI's and those of many others: an object or a
    text at ``error``, ``detail`` or ``message``, where no completion is beside it.

    Args:
        value: the JSON value.
        called_error: the server calls it an error, whatever its form.

    Raises:
        AttemptFailed: it is an error.
    """
    fields = value if isinstance(value, dict) else {}
    if not called_error and not _is_error(fields):
        return
    facts = _facts(value)
    codes = (facts.get("code"), facts.get("status"), fields.get("code"), fields.get("status"))
    numbers = (int(c) if isinstance(c, str) and re.fullmatch("[0-9]{3}", c) else c for c in codes)
    status = next((n for n in numbers if isinstance(n, int) and 400 <= n < 600), _UNSPECIFIED)
    observation = error_observation(status, value)
    if status == _UNSPECIFIED and _LATER.match(observation.error_type or ""):
        observation = replace(observation, status=_TOO_MANY)
    raise AttemptFailed(observation)


def error_observation(
    status: int, body: object, retry_after_seconds: float | None = None
) -> Observation:
    """Return what an error answer says, in any of the forms of :func:`refuse_error`."""
    facts = _facts(body)
    said = _said(facts) or (_said(body) if isinstance(body, dict) else None)
    words = [facts.get("code"), facts.get("type")]
    word = next((w for w in words if isinstance(w, str) and _WORD.fullmatch(w)), None)
    if said is not None and _OVERFLOW.search(said):
        word = CONTEXT_OVERFLOW  # Some servers say so in their message only.
    return Observation(
        Seen.STATUS,
        status=status,
        error_type=word,
        words=said,
        retry_after_seconds=retry_after_seconds,
        prompt_tokens=whole_number(facts.get("n_prompt_tokens")),
        context_tokens=whole_number(facts.get("n_ctx")),
    )


def _is_error(fields: dict[str, Any]) -> bool:
    error = fields.get("error")
    if isinstance(error, dict) or (isinstance(error, str) and error):
        return True
    if _COMPLETION & fields.keys():
        return False
    says_something = fields.get("detail") or isinstance(fields.get("message"), str)
    return bool(says_something) or fields.get("object") == "error"


def _facts(body: object) -> dict[str, Any]:
    """Return the object that tells of the error, wherever it stands."""
    if isinstance(body, str):
        return {"message": body}
    if not isinstance(body, dict):
        return {}
    for key in ("detail", "error", "errors"):
        place = body.get(key)
        if isinstance(place, list) and place:
            place = place[0]
        if isinstance(place, str) and place:
            return {**body, "message": place}
        if isinstance(place, dict) and place:
            return place
    return body


def _said(facts: dict[str, Any]) -> str | None:
    """Return what the server says in words, cleaned; None if it says nothing."""
    texts = (facts.get(key) for key in ("message", "msg", "detail", "error", "title"))
    text = next((t for t in texts if isinstance(t, str) and t.strip()), None)
    return None if text is None else clean_sentence(text)


def _plain_text(data: bytes) -> str | None:
    """Return an error page in plain text; None for one in HTML, or for no text."""
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        return None
    return None if text.startswith(("<", "{", "[")) else text
