"""Models that come and go: a KoboldCPP that unloads its model when idle, or reloads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.kobold.features import Feature
from ai_ticket_daemon.backends.observation import AttemptFailed, Observation, Seen

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.kobold.features import Features
    from ai_ticket_daemon.backends.transport.wire import Wire

_MODEL = "initial_model"
"""What the server calls the model it was started with; a router loads it if a request names it."""
_CHAT_PATH = "/v1/chat/completions"
_RELOAD_PATH = "/api/admin/reload_config"
_AWAY_STATUS = 502
_HELLO = {
    "model": _MODEL,
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 1,
}


def may_reload(features: Features) -> bool:
    """Whether a server may unload or reload its model under a generation."""
    return Feature.ADMIN in features or Feature.ROUTER in features


def is_away(observation: Observation, features: Features) -> bool:
    """Whether a router answered for a server that is being started."""
    return (
        Feature.ROUTER in features
        and observation.seen is Seen.STATUS
        and observation.status == _AWAY_STATUS
    )


async def wake(wire: Wire, features: Features, *, timeout_seconds: float) -> bool:
    """Have a server load its model; False if it does not know how.

    Raises:
        AttemptFailed: it failed, or did not within the time.
    """
    if Feature.ROUTER in features:
        # Only a generation that names a model loads one.
        await wire.call("POST", _CHAT_PATH, _HELLO, timeout_seconds=timeout_seconds)
        return True
    if Feature.ADMIN not in features:
        return False
    answer = await wire.call("POST", _RELOAD_PATH, {"filename": _MODEL})
    if answer.get("success") is not True:
        raise AttemptFailed.seen(Seen.NO_MODEL)
    return True
