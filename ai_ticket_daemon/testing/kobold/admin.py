"""Unloading and reloading the model: asked for by an administrator, or after idle time."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import trio

from .newer_endpoints import LIST_OPTIONS
from .wire import json_answer

if TYPE_CHECKING:
    from .process import ServerProcess
    from .wire import Request

__all__ = ["is_reload", "reload_as_asked", "unload_when_idle"]

_PATH = "/api/admin/reload_config"
_UNLOAD = "unload_model"


def is_reload(process: ServerProcess, request: Request) -> bool:
    """Whether a POST asks for another model."""
    return process.settings.newer and request.path.endswith(_PATH)


def reload_as_asked(process: ServerProcess, body: bytes) -> bytes:
    """Begin to load what is asked for, if an administrator may and there is such a thing."""
    try:
        name = json.loads(body).get("filename")
    except (ValueError, AttributeError):
        name = None
    known = process.settings.admin and name in LIST_OPTIONS
    if known:
        process.reload_at = trio.current_time() + process.settings.reload_after_seconds
        process.reload_with_model = name != _UNLOAD
        process.observations.changed()
    return json_answer({"success": known})


async def unload_when_idle(process: ServerProcess) -> None:
    """Carry out what was asked for when it is due, and unload what was idle for long."""
    idle_for = process.settings.unload_after_seconds
    if idle_for is None and not process.settings.admin:
        return
    while True:
        idle_at = math.inf
        if idle_for is not None and process.has_model:
            # Counted from the start of the last request: a longer one is cut.
            idle_at = process.last_request_at + idle_for
        due = min(process.reload_at, idle_at)
        if trio.current_time() >= due:
            process.reload_at = math.inf
            model = process.reload_with_model if due < idle_at else False
            (process.faults.reload if model else process.faults.unload)()
        with trio.move_on_at(due):
            await process.observations.next_change()
