"""What became of the events of a drill: is any of them lost, or done twice? No I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ai_ticket_daemon.ctl.load.traffic import Sent


@dataclass(frozen=True, slots=True)
class Ledger:
    """The count.

    ``lost``: no final answer, neither at first nor when the event was sent again under its key.
    ``failed``: ended with this error. ``doubled``: completed more than once, or one key stands for
    two events, or two keys for one. ``not_sent``: too many were under way; ``events`` are the rest.
    """

    events: int
    not_sent: int
    moved: int
    lost: tuple[str, ...]
    failed: Mapping[str, int]
    doubled: tuple[str, ...]

    @property
    def clean(self) -> bool:
        """Whether each event has one completion."""
        return not (self.lost or self.failed or self.doubled)


def account(
    sent: Sequence[Sent], again: Sequence[Sent], known: Mapping[str, Mapping[str, Any]]
) -> Ledger:
    """Count what became of each event.

    Args:
        sent: what came back when the events were sent, each under a key of its own.
        again: what came back when they were sent once more under these keys.
        known: what the store knows of the events by then, by their ids.
    """
    final = {one.key: one for one in again if one.event_id is not None}
    owners = Counter(one.event_id for one in final.values())
    keyed = [one for one in sent if one.key is not None]
    lost, failed, doubled, moved = [], Counter[str](), [], 0
    for one in keyed:
        last = final.get(one.key)
        if last is None or last.event_id is None or last.event_id not in known:
            lost.append(one.event_id or str(one.key))
            continue
        event = known[last.event_id]
        completions = sum(attempt["error"] is None for attempt in event["attempts"])
        moved += len({attempt["backend"] for attempt in event["attempts"]}) > 1
        if event["state"] in {"queued", "running"}:
            lost.append(last.event_id)
        elif one.error is not None or last.error is not None:
            failed[one.error or str(last.error)] += 1
        elif (
            completions != 1
            or owners[last.event_id] > 1
            or (one.event_id, one.backend) != (last.event_id, last.backend)
        ):
            doubled.append(last.event_id)
    return Ledger(
        len(keyed), len(sent) - len(keyed), moved, tuple(lost), dict(failed), tuple(doubled)
    )
