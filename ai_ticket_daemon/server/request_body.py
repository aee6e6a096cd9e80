"""The body of one request, put together as it arrives and bounded in size and time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.errors import ErrorCode, RequestRefused

if TYPE_CHECKING:
    from ai_ticket_daemon.host.memory_budget import MemoryShare

_PIECE_BYTES = 64
"""What a piece takes besides its bytes; a client may send them one by one."""


class RequestBody:
    """What a client sends.

    Args:
        max_bytes: how long it may be.
        setting: the key of the conf file that says so.
        announced_bytes: how long it is to be, as far as the client told.
        memory: what the request holds of the memory for all of them.
    """

    def __init__(
        self, max_bytes: int, setting: str, announced_bytes: int | None, memory: MemoryShare
    ) -> None:
        self._max_bytes = max_bytes
        self._setting = setting
        self._announced_bytes = announced_bytes
        self._memory = memory
        self._has_room = True
        self._is_wanted = True
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self._is_complete = False
        self._is_too_long = announced_bytes is not None and announced_bytes > max_bytes
        self._changed = trio.Event()

    def add(self, data: bytes, *, is_last: bool) -> None:
        """Take the next piece; what comes beyond the limit is dropped."""
        self._size_bytes += len(data)
        if self._size_bytes > self._max_bytes:
            self._is_too_long = True
            self.release()
        elif self._is_wanted and self._has_room and not self._is_too_long:
            self._has_room = self._memory.take(len(data) + _PIECE_BYTES)
            if self._has_room:
                self._pieces.append(data)
            else:
                self.release()
        # The end is told apart from the last piece, and later; the length tells it at once.
        if is_last or self._size_bytes == self._announced_bytes:
            self._is_complete = True
        if not self.is_awaited:
            self._changed.set()

    @property
    def is_awaited(self) -> bool:
        """Whether more has to come before it can be read."""
        return self._has_room and not (self._is_complete or self._is_too_long)

    def release(self) -> None:
        """Let go of what has come, and of what may still come: it has been read, or will not be."""
        self._is_wanted = False
        self._pieces.clear()
        self._memory.release()

    @property
    def so_far(self) -> bytes:
        """What has come by now; nothing of a body that is too long."""
        return b"".join(self._pieces)

    async def read(self, timeout_seconds: float) -> bytes:
        """Return the whole body.

        Raises:
            RequestRefused: ``payload_too_large``, told as soon as it is known, or
                ``request_timeout``, or ``memory_exhausted``.
        """
        if self.is_awaited:
            with trio.move_on_after(timeout_seconds):
                await self._changed.wait()
        if self._is_too_long:
            raise RequestRefused(
                ErrorCode.PAYLOAD_TOO_LARGE,
                f"The body is longer than the {self._max_bytes} bytes allowed; "
                f"shorten it or raise {self._setting}.",
                details={"max_bytes": self._max_bytes},
            )
        if not self._has_room:
            raise self._memory.exhausted()
        if not self._is_complete:
            raise RequestRefused(
                ErrorCode.REQUEST_TIMEOUT,
                f"The body did not arrive within {timeout_seconds:g} seconds; send it faster.",
                details={"timeout_seconds": timeout_seconds},
            )
        # One copy of it is enough, and the pieces it came in take more than it.
        self._pieces[:] = [b"".join(self._pieces)]
        return self._pieces[0]
