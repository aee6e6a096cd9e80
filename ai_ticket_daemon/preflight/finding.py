"""What the check found, and how much it matters."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Weight(StrEnum):
    """How much a finding matters."""

    PROBLEM = "problem"
    """A start would fail."""
    WARNING = "warning"
    """A start succeeds, and may surprise."""
    NOTE = "note"
    """Good to know."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence of the check."""

    weight: Weight
    text: str
