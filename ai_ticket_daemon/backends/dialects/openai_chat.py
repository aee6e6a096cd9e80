"""``POST /v1/chat/completions``: roles are kept, the server lays the conversation out itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.backends.dialects.dialect import (
    Piece,
    WireDialect,
    joined_text,
    openai_event,
    openai_fields,
    openai_piece,
)
from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.text.prompts import with_markers
from ai_ticket_daemon.events.event import Role

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.generation import GenerationRequest

PATH = "/v1/chat/completions"


def body(request: GenerationRequest) -> dict[str, Any]:
    """Return the JSON body for a request."""
    messages = [{"role": m.role.value, "content": m.content} for m in request.messages]
    return {"messages": messages, **openai_fields(request, request.sampling.stop)}


def read_answer(value: Any) -> Piece:
    """Return the completion in an answer."""
    return openai_piece(
        value,
        lambda choice: _text_in(choice, "message"),
        lambda choice: _reasoning_in(choice, "message"),
    )


def read_event(value: Any) -> Piece:
    """Return the piece of text in an event of a stream."""
    return openai_event(
        value,
        lambda choice: _text_in(choice, "delta"),
        lambda choice: _reasoning_in(choice, "delta"),
    )


def _end(request: GenerationRequest) -> str:
    """Return the beginning of the answer, if the assistant has the last word."""
    last = request.messages[-1]
    return last.content if last.role is Role.ASSISTANT else ""


def _text_in(choice: dict[str, Any], place: str) -> object:
    """Return the text in a message or in a part of one.

    One without content is empty, and one in which the model refuses says so in the content's place.

    Raises:
        AttemptFailed: there is something else than a message.
    """
    message = choice.get(place)
    if message is None and place == "delta":
        return None
    if not isinstance(message, dict):
        raise AttemptFailed.seen(Seen.WRONG_SHAPE)
    content = joined_text(message.get("content"))
    return message.get("refusal") if content is None or content == "" else content


def _reasoning_in(choice: dict[str, Any], place: str) -> object:
    """Return the thinking that a message tells apart; servers have two names and a part for it."""
    message = choice.get(place)
    if not isinstance(message, dict):
        return None
    told = message.get("reasoning_content") or message.get("reasoning")
    return told or _thinking_parts(message.get("content"))


def _thinking_parts(content: object) -> object:
    """Return the thinking in a content that comes in parts; Mistral's servers have it there."""
    if not isinstance(content, list):
        return None
    thinking = (part.get("thinking") for part in content if isinstance(part, dict))
    texts = [joined_text(thought) for thought in thinking]
    return "".join(text for text in texts if isinstance(text, str))


DIALECT = WireDialect(
    path=PATH,
    stream_path=PATH,
    body=body,
    prompt=lambda request: with_markers(request.messages),
    end=_end,
    stops=lambda _request: (),
    read_answer=read_answer,
    read_event=read_event,
)
