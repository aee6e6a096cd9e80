"""The control socket and the view socket: an actor that serves the operator's requests.

It owns the sockets. One that cannot be opened is logged and is no reason to stop: it looks on
and is never in the way. If the host had run out of what it takes, it is tried again.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.config.control import DEFAULT_SOCKET, DEFAULT_VIEW_SOCKET
from ai_ticket_daemon.config.http import HttpConfig
from ai_ticket_daemon.config.values.addresses import UnixBind
from ai_ticket_daemon.host.exhaustion import AGAIN_SECONDS
from ai_ticket_daemon.server.listen import listeners
from ai_ticket_daemon.server.listen.sockets import ListenerUnavailable

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable, Mapping

    from hypercorn.typing import ASGIFramework
    from structlog.typing import FilteringBoundLogger

    from ai_ticket_daemon.host.exhaustion import Exhaustion

MAX_CONNECTIONS = 64


def socket_path(configured: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return where the socket is; under systemd, its default is in the service's own directory."""
    runtime = _runtime_directory(environ)
    if configured == DEFAULT_SOCKET and runtime:
        return Path(runtime) / DEFAULT_SOCKET.name
    return configured


def view_path(configured: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return where the view socket is; its default is the service's, and has the service's name."""
    if configured != DEFAULT_VIEW_SOCKET:
        return configured
    runtime = _runtime_directory(environ)
    if runtime:
        return DEFAULT_VIEW_SOCKET.with_name(f"{Path(runtime).name}.sock")
    return DEFAULT_VIEW_SOCKET if DEFAULT_VIEW_SOCKET.parent.is_dir() else None


def _runtime_directory(environ: Mapping[str, str]) -> str:
    return environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]


async def run(
    *,
    apps: Mapping[Path, ASGIFramework],
    log: FilteringBoundLogger,
    logger: logging.Logger,
    exhaustion: Exhaustion,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve each of ``apps`` on the Unix socket of its path; runs until cancelled."""
    async with trio.open_nursery() as nursery:
        for path, app in apps.items():
            serve = partial(_serve, app, path, logger, exhaustion)
            if await _lacking(nursery, serve, log, exhaustion):
                nursery.start_soon(_open_later, nursery, serve, log, exhaustion)
        task_status.started()
        await trio.sleep_forever()


async def _lacking(
    nursery: trio.Nursery,
    serve: Callable[..., Awaitable[None]],
    log: FilteringBoundLogger,
    exhaustion: Exhaustion,
) -> bool:
    """Open the socket; return whether that failed only for what the host lacks now."""
    lacking = False
    try:
        await nursery.start(serve)
    except* ListenerUnavailable as group:
        lacking = exhaustion.meets(group, "control") is not None
        if not lacking:
            [reason] = {str(error) for error in group.exceptions}
            log.warning("control_unavailable", reason=reason.partition(";")[0])
    return lacking


async def _open_later(
    nursery: trio.Nursery,
    serve: Callable[..., Awaitable[None]],
    log: FilteringBoundLogger,
    exhaustion: Exhaustion,
) -> None:
    lacking = True
    while lacking:
        await trio.sleep(AGAIN_SECONDS)
        lacking = await _lacking(nursery, serve, log, exhaustion)


async def _serve(
    app: ASGIFramework,
    path: Path,
    logger: logging.Logger,
    exhaustion: Exhaustion,
    *,
    task_status: trio.TaskStatus[tuple[str, ...]],
) -> None:
    await listeners.serve(
        app,
        HttpConfig(bind=(UnixBind(path),), max_connections=MAX_CONNECTIONS),
        stop_accepting=trio.Event(),
        all_in=trio.Event(),
        logger=logger,
        exhaustion=exhaustion,
        task_status=task_status,
    )
