"""What a dialect is, and what two of them share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.backends.finish import read_reason
from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.text.cleaning import whole_number
from ai_ticket_daemon.backends.transport.replies import refuse_error
from ai_ticket_daemon.events.outcome import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.backends.generation import GenerationRequest


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a completion, or all of it, as the server gave it.

    ``text`` may begin or end with half a character. ``finish_reason`` is None while more follows
    (see ``finish.py``). ``usage`` is what the server says, true or not. ``reasoning`` is what it
    tells apart of the model's thinking.
    """

    text: str = field(repr=False)
    finish_reason: str | None = None
    usage: Usage | None = None
    reasoning: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class WireDialect:
    """How one API is spoken.

    ``prompt`` is the text a server of this dialect feeds its model, by default; ``end`` is the last
    text of the request that the model goes on with, empty if it begins anew. ``stops`` are the
    strings that have to be cut off the text here; empty where the server does it.
    """

    path: str
    stream_path: str
    body: Callable[[GenerationRequest], dict[str, Any]]
    prompt: Callable[[GenerationRequest], str]
    end: Callable[[GenerationRequest], str]
    stops: Callable[[GenerationRequest], tuple[str, ...]]
    read_answer: Callable[[Any], Piece]
    read_event: Callable[[Any], Piece]


def sampling_fields(request: GenerationRequest) -> dict[str, Any]:
    """Return the fields that have one name in all dialects; never a null, which is fatal."""
    sampling = request.sampling
    fields: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    if request.reasoning_effort is not None:
        fields["reasoning_effort"] = request.reasoning_effort.value
    return fields


def openai_fields(request: GenerationRequest, stops: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields both OpenAI dialects share."""
    sampling = request.sampling
    fields = {"max_tokens": sampling.max_tokens, **sampling_fields(request)}
    if stops:
        fields["stop"] = list(stops)
    if sampling.seed is not None:
        fields["seed"] = sampling.seed
    if request.stream:
        fields["stream"] = True
        fields["stream_options"] = {"include_usage": True}
    return fields


def reject_null_and_error(value: object) -> None:
    """Raise what an answer says that is no completion but has status 200.

    Raises:
        AttemptFailed: it is null, or an error in any form.
    """
    if value is None:
        raise AttemptFailed.seen(Seen.NULL_BODY)
    refuse_error(value)


def _no_reasoning(_choice: dict[str, Any]) -> object:
    return None


def openai_piece(
    value: Any,
    text_of: Callable[[dict[str, Any]], object],
    reasoning_of: Callable[[dict[str, Any]], object] = _no_reasoning,
) -> Piece:
    """Return what an OpenAI answer says.

    Args:
        value: the JSON value.
        text_of: gives the text of its first choice; None counts as empty.
        reasoning_of: gives its thinking, if it is told apart.

    Raises:
        AttemptFailed: it is an error, or not of that shape.
    """
    reject_null_and_error(value)
    choice = _first_choice(value)
    if choice is None:
        raise AttemptFailed.seen(Seen.WRONG_SHAPE)
    return _choice_piece(value, choice, text_of, reasoning_of)


def openai_event(
    value: Any,
    text_of: Callable[[dict[str, Any]], object],
    reasoning_of: Callable[[dict[str, Any]], object] = _no_reasoning,
) -> Piece:
    """Return what an event of an OpenAI stream says; arguments as for :func:`openai_piece`.

    Events without a choice say nothing of the text: some carry the usage, some a filter's verdict
    on the prompt, some nothing at all.

    Raises:
        AttemptFailed: it is an error, or no event of a stream.
    """
    refuse_error(value)
    if value is None:
        return Piece("")
    choice = _first_choice(value)
    if choice is None:
        return Piece("", None, read_usage(value.get("usage")))
    return _choice_piece(value, choice, text_of, reasoning_of)


def joined_text(content: object) -> object:
    """Return the text of a content that comes in parts; any other content as it is."""
    if not isinstance(content, list):
        return content
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def make_piece(
    text: object, finish_reason: str | None, usage: Usage | None = None, reasoning: object = None
) -> Piece:
    """Return a piece with this text and this thinking; None counts as empty.

    Raises:
        AttemptFailed: it is no text.
    """
    if text is None:
        text = ""
    if not isinstance(text, str):
        raise AttemptFailed.seen(Seen.WRONG_SHAPE)
    return Piece(text, finish_reason, usage, reasoning if isinstance(reasoning, str) else "")


def _first_choice(value: Any) -> dict[str, Any] | None:
    """Return the first choice; None where there is none.

    Raises:
        AttemptFailed: what stands there is none.
    """
    if not isinstance(value, dict):
        raise AttemptFailed.seen(Seen.WRONG_SHAPE)
    choices = value.get("choices")
    if choices is None or choices == []:
        return None
    if not isinstance(choices, list) or not isinstance(choices[0], dict):
        raise AttemptFailed.seen(Seen.WRONG_SHAPE)
    return choices[0]


def _choice_piece(
    value: dict[str, Any],
    choice: dict[str, Any],
    text_of: Callable[[dict[str, Any]], object],
    reasoning_of: Callable[[dict[str, Any]], object],
) -> Piece:
    # First, since an answer that is not whole may lack its text.
    reason = read_reason(choice.get("finish_reason"))
    usage = read_usage(value.get("usage"))
    return make_piece(text_of(choice), reason, usage, reasoning_of(choice))


def read_usage(value: object) -> Usage | None:
    """Return what the server counts; None unless it counts both in numbers that make sense.

    Thinking is a part of the completion. Some servers count it beside that, and tell so by their
    total.
    """
    if not isinstance(value, dict):
        return None
    prompt, completion, total = (
        whole_number(value.get(key))
        for key in ("prompt_tokens", "completion_tokens", "total_tokens")
    )
    if prompt is None or completion is None:
        return None
    details = value.get("completion_tokens_details")
    thinking = whole_number(details.get("reasoning_tokens")) if isinstance(details, dict) else None
    thinking = thinking or 0
    if total == prompt + completion + thinking:
        completion += thinking
    return Usage(
        prompt, completion, reasoning_tokens=thinking if 0 < thinking <= completion else None
    )
