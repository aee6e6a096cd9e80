"""The event: what a client asked for, validated, frozen."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

PRIORITY_FIRST = 0
PRIORITY_DEFAULT = 5
PRIORITY_LAST = 9


class Role(StrEnum):
    """Who speaks in a message; kept and forwarded to the backend."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation a prompt is made of."""

    role: Role
    content: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the backend is to generate.

    ``seed`` None lets the backend choose. ``stop`` ends the generation where one of its strings
    would appear.
    """

    max_tokens: int = 256
    temperature: float = 0.7
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One unit of work: a prompt that wants a completion.

    Times are seconds since the Unix epoch; ``deadline_at`` is the moment after which no result is
    wanted any more. ``metadata`` is returned to the client as given. ``trace_context`` holds the
    W3C headers of the client's trace, so that the trace survives the queue.
    """

    event_id: str
    messages: tuple[Message, ...]
    sampling: Sampling
    submitted_at: float
    deadline_at: float
    priority: int = PRIORITY_DEFAULT
    stream: bool = False
    metadata: Mapping[str, Any] | None = field(default=None, repr=False)
    trace_context: Mapping[str, str] = field(default_factory=dict, repr=False)
