"""The audit log: tells journald of each change that is asked for, so that it can tell who asks.

In the unit's user namespace the daemon sees every operator but root as the same user. journald adds
the user of whoever writes to it by itself (``_UID``, systemd.journal-fields(7)), and nobody can
write as somebody else.
"""

from __future__ import annotations

import json
import socket
from contextlib import suppress

from ai_ticket_daemon.telemetry.logs.journald import SOCKET_PATH, encode


def asked(operation: str, arguments: dict[str, object], *, journal: str = SOCKET_PATH) -> None:
    """Write that this process asks for a change; where no journald listens, nothing is written.

    Args:
        operation: what is asked for.
        arguments: with what.
        journal: where journald listens.
    """
    told = json.dumps(arguments)
    line = {
        "MESSAGE": f"control_asked operation={operation} arguments={told}",
        "PRIORITY": "5",
        "SYSLOG_IDENTIFIER": "ai-ticketctl",
        "AI_TICKET_LOG": "control_asked",
        "AI_TICKET_OPERATION": operation,
        "AI_TICKET_ARGUMENTS": told,
    }
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journald:
        journald.sendto(encode(line), socket.MSG_DONTWAIT, journal)
