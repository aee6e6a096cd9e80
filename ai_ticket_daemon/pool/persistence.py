"""Persistence of the pool: an actor writes down what of the pool must outlive the process.

It owns one record in the store. Dispatch never waits for it: a record that comes late costs no more
than a probe, or a hold-down that starts anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
import trio

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.host.exhaustion import exhausted

# msgspec reads the annotations of the record when the program runs.
from ai_ticket_daemon.pool.failover import ActiveRole  # noqa: TC001
from ai_ticket_daemon.pool.health import Health, HealthState
from ai_ticket_daemon.pool.identity import Identity  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from structlog.typing import FilteringBoundLogger

    from ai_ticket_daemon.pool.backend import Backend
    from ai_ticket_daemon.pool.pool import BackendPool
    from ai_ticket_daemon.store.port import EventStore

_KEPT_AS = {
    HealthState.LOADING: HealthState.DOWN,
    HealthState.RELOADING: HealthState.DOWN,
    HealthState.UNAUTHORISED: HealthState.WRONG_MODEL,
}
RECORD_KEY = "backends"
"""The key of the record in the store."""
LEAST_GAP_SECONDS = 0.5
"""Between two writes, so that servers that flap do not keep the disk busy."""
WRITE_SECONDS = 10.0
READ_SECONDS = 10.0


async def restore(
    *,
    pool: BackendPool,
    store: EventStore,
    rise: int,
    log: FilteringBoundLogger,
    now: Callable[[], float],
) -> None:
    """Let the pool know what an earlier process knew; to be called before the first probe.

    Without a record that can be read, the pool starts as if it were new.
    """
    try:
        with trio.fail_after(READ_SECONDS):
            text = await store.recall(RECORD_KEY)
    except (StoreUnavailable, trio.TooSlowError) as error:
        log.warning("backends_not_recalled", reason=str(error))
        return
    if text is None:
        return
    offset = now() - trio.current_time()
    try:
        active, healths = decode(
            text, {b.name: b.config.url for b in pool}, offset=offset, rise=rise
        )
    except ValueError as error:
        log.warning("backends_not_recalled", reason=str(error))
        return
    pool.restore(active, healths)


async def run(
    *,
    pool: BackendPool,
    store: EventStore,
    log: FilteringBoundLogger,
    now: Callable[[], float],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Write the record whenever it has changed; runs until cancelled.

    A store that cannot be written is tried again with the next gap; a record that no store would
    take is given up, and said once.
    """
    task_status.started()
    offset = now() - trio.current_time()
    written: str | None = None
    refused: str | None = None
    while True:
        seen = pool.record_changed.version
        failed = False
        try:
            text = encode(pool.active, pool, offset=offset)
            if text != written:
                with trio.fail_after(WRITE_SECONDS):
                    await store.remember(RECORD_KEY, text)
                written, refused = text, None
        except (StoreUnavailable, trio.TooSlowError):
            failed = True
        # The record is a convenience: whatever is wrong with it, the next one may be well.
        except Exception as error:  # noqa: BLE001
            failed = exhausted(error) is not None
            reason = f"{type(error).__name__}: {error}"
            if not failed and reason != refused:
                log.warning("backends_not_kept", reason=reason)
                refused = reason
        await trio.sleep(LEAST_GAP_SECONDS)
        if not failed:
            await pool.record_changed.wait(seen)


@dataclass(frozen=True, slots=True)
class _Server:
    url: str
    state: HealthState
    reason: str
    setbacks: int
    held_until: float | None
    identity: Identity


@dataclass(frozen=True, slots=True)
class _Record:
    active: ActiveRole
    servers: dict[str, _Server]


_decode = msgspec.json.Decoder(_Record).decode


def encode(active: ActiveRole, backends: Iterable[Backend], *, offset: float) -> str:
    """Return the record of the pool as a text, with times of the store.

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
    return msgspec.json.encode(_Record(_at(active, offset), servers)).decode()


def _kept_state(health: Health) -> HealthState:
    """Return what is worth keeping: not that it generates at the moment, or loads.

    An earlier version, too, has to know the state.
    """
    if health.usable:
        return HealthState.READY
    return _KEPT_AS.get(health.state, health.state)


def decode(
    text: str, urls: Mapping[str, str], *, offset: float, rise: int
) -> tuple[ActiveRole, dict[str, Health]]:
    """Return what a record says of the role and of the servers that are still the same.

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
        record = _decode(text)
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
        for name, server in record.servers.items()
        if urls.get(name) == server.url
    }
    return _at(record.active, -offset), healths


def _at(active: ActiveRole, offset: float) -> ActiveRole:
    return replace(
        active,
        since=active.since + offset,
        returned_at=_shifted(active.returned_at, offset),
        switched_at=tuple(at + offset for at in active.switched_at),
    )


def _shifted(at: float | None, offset: float) -> float | None:
    return None if at is None else at + offset
