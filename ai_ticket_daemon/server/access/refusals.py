"""Which clients are refused most: for an operator who looks, never a label of a metric."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ai_ticket_daemon.status.snapshot import RefusedClient

MOST_CLIENTS = 256
"""How many are remembered. For one more, the one that was refused least makes room, and the new one
takes over its number, so that whoever is refused often is never missing (Metwally, 2005)."""
TOLD_CLIENTS = 10


@dataclass(slots=True)
class _Refused:
    client: str
    number: int
    error: str
    last_at: float


class Refusals:
    """Counts what each client was refused: a token, a scope, or a place within the limit."""

    def __init__(self) -> None:
        self._by_client: dict[str, _Refused] = {}

    def note(self, client: str, error: str, now: float) -> None:
        """Note that ``client`` was refused with the code ``error``."""
        known = self._by_client.get(client)
        if known is None:
            number = 0
            if len(self._by_client) >= MOST_CLIENTS:
                least = min(self._by_client.values(), key=lambda refused: refused.number)
                number = least.number
                del self._by_client[least.client]
            known = self._by_client[client] = _Refused(client, number, error, now)
        known.number += 1
        known.error, known.last_at = error, now

    def most(self) -> list[RefusedClient]:
        """Return those that were refused most."""
        found = sorted(self._by_client.values(), key=lambda refused: -refused.number)
        return [RefusedClient(**asdict(refused)) for refused in found[:TOLD_CLIENTS]]
