"""Having a server load its model: on an operator's order, or a standby's ahead of need."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.backends import BackendRole

if TYPE_CHECKING:
    from ai_ticket_daemon.config.backends import BackendsConfig
    from ai_ticket_daemon.pool.health import Health

AGAIN_SECONDS = 60.0
"""Between two tries to have a standby loaded that cannot be."""


@dataclass(slots=True)
class Waking:
    """Who has a server load its model, and when.

    ``ordered``: an operator wants it. ``running``: it is being done. Before ``again_at`` (seconds,
    monotonic) it is not done ahead of need.
    """

    ordered: bool = False
    running: bool = False
    again_at: float = -math.inf


def wake_due(
    waking: Waking,
    health: Health,
    role: BackendRole,
    *,
    asked: bool,
    rules: BackendsConfig,
    now: float,
) -> bool:
    """Whether a server is to be made to load its model now.

    Not one that has it, since to load anew would end what it generates; not one for which that is
    done already, or by a request that it was ``asked``.
    """
    if waking.running or health.has_model or (health.loads_on_request and asked):
        return False
    ahead_of_need = (
        rules.keep_standby_loaded
        and role is BackendRole.STANDBY
        and (health.loads_on_request or health.loads_on_order)
        and now >= waking.again_at
    )
    return waking.ordered or ahead_of_need
