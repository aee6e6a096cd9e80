"""``POST /v1/completions``: one text to go on with; stop strings stay in KoboldCPP's answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.backends.dialects.dialect import (
    Piece,
    WireDialect,
    openai_event,
    openai_fields,
    openai_piece,
)
from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.text.prompts import MARKERS, flatten, is_raw

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.generation import GenerationRequest

PATH = "/v1/completions"


def prompt(request: GenerationRequest) -> str:
    """Return the conversation as one text."""
    return flatten(request.messages) if request.laid_out is None else request.laid_out


def end(request: GenerationRequest) -> str:
    """Return the text that the model goes on with; what stands between roles begins anew."""
    if request.laid_out is not None:
        return request.laid_out
    return request.messages[0].content if is_raw(request.messages) else ""


def stops(request: GenerationRequest) -> tuple[str, ...]:
    """Return where the text ends: at the request's stop strings, and at the next role's marker.

    A template ends a turn with a token of its own, at which the server stops.
    """
    if request.laid_out is not None or is_raw(request.messages):
        return request.sampling.stop
    return request.sampling.stop + MARKERS


def body(request: GenerationRequest) -> dict[str, Any]:
    """Return the JSON body for a request."""
    return {"prompt": prompt(request), **openai_fields(request, stops(request))}


def read_answer(value: Any) -> Piece:
    """Return the completion in an answer."""
    return openai_piece(value, _text)


def read_event(value: Any) -> Piece:
    """Return the piece of text in an event of a stream."""
    return openai_event(value, lambda choice: choice.get("text"))


def _text(choice: dict[str, Any]) -> object:
    if "text" not in choice:
        raise AttemptFailed.seen(Seen.WRONG_SHAPE)
    return choice["text"]


DIALECT = WireDialect(
    path=PATH,
    stream_path=PATH,
    body=body,
    prompt=prompt,
    end=end,
    stops=stops,
    read_answer=read_answer,
    read_event=read_event,
)
