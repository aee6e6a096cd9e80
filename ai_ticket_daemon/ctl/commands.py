"""The commands that ask one thing of the daemon and show the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.ctl.session import EXIT_OK, EXIT_REFUSED

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from ai_ticket_daemon.ctl.session import Session

PAGE = 500


def status(session: Session) -> int:
    """Show how the daemon does."""
    session.say(session.client.look("status"), "status")
    return EXIT_OK


def backends(session: Session) -> int:
    """Show the servers."""
    session.say(session.client.look("backends"), "serving")
    return EXIT_OK


def events(session: Session) -> int:
    """List events, page by page until there are as many as were asked for."""
    options = session.options
    found: list[Any] = []
    below: int | None = None
    while len(found) < options.limit:
        limit = min(PAGE, options.limit - len(found))
        page = session.client.look("events", **wanted(options), below=below, limit=limit)
        found += page["events"]
        below = page["below"]
        if below is None:
            break
    session.say(found, "events")
    return EXIT_OK


def event(session: Session) -> int:
    """Show what is known of one event."""
    session.say(session.client.look("event", event_id=session.options.event))
    return EXIT_OK


def why(session: Session) -> int:
    """Tell the life of one event."""
    session.say(session.client.look("why", event_id=session.options.event), "why")
    return EXIT_OK


def audit(session: Session) -> int:
    """Recount the store; exit code 1 if anything is wrong with it."""
    answer = session.client.look("audit")
    session.say(answer)
    return EXIT_REFUSED if answer["problems"] or answer["difference"] else EXIT_OK


def check_config(session: Session) -> int:
    """Check the conf file; exit code 1 if it has mistakes."""
    answer = session.client.look("reload-plan")
    session.say({key: answer[key] for key in ("valid", "problems", "warnings")})
    return EXIT_OK if answer["valid"] else EXIT_REFUSED


def reload(session: Session) -> int:
    """Reload, or only say what would change; exit code 1 if the conf file has mistakes."""
    if session.options.plan:
        answer = session.client.look("reload-plan")
        session.say(answer)
        return EXIT_OK if answer["valid"] else EXIT_REFUSED
    answer = session.client.change("reload")
    session.say(answer)
    return EXIT_OK if answer["applied"] else EXIT_REFUSED


def change(session: Session) -> int:
    """Order the change that the command is named for, with the arguments that it has."""
    options = session.options
    arguments = {name: getattr(options, name) for name in options.arguments}
    session.say(session.client.change(options.operation, **arguments))
    return EXIT_OK


def wanted(options: argparse.Namespace) -> Mapping[str, object]:
    """Return the filter that was given, in the words of the control socket."""
    return {
        "state": options.state or None,
        "error": options.error,
        "token": options.token,
        "older_than": options.older_than,
        "newer_than": options.newer_than,
    }
