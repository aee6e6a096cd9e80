"""The commands that need much: the modules of each are imported when it is run, and not before.

What is asked most, such as ``ai-ticketctl status --json``, starts sooner so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_ticket_daemon.ctl.session import Session

# ruff: noqa: PLC0415 - that is what this module is for


def top(session: Session) -> int:
    """Show live how the daemon does."""
    from ai_ticket_daemon.ctl.top import top

    return top(session)


def bundle(session: Session) -> int:
    """Write a support archive."""
    from ai_ticket_daemon.ctl.bundle import bundle

    return bundle(session)


def backup(session: Session) -> int:
    """Copy the store."""
    from ai_ticket_daemon.ctl.restore import backup

    return backup(session)


def restore(session: Session) -> int:
    """Put a backup in place."""
    from ai_ticket_daemon.ctl.restore import restore

    return restore(session)


def submit(session: Session) -> int:
    """Submit events."""
    from ai_ticket_daemon.ctl.submit import submit

    return submit(session)


def wait(session: Session) -> int:
    """Wait for an event."""
    from ai_ticket_daemon.ctl.submit import wait

    return wait(session)


def loadtest(session: Session) -> int:
    """Measure the daemon under load."""
    from ai_ticket_daemon.ctl.load.loadtest import loadtest

    return loadtest(session)


def drill_failover(session: Session) -> int:
    """Rehearse a failover."""
    from ai_ticket_daemon.ctl.load.drill import failover

    return failover(session)
