"""What an operator can ask for about the conf file: what a reload would do, and to reload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.control.arguments import Nothing
from ai_ticket_daemon.control.operation import Access, Answer, Operation

if TYPE_CHECKING:
    from ai_ticket_daemon.reloader import Reloader


class ReloadOperations:
    """Carries out what is asked about the conf file."""

    def __init__(self, reloader: Reloader) -> None:
        self._reloader = reloader

    def operations(self) -> tuple[Operation, ...]:
        """Return what can be asked for."""
        return (
            Operation("reload-plan", Access.LOOK, Nothing, self._reload_plan),
            Operation("reload", Access.ACT, Nothing, self._reload),
        )

    async def _reload_plan(self, _: Nothing) -> dict[str, Any]:
        plan = self._reloader.plan()
        return {
            "valid": not plan.problems,
            "problems": list(plan.problems),
            "live": [str(change) for change in plan.changes if change.live],
            "needs_restart": [str(change) for change in plan.changes if not change.live],
            "warnings": list(plan.warnings),
        }

    async def _reload(self, _: Nothing) -> object:
        plan = await self._reload_plan(_)
        self._reloader.reload()
        problems = list(self._reloader.problems)
        told = plan | {"applied": not problems, "problems": problems}
        return Answer(told, "refused" if problems else "done")
