from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.http import HttpConfig
from ai_ticket_daemon.config.values.addresses import FdBind, TcpBind, UnixBind
from ai_ticket_daemon.server.listen.handed_over import look_at, served

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_handed_over_is_named_by_what_it_is_bound_to(tmp_path: Path) -> None:
    path = tmp_path / "http"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind(str(path))
        found = look_at([(tcp.fileno(), "http"), (unix.fileno(), "http")])

        assert found is not None
        assert found.binds == (TcpBind("127.0.0.1", tcp.getsockname()[1]), UnixBind(path))
        assert found.by == "ai-ticket.socket"


def test_a_socket_for_both_protocols_stands_for_two_addresses() -> None:
    with socket.create_server(
        ("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1
    ) as both:
        found = look_at([(both.fileno(), "web")])

        assert found is not None
        port = both.getsockname()[1]
        assert found.binds == (TcpBind("::", port), TcpBind("0.0.0.0", port))
        assert found.by == "the socket unit"


def test_only_the_descriptors_that_the_file_names_are_looked_at() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        listen_fds = [(one.fileno(), "http"), (two.fileno(), "http")]

        found = look_at(listen_fds, (FdBind(two.fileno()),))

        assert found is not None
        assert found.binds == (TcpBind("127.0.0.1", two.getsockname()[1]),)


def test_nothing_handed_over_leaves_the_file_in_force() -> None:
    http = HttpConfig()

    assert look_at([]) is None
    assert served(http, []) is http


def test_what_was_handed_over_is_served_in_place_of_the_addresses_of_the_file() -> None:
    assert served(HttpConfig(), [(3, "http"), (4, "http")]).bind == (FdBind(3), FdBind(4))
    named = HttpConfig(bind=(FdBind(4),))
    assert served(named, [(3, "http"), (4, "http")]) is named
