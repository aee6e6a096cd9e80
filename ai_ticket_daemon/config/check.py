"""What is allowed but deserves a word at the start."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_ticket_daemon.config.tree import Config


def warnings(config: Config) -> list[str]:
    """Return a sentence for each setting that is valid and may still surprise."""
    found = []
    tokens = config.auth.tokens
    if tokens is None:
        found += [
            f"http.bind: {bind} can be reached from other hosts and no access token is asked for; "
            "bind to 127.0.0.1, or let a proxy or firewall decide who gets through"
            for bind in config.http.bind
            if not bind.is_local
        ]
    elif tokens.is_exposed:
        found.append(f"auth.tokens_file: everybody on this host can read {tokens.path}; chmod o-r")
    if config.store.path is None:
        found.append("store.url: events are kept in memory and are lost at a restart")
    return found
