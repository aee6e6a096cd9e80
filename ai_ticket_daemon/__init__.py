"""ai-ticket-daemon: an event in, a completion or a precise error out, in front of KoboldCPP.

Start reading at :mod:`ai_ticket_daemon.app`; ``docs/architecture.md`` holds the walk of one event.
"""

from __future__ import annotations

__version__ = "0.1.0"
