"""The health of one server: what is known of it, in plain values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ai_ticket_daemon.backends.software import NOTHING_TOLD, Software
from ai_ticket_daemon.pool.identity import NOTHING_KNOWN, Identity


class HealthState(StrEnum):
    """What is known of a server."""

    UNKNOWN = "unknown"
    """Not probed yet; not used."""
    READY = "ready"
    """Answers, with the right model."""
    BUSY = "busy"
    """Answers, and generates; busy is not down."""
    STUCK = "stuck"
    """Answers, but a generation there makes no progress."""
    UNLOADED = "unloaded"
    """Answers, and has unloaded its model; the next request loads it."""
    LOADING = "loading"
    """Answers that it cannot serve yet: it loads its model, or is overloaded."""
    RELOADING = "reloading"
    """Was seen to unload or reload its model, and does not serve yet."""
    WRONG_MODEL = "wrong_model"
    """Answers, but without a model, or with another one than it should have."""
    UNAUTHORISED = "unauthorised"
    """Answers, but does not accept the configured password."""
    DOWN = "down"
    """Refuses, stays silent, makes no sense, or fails at whatever it is given."""


USABLE = frozenset({HealthState.READY, HealthState.BUSY, HealthState.UNLOADED})
_WITH_MODEL = frozenset({HealthState.READY, HealthState.BUSY, HealthState.STUCK})
UNSETTLED = frozenset(
    {
        HealthState.UNLOADED,
        HealthState.LOADING,
        HealthState.RELOADING,
        HealthState.WRONG_MODEL,
        HealthState.UNAUTHORISED,
    }
)
"""What a server is may change any moment: each look reads anew what it serves."""


@dataclass(frozen=True, slots=True)
class Health:
    """A server's state, why it is in it and since when (seconds, monotonic clock).

    ``successes`` and ``failures`` count probes in a row; only one of them is not 0.
    ``usable_since`` is None unless generations may be sent there, or it is awaited: until
    ``awaited_until`` its model is away by its router's doing. ``failed_events`` are those that
    failed there since the last completion. ``held_until``: not to be used before, because it
    answers probes and still does no work; ``setbacks`` counts such findings since the last
    completion. ``identity`` is what it was when it was last as it should be, ``software`` what runs
    there. ``generations`` is what the server counts itself; ``restarts`` what was noticed.
    """

    state: HealthState = HealthState.UNKNOWN
    reason: str = "not probed yet"
    since: float = 0.0
    usable_since: float | None = None
    successes: int = 0
    failures: int = 0
    credential_accepted: bool = True
    lacks_model: bool = False
    identity: Identity = NOTHING_KNOWN
    software: Software = NOTHING_TOLD
    prompt_tokens_per_second: float | None = None
    written_tokens_per_second: float | None = None
    last_prompt_tokens: int | None = None
    uptime_seconds: float | None = None
    generations: int | None = None
    restarts: int = 0
    failed_events: frozenset[str] = frozenset()
    setbacks: int = 0
    held_until: float | None = None
    awaited_until: float | None = None

    @property
    def usable(self) -> bool:
        """Whether generations may be sent there."""
        return self.state in USABLE

    def usable_soon(self, now: float) -> bool:
        """Whether generations may be sent there, or its model is away and expected back."""
        return self.usable or (self.awaited_until is not None and now < self.awaited_until)

    @property
    def has_model(self) -> bool:
        """Whether its model is loaded, and may be generating."""
        return self.state in _WITH_MODEL

    @property
    def loads_on_request(self) -> bool:
        """Whether it has unloaded its model, and the next request loads it."""
        return self.state is HealthState.UNLOADED

    @property
    def loads_on_order(self) -> bool:
        """Whether it has no model, and loads one if an administrator says so."""
        return (
            self.lacks_model
            and self.state is HealthState.WRONG_MODEL
            and "admin" in self.software.features
        )

    @property
    def model_is_away(self) -> bool:
        """Whether its router is loading or unloading its model."""
        away = self.state in (HealthState.LOADING, HealthState.RELOADING)
        return away and "router" in self.software.features

    @property
    def keeps_prompts(self) -> bool:
        """Whether it may still know the prompts that it has read."""
        return not (self.lacks_model or self.loads_on_request or self.model_is_away)

    @property
    def in_transition(self) -> bool:
        """Whether the next probe should come soon, because the state is in doubt."""
        return not self.usable or self.failures > 0
