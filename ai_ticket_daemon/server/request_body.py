"""The body of one request, put together as it arrives and bounded in size and time."""

from __future__ import annotations

import trio

from ai_ticket_daemon.errors import ErrorCode, RequestRefused


class RequestBody:
    """What a client sends.

    Args:
        max_bytes: how long it may be.
        setting: the key of the conf file that says so.
        announced_bytes: how long it is to be, as far as the client told.
    """

    def __init__(self, max_bytes: int, setting: str, announced_bytes: int | None) -> None:
        self._max_bytes = max_bytes
        self._setting = setting
        self._announced_bytes = announced_bytes
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
            self._pieces.clear()
        elif not self._is_too_long:
            self._pieces.append(data)
        # The end is told apart from the last piece, and later; the length tells it at once.
        if is_last or self._size_bytes == self._announced_bytes:
            self._is_complete = True
        if self._is_complete or self._is_too_long:
            self._changed.set()

    @property
    def is_awaited(self) -> bool:
        """Whether more has to come before it can be read."""
        return not (self._is_complete or self._is_too_long)

    @property
    def so_far(self) -> bytes:
        """What has come by now; nothing of a body that is too long."""
        return b"".join(self._pieces)

    async def read(self, timeout_seconds: float) -> bytes:
        """Return the whole body.

        Raises:
            RequestRefused: ``payload_too_large``, told as soon as it is known, or
                ``request_timeout``.
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
        if not self._is_complete:
            raise RequestRefused(
                ErrorCode.REQUEST_TIMEOUT,
                f"The body did not arrive within {timeout_seconds:g} seconds; send it faster.",
                details={"timeout_seconds": timeout_seconds},
            )
        return b"".join(self._pieces)
