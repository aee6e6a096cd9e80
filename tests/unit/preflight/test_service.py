from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.open_sockets import HandedOver
from ai_ticket_daemon.config.values.addresses import parse_bind
from ai_ticket_daemon.preflight.service import Instance, ask_systemd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SERVICE = {
    "LoadState": "loaded",
    "User": "ai-ticket",
    "MainPID": "42",
    "Environment": 'PORT=8080 "LOG_LEVEL=debug"',
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "StateDirectory": "ai-ticket",
    "ReadWritePaths": "/srv/events",
}
SOCKET = {"LoadState": "loaded", "ActiveState": "active", "Listen": "127.0.0.1:5000 (Stream)"}


def systemd(
    service: Mapping[str, str], socket: Mapping[str, str]
) -> Callable[[str], Mapping[str, str]]:
    return lambda unit: service if unit == "ai-ticket.service" else socket


def handed_over(**changes: str) -> HandedOver | None:
    service = ask_systemd(systemd(SERVICE, {**SOCKET, **changes}))
    assert service is not None
    return service.handed_over


def test_a_host_without_the_service_has_none() -> None:
    assert ask_systemd(lambda _: {}) is None
    assert ask_systemd(systemd({"LoadState": "not-found"}, {})) is None


def test_what_the_unit_says_is_known() -> None:
    service = ask_systemd(systemd(SERVICE, SOCKET))

    assert service is not None
    assert (service.user, service.main_pid, service.hides_homes) == ("ai-ticket", 42, True)
    assert service.environment == {"PORT": "8080", "LOG_LEVEL": "debug"}
    assert service.writable == (Path("/srv/events"), Path("/var/lib/ai-ticket"))


def test_the_addresses_of_the_socket_unit_are_known() -> None:
    found = handed_over(Listen="0.0.0.0:80 (Stream)\n/run/x (Stream)\n[::]:81 (Stream)")

    expected = ("0.0.0.0:80", "unix:/run/x", "[::]:81", "0.0.0.0:81")
    assert found == HandedOver(tuple(map(parse_bind, expected)))


def test_a_socket_unit_that_is_not_used_holds_nothing() -> None:
    assert handed_over(ActiveState="inactive") is None
    assert handed_over(LoadState="masked") is None
    assert handed_over(ActiveState="inactive", UnitFileState="enabled") is not None


def test_instances_that_run_or_start_with_the_host_are_known() -> None:
    running = SERVICE | {"MainPID": "43", "Environment": "OTEL_PROMETHEUS_PORT=9471"}
    enabled = running | {"MainPID": "0", "UnitFileState": "enabled"}
    neither = enabled | {"UnitFileState": "disabled"}
    units = {"ai-ticket.service": SERVICE, "ai-ticket.socket": SOCKET}
    units |= {"ai-ticket@1.service": running, "ai-ticket@3.service": enabled}

    service = ask_systemd(lambda unit: units.get(unit, neither))

    assert service is not None
    assert service.instances == (
        Instance("ai-ticket@1.service", 43, 9471),
        Instance("ai-ticket@3.service", 0, 9471),
    )
    assert service.running == ("ai-ticket.service", "ai-ticket@1.service")
