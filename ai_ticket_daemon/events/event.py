"""The event: what a client asked for, validated, frozen."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping  # noqa: TC003 - msgspec reads the annotations at run time
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from ai_ticket_daemon.events.limits import MAX_TOKENS, PRIORITY, TEMPERATURE, TOP_P
from ai_ticket_daemon.events.reasoning import Reasoning, ReasoningEffort


class Role(StrEnum):
    """Who speaks in a message; kept and forwarded to the backend."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Message(Struct, frozen=True):
    """One turn of the conversation a prompt is made of."""

    role: Role
    content: str

    def __repr__(self) -> str:
        """Keep what the client wrote to itself."""
        return f"Message(role={self.role!r})"


class Sampling(Struct, frozen=True):
    """How the backend is to generate.

    ``seed`` None lets the backend choose. ``stop`` ends the generation where one of its strings
    would appear.
    """

    max_tokens: int = MAX_TOKENS.default
    temperature: float = TEMPERATURE.default
    top_p: float = TOP_P.default
    stop: tuple[str, ...] = ()
    seed: int | None = None


class Event(Struct, frozen=True):
    """One unit of work: a prompt that wants a completion. Times: seconds since the Unix epoch."""

    event_id: str
    messages: tuple[Message, ...]
    """The prompt, as a conversation."""
    sampling: Sampling
    submitted_at: float
    deadline_at: float
    """After this moment no result is wanted any more."""
    priority: int = PRIORITY.default
    """0 comes first."""
    stream: bool = False
    """Whether the client wants the text as it comes."""
    metadata: Mapping[str, Any] | None = None
    """Returned to the client as given."""
    trace_context: Mapping[str, str] = field(default_factory=dict)
    """The W3C headers of the client's trace and of the client's span: the trace survives the
    queue."""
    owner: str = ""
    """The name of the token it was submitted with; "" without tokens."""
    idempotency_key: str | None = None
    """The client's own name for it, unique for its owner."""
    timeout_seconds: float | None = None
    """How long the client gave it. The deadline moves while time does not count, so the two need
    not agree."""
    client: str | None = None
    """The address it came from, if that is recorded."""
    reasoning: Reasoning = Reasoning.DROP
    """Whether the client wants what the model thinks before it answers."""
    reasoning_effort: ReasoningEffort | None = None
    """How much the model is to think; None leaves it to the backend."""

    def __repr__(self) -> str:
        """Keep what the client sent to itself; the id leads to it."""
        return f"Event(event_id={self.event_id!r}, priority={self.priority!r})"

    @property
    def given_seconds(self) -> float:
        """How long the client gave it; events of the first version have no more than a deadline."""
        if self.timeout_seconds is None:
            return self.deadline_at - self.submitted_at
        return self.timeout_seconds


def without_text(event: Event) -> Event:
    """Return what is left of ``event`` for whoever waits for its end: all but what is to be done.

    Thousands may wait for days, each for an event of a megabyte.
    """
    return replace(event, messages=(), sampling=Sampling())


def text_bytes(event: Event) -> int:
    """Return how much memory the texts of ``event`` take: up to four bytes for each character."""
    return sum(sys.getsizeof(message.content) for message in event.messages)


def payload_digest(event: Event) -> bytes:
    """Return a digest of what the client asked for: the same for the same request, sent again.

    How the answer is to travel and how long the client would wait are no part of it.
    """
    payload: tuple[object, ...] = (event.messages, event.sampling, event.priority, event.metadata)
    if event.reasoning is not Reasoning.DROP or event.reasoning_effort is not None:
        # Left out otherwise: an earlier version knew neither, and its digests are in the store.
        payload = (*payload, event.reasoning, event.reasoning_effort)
    return hashlib.sha256(msgspec.json.encode(payload, order="deterministic")).digest()
