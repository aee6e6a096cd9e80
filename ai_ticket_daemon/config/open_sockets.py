"""Which sockets are really open, and whether they are the ones that ``http.bind`` names.

Sockets that a socket unit hands over are served in place of ``http.bind``. What counts for who can
connect is therefore what these are bound to, not what the conf file says.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.values.addresses import FdBind, TcpBind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ai_ticket_daemon.config.values.addresses import Bind

SOCKET_UNIT = "ai-ticket.socket"
_LOCALHOST = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class HandedOver:
    """Sockets that were handed over.

    Args:
        binds: what they are bound to.
        by: the socket unit that holds them.
    """

    binds: tuple[Bind, ...]
    by: str = SOCKET_UNIT

    def __str__(self) -> str:
        return ", ".join(map(str, self.binds))


def in_force(wanted: Sequence[Bind], handed_over: HandedOver | None) -> tuple[Bind, ...]:
    """Return what is served: ``http.bind``, or what was handed over in place of it."""
    if handed_over is None:
        return tuple(wanted)
    own = [bind for bind in wanted if not isinstance(bind, FdBind)]
    return (*handed_over.binds, *(own if len(own) < len(wanted) else ()))


def difference(wanted: Sequence[Bind], handed_over: HandedOver | None) -> str | None:
    """Return what keeps ``http.bind`` from being in force; None if nothing does."""
    if handed_over is None or any(isinstance(bind, FdBind) for bind in wanted):
        return None
    if _expanded(wanted) == _expanded(handed_over.binds):
        return None
    return (
        f"http.bind is not in force: {handed_over.by} holds {handed_over} "
        f"(systemctl edit {handed_over.by})"
    )


def _expanded(binds: Iterable[Bind]) -> set[str]:
    found = set()
    for bind in binds:
        if isinstance(bind, TcpBind):
            hosts = _LOCALHOST if bind.host == "localhost" else (bind.host,)
            found |= {str(TcpBind(_canonical(host), bind.port)) for host in hosts}
        else:
            found.add(str(bind))
    return found


def _canonical(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower().rstrip(".")
