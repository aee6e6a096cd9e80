"""What a daemon says of its slots and its queue while it is tested, and what is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.samples import Sample


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the daemon. ``slots``: how many generations can run at a time."""

    queued: int
    oldest_seconds: float
    in_flight: int
    slots: int


def from_status(status: Mapping[str, Any]) -> Look:
    """Return what the report of the control socket says."""
    return Look(
        status["queue"].get("queued", 0),
        status["oldest_queued_seconds"] or 0.0,
        status["in_flight"],
        min(status["max_concurrency"], status["capacity"]),
    )


def from_metrics(page: str) -> Look:
    """Return what the metrics page says.

    Raises:
        ValueError: this is not the page of this daemon.
    """
    found = [sample for family in text_string_to_metric_families(page) for sample in family.samples]

    def value(name: str, **labels: str) -> float:
        for sample in _named(found, name):
            if labels.items() <= sample.labels.items():
                return float(sample.value)
        raise ValueError(f"it has no ai_ticket_{name}")

    serving = _by_backend(found, "kobold_backend_active")
    up = _by_backend(found, "kobold_backend_up")
    slots = _by_backend(found, "kobold_backend_slots")
    return Look(
        int(value("pipeline_queue_depth", state="queued")),
        value("pipeline_oldest_queued_seconds"),
        int(value("pipeline_in_flight")),
        int(
            min(
                value("pipeline_max_concurrency"),
                sum(slots[name] for name in slots if serving.get(name) and up.get(name)),
            )
        ),
    )


def _named(samples: Iterable[Sample], name: str) -> Iterable[Sample]:
    return (sample for sample in samples if sample.name == f"ai_ticket_{name}")


def _by_backend(samples: Iterable[Sample], name: str) -> Mapping[str, float]:
    return {sample.labels["backend"]: sample.value for sample in _named(samples, name)}


class Gauges:
    """What many looks come to, in memory that does not grow with their number."""

    def __init__(self) -> None:
        self._count = 0
        self._use = 0.0
        self._first: Look | None = None
        self._last: Look | None = None
        self._longest = 0
        self._oldest_seconds = 0.0

    def take(self, look: Look) -> None:
        """Take in one look."""
        self._count += 1
        # What still runs on a server that serves no more takes no slot of those that serve.
        self._use += min(look.in_flight / look.slots, 1.0) if look.slots else 0.0
        self._first = self._first or look
        self._last = look
        self._longest = max(self._longest, look.queued)
        self._oldest_seconds = max(self._oldest_seconds, look.oldest_seconds)

    def summary(self) -> dict[str, Any] | None:
        """Return what a report tells of them; None without any look."""
        if self._first is None or self._last is None:
            return None
        return {
            "slots": self._last.slots,
            "slot_use": round(self._use / self._count, 3),
            "queued_at_start": self._first.queued,
            "queued_at_most": self._longest,
            "queued_at_end": self._last.queued,
            "oldest_queued_seconds": round(self._oldest_seconds, 3),
        }
