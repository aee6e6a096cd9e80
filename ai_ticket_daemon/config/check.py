"""What is allowed but deserves a word at the start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.config.open_sockets import difference, in_force

if TYPE_CHECKING:
    from ai_ticket_daemon.config.open_sockets import HandedOver
    from ai_ticket_daemon.config.tree import Config


def warnings(config: Config, handed_over: HandedOver | None = None) -> list[str]:
    """Return a sentence for each setting that is valid and may still surprise.

    Args:
        config: the configuration.
        handed_over: the sockets that a socket unit holds in place of ``http.bind``.
    """
    found = []
    not_in_force = difference(config.http.bind, handed_over)
    if not_in_force is not None:
        found.append(not_in_force)
    where = f"systemctl edit {handed_over.by}" if handed_over else "http.bind"
    reachable = [str(bind) for bind in in_force(config.http.bind, handed_over) if not bind.is_local]
    tokens = config.auth.tokens
    if tokens is None:
        found += [
            f"{address} can be reached from other hosts and no access token is asked for; listen "
            f"on 127.0.0.1 ({where}), ask for tokens (auth.tokens_file), or let a proxy or "
            "firewall decide who gets through"
            for address in reachable
        ]
    elif tokens.is_exposed:
        found.append(f"auth.tokens_file: everybody on this host can read {tokens.path}; chmod o-r")
    if tokens is not None and config.http.tls_cert is None:
        found += [
            f"{address} can be reached from other hosts, and access tokens and events travel "
            f"unencrypted; set http.tls_cert and http.tls_key, or listen on 127.0.0.1 ({where}) "
            "behind a proxy that speaks TLS"
            for address in reachable
        ]
    found += _too_small(config)
    if config.store.path is None:
        found.append("store.url: events are kept in memory and are lost at a restart")
    return found


def _too_small(config: Config) -> list[str]:
    """Return the limits of one request that the memory for all of them cannot hold."""
    room = config.http.max_memory_bytes
    largest = {
        "http.max_body_bytes": config.http.max_body_bytes,
        "events.max_batch_bytes": config.events.max_batch_bytes,
    }
    return [
        f"http.max_memory_bytes: {room} bytes cannot hold a request of the {size} bytes that {key} "
        "allows, and its event: such a request is always answered 503; raise it, or lower the other"
        for key, size in largest.items()
        if room < 2 * size
    ]
