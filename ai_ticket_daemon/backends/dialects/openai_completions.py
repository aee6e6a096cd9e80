"""``POST /v1/completions``: one text to go on with; stop strings stay in KoboldCPP's answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.backends.dialects.dialect import (
    Piece,
    WireDialect,
    openai_fields,
    openai_piece,
)
from ai_ticket_daemon.backends.prompts import MARKERS, flatten, is_raw

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.generation import GenerationRequest

PATH = "/v1/completions"


def prompt(request: GenerationRequest) -> str:
    """Return the conversation as one text."""
    return flatten(request.messages)


def stops(request: GenerationRequest) -> tuple[str, ...]:
    """Return where the text ends: at the request's stop strings, and at the next role's marker."""
    if is_raw(request.messages):
        return request.sampling.stop
    return request.sampling.stop + MARKERS


def body(request: GenerationRequest) -> dict[str, Any]:
    """Return the JSON body for a request."""
    return {"prompt": prompt(request), **openai_fields(request, stops(request))}


def read_piece(value: Any) -> Piece:
    """Return the text in an answer or in an event of a stream, which look alike."""
    return openai_piece(value, lambda choice: choice["text"])


DIALECT = WireDialect(
    path=PATH,
    stream_path=PATH,
    body=body,
    prompt=prompt,
    stops=stops,
    read_answer=read_piece,
    read_event=read_piece,
)
