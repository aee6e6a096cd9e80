"""The tasks of one connection: its requests, each for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from hypercorn.trio.task_group import TaskGroup
from hypercorn.typing import ASGIReceiveEvent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.config import Config
    from hypercorn.typing import AppWrapper, ASGISendEvent, Scope

    Send = Callable[[ASGISendEvent | None], Awaitable[None]]


class RequestTasks(TaskGroup):
    """hypercorn's group of tasks, but for who is told when a request fails.

    Args:
        on_failure: called with what a request raised.
    """

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        super().__init__()
        self._on_failure = on_failure

    async def spawn_app(
        self, app: AppWrapper, config: Config, scope: Scope, send: Send
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        """Start to serve a request; return how it is told what its client does."""
        into, out_of = trio.open_memory_channel[ASGIReceiveEvent](config.max_app_queue_size)

        async def serve() -> None:
            try:
                await app(
                    scope, out_of.receive, send, trio.to_thread.run_sync, trio.from_thread.run
                )
            except Exception as error:  # noqa: BLE001 - the edge of one request: others go on
                self._on_failure(error)
            finally:
                await send(None)

        self.spawn(serve)
        return into.send
