"""What a connection lets the requests on it ask of it, by way of ASGI's state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

PLACE = "place"
"""Wait for a place among all connections; what probes ask for is served without one."""

INVITE = "invite"
"""Ask the client for its body, if it waits for that (``Expect: 100-continue``).

Called once a handler wants the body, so that nobody is asked for what will be refused.
"""


async def ask(scope: Mapping[str, Any], what: str) -> None:
    """Ask the connection below a request for something; no connection of ours grants all."""
    do = (scope.get("state") or {}).get(what)
    if do is not None:
        await do()
