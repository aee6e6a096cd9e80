"""A client of a Unix socket in the test's event loop: sends bytes, and waits until all is quiet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
import trio.testing

from tests.support.attacks.fuzzing import HANG_SECONDS

if TYPE_CHECKING:
    from pathlib import Path


async def exchange(path: Path, data: bytes) -> bytes:
    """Send ``data`` over a connection of its own and return all that is answered.

    The server is in this event loop: it has done what it will do when all tasks wait. Then the
    client hangs up, upon which the server has to close the connection.
    """
    answer = b""
    with trio.fail_after(HANG_SECONDS / 2):
        async with await trio.open_unix_socket(str(path)) as stream:
            try:
                await stream.send_all(data)
                await trio.testing.wait_all_tasks_blocked()
                await stream.send_eof()
                while chunk := await stream.receive_some(65_536):
                    answer += chunk
            except trio.BrokenResourceError:
                pass  # it had reason to close before it had read all
    return answer
