"""The tree of running tasks as text: what a debugger would show, without one."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trio


def task_tree(root: trio.lowlevel.Task) -> str:
    """Return one line per task, children indented, each with the place where it waits."""
    return "\n".join(_lines(root, 0))


def _lines(task: trio.lowlevel.Task, depth: int) -> Iterator[str]:
    frames = traceback.StackSummary.extract(task.iter_await_frames(), limit=None)
    # The innermost frames are trio's own; the place an operator can act on is ours.
    ours = [frame for frame in frames if "ai_ticket_daemon" in frame.filename]
    place = f"{ours[-1].filename}:{ours[-1].lineno} in {ours[-1].name}" if ours else "-"
    yield f"{'  ' * depth}{task.name} at {place}"
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _lines(child, depth + 1)
