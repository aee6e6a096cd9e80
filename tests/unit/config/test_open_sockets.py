"""What is said of the address is said of the sockets that are really open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.config.check import warnings
from ai_ticket_daemon.config.open_sockets import HandedOver, difference
from ai_ticket_daemon.config.read.load import load_config
from ai_ticket_daemon.config.values.addresses import parse_bind

if TYPE_CHECKING:
    from pathlib import Path

    from ai_ticket_daemon.config.tree import Config


def handed_over(*binds: str) -> HandedOver:
    return HandedOver(tuple(map(parse_bind, binds)))


def conf(tmp_path: Path, bind: list[str] | None = None, *, tokens: bool = False) -> Config:
    overrides: dict[str, object] = {} if bind is None else {"http.bind": bind}
    if tokens:
        path = tmp_path / "tokens"
        path.write_text("alice:0123456789abcdef0123456789abcdef\n")
        path.chmod(0o600)
        overrides["auth.tokens_file"] = str(path)
    return load_config(None, {"KOBOLDCPP_API_URL": "http://127.0.0.1:5001"}, overrides)


def test_a_bind_that_a_socket_unit_overrules_is_named_with_what_is_open(tmp_path: Path) -> None:
    config = conf(tmp_path, ["127.0.0.1:5000"])

    first, second = warnings(config, handed_over("0.0.0.0:5000"))

    assert first == (
        "http.bind is not in force: ai-ticket.socket holds 0.0.0.0:5000 "
        "(systemctl edit ai-ticket.socket)"
    )
    assert second.startswith("0.0.0.0:5000 can be reached from other hosts and no access token")
    assert "systemctl edit ai-ticket.socket" in second


def test_a_socket_unit_that_is_narrower_than_the_file_is_not_called_open(tmp_path: Path) -> None:
    [only] = warnings(conf(tmp_path, ["0.0.0.0:5000"]), handed_over("127.0.0.1:5000"))

    assert only.startswith("http.bind is not in force: ai-ticket.socket holds 127.0.0.1:5000")


def test_with_tokens_an_open_socket_without_encryption_deserves_a_word(tmp_path: Path) -> None:
    [only] = warnings(conf(tmp_path, ["0.0.0.0:5000"], tokens=True), None)

    assert only.startswith("0.0.0.0:5000 can be reached from other hosts, and access tokens")
    assert warnings(conf(tmp_path, tokens=True), handed_over("127.0.0.1:5000")) == []


@pytest.mark.parametrize(
    ("wanted", "held"),
    [
        (["127.0.0.1:5000"], ["127.0.0.1:5000"]),
        (["localhost:5000"], ["127.0.0.1:5000", "[::1]:5000"]),
        (["[0:0:0:0:0:0:0:1]:80"], ["[::1]:80"]),
        (["unix:/run/x", "127.0.0.1:1"], ["127.0.0.1:1", "unix:/run/x"]),
        (["fd://3"], ["0.0.0.0:5000"]),
    ],
)
def test_a_bind_that_says_what_is_held_is_in_force(wanted: list[str], held: list[str]) -> None:
    assert difference(tuple(map(parse_bind, wanted)), handed_over(*held)) is None


@pytest.mark.parametrize(
    ("wanted", "held"),
    [
        (["127.0.0.1:5000"], ["127.0.0.1:5001"]),
        (["127.0.0.1:5000"], ["127.0.0.1:5000", "0.0.0.0:5000"]),
        (["0.0.0.0:5000"], ["[::]:5000", "0.0.0.0:5000"]),
        (["unix:/run/x"], ["unix:/run/y"]),
    ],
)
def test_any_other_is_not(wanted: list[str], held: list[str]) -> None:
    told = difference(tuple(map(parse_bind, wanted)), handed_over(*held))

    assert told is not None
    assert ", ".join(held) in told


def test_a_descriptor_beside_an_address_leaves_both_in_force(tmp_path: Path) -> None:
    config = conf(tmp_path, ["fd://3", "0.0.0.0:80"])

    [only] = warnings(config, handed_over("127.0.0.1:5000"))

    assert only.startswith("0.0.0.0:80 can be reached")
