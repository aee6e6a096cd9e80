"""The objectives that a load test is judged by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slo:
    """The objectives; the defaults are what ``ops/prometheus`` alerts by."""

    p95_seconds: float = 120.0
    error_share: float = 0.05
    queue_age_seconds: float = 120.0
    first_text_p95_seconds: float | None = None
