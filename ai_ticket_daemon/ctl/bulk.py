"""``ai-ticketctl events retry|cancel|purge``: one event, or all that a filter finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.ctl.commands import PAGE, wanted
from ai_ticket_daemon.ctl.session import EXIT_OK, EXIT_REFUSED, EXIT_USAGE

if TYPE_CHECKING:
    from ai_ticket_daemon.ctl.session import Session


def retry(session: Session) -> int:
    """Queue failed events again."""
    return act(session, "retry")


def cancel(session: Session) -> int:
    """End queued and running events."""
    return act(session, "cancel")


def purge(session: Session) -> int:
    """Forget events that have ended."""
    return act(session, "purge")


def act(session: Session, action: str) -> int:
    """Act on one event; or count what the filter finds, and with ``--yes`` act on it."""
    options = session.options
    asked: dict[str, Any] = {k: v for k, v in wanted(options).items() if v is not None}
    if options.event is not None:
        if asked:
            session.tell("ai-ticketctl: name an event or give a filter, not both")
            return EXIT_USAGE
        if action == "purge":
            session.tell("ai-ticketctl: purge takes a filter; one event ends by itself")
            return EXIT_USAGE
        session.say(session.client.change(action, event_id=options.event))
        return EXIT_OK
    if not asked:
        session.tell(
            "ai-ticketctl: name an event, or say which ones: --state, --error, --older-than"
        )
        return EXIT_USAGE
    found = changed = 0
    below: int | None = None
    first: list[str] = []
    while True:
        page = session.client.change(
            "bulk", action=action, apply=options.yes, below=below, limit=PAGE, **asked
        )
        found += len(page["event_ids"])
        changed += page["changed"]
        first = first or page["event_ids"][:10]
        below = page["below"]
        if below is None:
            break
    session.say({"action": action, "found": found, "changed": changed, "such_as": first})
    if not options.yes:
        session.tell("Nothing was changed. Add --yes to do it.")
        return EXIT_OK
    return EXIT_OK if changed == found else EXIT_REFUSED
