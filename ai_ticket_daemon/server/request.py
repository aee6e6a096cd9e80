"""A request whose head has come, and what it may do with the connection it came over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request.

    ``target`` is what is asked for, without the query. ``version`` is ``1.0``, ``1.1`` or ``2``.
    The names of ``headers`` are in lower case. ``peer`` is the address at the other end of the
    connection; None on a Unix socket. ``length`` is that of the body, as far as it is told before.
    """

    method: str
    target: bytes
    query: bytes
    version: str
    headers: Sequence[tuple[bytes, bytes]]
    peer: str | None
    length: int | None


class ClientSide(Protocol):
    """The connection of a request, as far as the request may use it."""

    async def place(self) -> None:
        """Wait for a place among all connections; what probes ask for is served without one.

        Raises:
            RequestRefused: there will be none.
        """

    async def invite(self) -> None:
        """Ask the client for its body, if it waits for that (``Expect: 100-continue``).

        Called once a handler wants the body, so that nobody is asked for what will be refused.
        """

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Begin the response; its head goes out with the first piece of the body."""

    async def send(self, data: bytes, *, is_last: bool) -> None:
        """Send a piece of the body; returns when it is on its way.

        If the client does not take it in time, or has gone, the request is cancelled.
        """
