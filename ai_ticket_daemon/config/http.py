"""``[http]``: where requests come in, and how large and slow they may be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ai_ticket_daemon.config.values.addresses import Bind, TcpBind, bind
from ai_ticket_daemon.config.values.certificate import CertificateUnusable, check_pair
from ai_ticket_daemon.config.values.rules import (
    boolean,
    integer,
    list_of,
    network,
    optional,
    readable_file,
    seconds,
)
from ai_ticket_daemon.config.values.schema import Mistake, setting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ai_ticket_daemon.config.values.rules import IpNetwork

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """Where requests come in, and how large and slow they may be."""

    live: ClassVar[bool] = True
    bind: tuple[Bind, ...] = field(
        default=(TcpBind("127.0.0.1", 5000),),
        metadata=setting(
            list_of(bind, minimum_items=1),
            "Addresses to listen on: `HOST:PORT`, `[IPv6]:PORT`, `unix:/path`, or `fd://N` for a "
            "socket handed over by systemd. As a service, the socket unit decides: "
            "`systemctl edit ai-ticket.socket`.",
            live=False,
        ),
    )
    max_body_bytes: int = field(
        default=_MIB,
        metadata=setting(
            integer(1, 1024 * _MIB, "bytes"),
            "Largest request body; a larger one is answered `413 payload_too_large`.",
        ),
    )
    max_memory_bytes: int = field(
        default=128 * _MIB,
        metadata=setting(
            integer(_MIB, 1024 * 1024 * _MIB, "bytes"),
            "Most memory that the bodies of all requests may take together until their events are "
            "accepted, and what clients leave unread beyond 16 KiB each; what comes beyond that is "
            "answered `503 memory_exhausted`.",
        ),
    )
    header_timeout_seconds: float = field(
        default=10.0,
        metadata=setting(
            seconds(0.1, 3600),
            "Longest time the headers of a request may take to arrive.",
            live=False,
        ),
    )
    body_timeout_seconds: float = field(
        default=30.0,
        metadata=setting(seconds(0.1, 3600), "Longest time a request body may take to arrive."),
    )
    max_connections: int = field(
        default=1000,
        metadata=setting(
            integer(1, 100_000, "connections"), "Most client connections at a time.", live=False
        ),
    )
    max_connections_per_address: int = field(
        default=800,
        metadata=setting(
            integer(0, 100_000, "connections"),
            "Most connections of one client address (of one /64 network of IPv6) at a time; 0 for "
            "no bound of its own. Trusted proxies and Unix sockets have none.",
            live=False,
        ),
    )
    trusted_proxies: tuple[IpNetwork, ...] = field(
        default=(),
        metadata=setting(
            list_of(network),
            "Addresses or networks of proxies whose `X-Forwarded-For` or `Forwarded` header is "
            "believed. Whoever connects over a Unix socket is.",
        ),
    )
    record_client_addresses: bool = field(
        default=True,
        metadata=setting(
            boolean,
            "Whether the address of a client is kept with its events, written on the debug line of "
            "each request, and counted in `ai-ticketctl status` when it is refused. Of IPv6, the "
            "network (/64) stands for the client. It is never a label of a metric.",
        ),
    )
    tls_cert: Path | None = field(
        default=None,
        metadata=setting(
            optional(readable_file),
            "Certificate chain (PEM) to serve HTTPS with, the server's own first; needs `tls_key`. "
            "A renewed file is noticed within seconds.",
        ),
    )
    tls_key: Path | None = field(
        default=None,
        metadata=setting(optional(readable_file), "Private key (PEM) of `tls_cert`."),
    )

    def conflicts(self) -> Iterator[Mistake]:
        """Yield what does not go together."""
        if self.tls_cert is not None and self.tls_key is None:
            yield Mistake(("tls_cert",), "needs `tls_key` beside it", ("tls_key",))
        if self.tls_key is not None and self.tls_cert is None:
            yield Mistake(("tls_key",), "needs `tls_cert` beside it", ("tls_cert",))
        if self.tls_cert is not None and self.tls_key is not None:
            try:
                check_pair(self.tls_cert, self.tls_key)
            except CertificateUnusable as error:
                yield Mistake((error.key,), str(error))
