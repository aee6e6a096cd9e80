"""What a model thinks before it answers: whether a client wants it, and a piece of it."""

from __future__ import annotations

from enum import StrEnum


class Reasoning(StrEnum):
    """What becomes of the thinking of a model."""

    INCLUDE = "include"
    """It goes to the client, apart from the completion."""
    DROP = "drop"
    """Nobody gets it; its tokens are counted all the same."""


class ReasoningEffort(StrEnum):
    """How much a model is to think; servers whose model does not think ignore it."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class ReasoningText(str):
    """A piece of thinking, where else a piece of a completion would be."""

    __slots__ = ()
