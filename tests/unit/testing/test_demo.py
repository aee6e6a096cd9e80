"""What the demo invites to, and where its control socket goes."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.config.http import HttpConfig
from ai_ticket_daemon.config.read.load import load_config
from ai_ticket_daemon.testing.demo import invitation, open_demo, socket_parent

if TYPE_CHECKING:
    from pathlib import Path

    from ai_ticket_daemon.config.tree import Config

SERVERS = [
    {"name": role, "url": f"http://127.0.0.1:{port}", "role": role}
    for port, role in enumerate(("primary", "standby"), start=1)
]


def config(**overrides: object) -> Config:
    return load_config(None, {}, {"backends.server": SERVERS, **overrides})


@pytest.mark.parametrize(
    ("address", "begins"),
    [
        ("127.0.0.1:5000", ["curl", "-s", "http://127.0.0.1:5000/event"]),
        ("0.0.0.0:80", ["curl", "-s", "http://127.0.0.1:80/event"]),
        ("[::]:5000", ["curl", "-s", "http://[::1]:5000/event"]),
        ("unix:/a b/s", ["curl", "-s", "--unix-socket", "/a b/s", "http://localhost/event"]),
    ],
)
def test_the_curl_line_reaches_each_kind_of_address(address: str, begins: list[str]) -> None:
    [line] = [line for line in invitation([address], config()).splitlines() if "curl" in line]

    assert shlex.split(line)[: len(begins)] == begins


def test_the_curl_line_speaks_tls_where_the_daemon_does(tmp_path: Path) -> None:
    http = HttpConfig(tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")

    told = invitation(["127.0.0.1:5000"], replace(config(), http=http))
    assert "curl -sk https://127.0.0.1:5000/event" in told


async def test_the_service_keeps_its_control_socket(tmp_path: Path) -> None:
    async with open_demo(config()) as changed:
        socket = changed.control.socket
        assert socket is not None
        assert socket.parent.stat().st_mode & 0o777 == 0o700
        told = invitation([], changed)
        assert f"ai-ticketctl --socket {socket} status" in told
    assert not socket.parent.exists()


async def test_a_socket_that_the_conf_file_names_or_denies_is_left_as_it_is(tmp_path: Path) -> None:
    named = tmp_path / "control.sock"
    async with open_demo(config(**{"control.socket": str(named)})) as changed:
        assert changed.control.socket == named
    async with open_demo(config(**{"control.socket": ""})) as changed:
        assert changed.control.socket is None
        assert "ai-ticketctl" not in invitation([], changed)


def test_the_directory_of_the_user_is_used_only_if_it_can_be(tmp_path: Path) -> None:
    assert socket_parent({}) is None
    assert socket_parent({"XDG_RUNTIME_DIR": "relative"}) is None
    assert socket_parent({"XDG_RUNTIME_DIR": str(tmp_path / "missing")}) is None
    deep = tmp_path / ("a" * 120)
    deep.mkdir()
    assert socket_parent({"XDG_RUNTIME_DIR": str(deep)}) is None
