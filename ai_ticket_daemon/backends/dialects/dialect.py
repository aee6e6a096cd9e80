"""What a dialect is, and what two of them share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.replies import error_observation
from ai_ticket_daemon.events.outcome import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.backends.generation import GenerationRequest

# Status of an error that a server reports inside a stream without saying which.
_UNSPECIFIED_ERROR = 500


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a completion, or all of it, as the server gave it.

    ``finish_reason`` is None while more follows. ``usage`` is what the server says, true or not.
    """

    text: str = field(repr=False)
    finish_reason: str | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class WireDialect:
    """How one API is spoken.

    ``prompt`` is the text a server of this dialect feeds its model, by default. ``stops`` are the
    strings that have to be cut off the text here; empty where the server does it.
    """

    path: str
    stream_path: str
    body: Callable[[GenerationRequest], dict[str, Any]]
    prompt: Callable[[GenerationRequest], str]
    stops: Callable[[GenerationRequest], tuple[str, ...]]
    read_answer: Callable[[Any], Piece]
    read_event: Callable[[Any], Piece]


def sampling_fields(request: GenerationRequest) -> dict[str, Any]:
    """Return the fields that have one name in all dialects; never a null, which is fatal."""
    sampling = request.sampling
    return {"temperature": sampling.temperature, "top_p": sampling.top_p}


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
    return fields


def reject_null_and_error(value: object) -> None:
    """Raise what an answer says that is no completion but has status 200.

    Raises:
        AttemptFailed: it is null, or an error object.
    """
    if value is None:
        raise AttemptFailed.seen(Seen.NULL_BODY)
    if isinstance(value, dict) and isinstance(error := value.get("error"), dict):
        code = error.get("code")
        status = code if isinstance(code, int) and 400 <= code < 600 else _UNSPECIFIED_ERROR
        raise AttemptFailed(error_observation(status, value))


def openai_piece(value: Any, text_of: Callable[[Any], object]) -> Piece:
    """Return what an OpenAI answer or event says.

    Args:
        value: the JSON value.
        text_of: gives the text of its first choice; None counts as empty.

    Raises:
        AttemptFailed: it is not of that shape.
    """
    reject_null_and_error(value)
    try:
        choices = value["choices"]
        usage = _usage(value.get("usage"))
        if isinstance(choices, list) and not choices and usage is not None:
            return Piece("", None, usage)
        choice = choices[0]
        return make_piece(text_of(choice), choice.get("finish_reason"), usage)
    except (TypeError, KeyError, IndexError, AttributeError):
        raise AttemptFailed.seen(Seen.WRONG_SHAPE) from None


def make_piece(text: object, finish_reason: object, usage: Usage | None = None) -> Piece:
    """Check the parts of a piece and normalise them.

    KoboldCPP writes the word "null" where others write null. Reasons other than ``stop`` and
    ``length``, such as a filter, end the text as a stop does.

    Raises:
        AttemptFailed: they are not of the right type.
    """
    if text is None:
        text = ""
    if not isinstance(text, str) or not isinstance(finish_reason, str | None):
        raise AttemptFailed.seen(Seen.WRONG_SHAPE)
    if finish_reason in (None, "null", ""):
        return Piece(without_surrogates(text), None, usage)
    reason = "length" if finish_reason == "length" else "stop"
    return Piece(without_surrogates(text), reason, usage)


def without_surrogates(text: str) -> str:
    """Replace halves of characters, which JSON can say and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _usage(value: object) -> Usage | None:
    match value:
        case {"prompt_tokens": int(prompt), "completion_tokens": int(completion)}:
            return Usage(max(0, prompt), max(0, completion))
    return None
