"""What of the pool outlives the process: as one small text, with times of the store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from ai_ticket_daemon.pool.failover import ActiveRole  # noqa: TC001
from ai_ticket_daemon.pool.health import Health, HealthState

# msgspec reads the annotations below when the program runs.
from ai_ticket_daemon.pool.identity import Identity  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ai_ticket_daemon.pool.backend import Backend


@dataclass(frozen=True, slots=True)
class _Server:
    url: str
    state: HealthState
    reason: str
    setbacks: int
    held_until: float | None
    identity: Identity


@dataclass(frozen=True, slots=True)
class _Memory:
    active: ActiveRole
    servers: dict[str, _Server]


_decode = msgspec.json.Decoder(_Memory).decode


def encode(active: ActiveRole, backends: Iterable[Backend], *, offset: float) -> str:
    """Return the text to keep.

    Args:
        active: the role that serves.
        backends: all servers.
        offset: the time of the store less that on the monotonic clock.
    """
    servers = {
        backend.name: _Server(
            backend.config.url,
            _kept_state(backend.health),
            "" if backend.health.usable else backend.health.reason,
            backend.health.setbacks,
            _shifted(backend.health.held_until, offset),
            backend.health.identity,
        )
        for backend in backends
    }
    return msgspec.json.encode(_Memory(_at(active, offset), servers)).decode()


def _kept_state(health: Health) -> HealthState:
    """Return what is worth keeping: not that it generates at the moment, or loads.

    An earlier version, too, has to know the state.
    """
    if health.usable:
        return HealthState.READY
    return HealthState.DOWN if health.state is HealthState.LOADING else health.state


def decode(
    text: str, urls: Mapping[str, str], *, offset: float, rise: int
) -> tuple[ActiveRole, dict[str, Health]]:
    """Return what the text says of the role and of the servers that are still the same.

    A server that was usable has to be looked at anew, like any other. One that was not stays so
    until a probe says otherwise; to be believed it then needs one good answer, not ``rise``.

    Args:
        text: what :func:`encode` returned, in this process or an earlier one.
        urls: the URL of each server now.
        offset: the time of the store less that on the monotonic clock, now.
        rise: the setting.

    Raises:
        ValueError: it is no such text.
    """
    try:
        memory = _decode(text)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    healths = {
        name: Health(
            state=HealthState.UNKNOWN if server.state is HealthState.READY else server.state,
            reason=f"{server.reason or 'not probed yet'} (before the restart of the daemon)",
            setbacks=server.setbacks,
            held_until=_shifted(server.held_until, -offset),
            identity=server.identity,
            successes=rise - 1,
        )
        for name, server in memory.servers.items()
        if urls.get(name) == server.url
    }
    return _at(memory.active, -offset), healths


def _at(active: ActiveRole, offset: float) -> ActiveRole:
    return replace(
        active,
        since=active.since + offset,
        returned_at=_shifted(active.returned_at, offset),
        switched_at=tuple(at + offset for at in active.switched_at),
    )


def _shifted(at: float | None, offset: float) -> float | None:
    return None if at is None else at + offset
