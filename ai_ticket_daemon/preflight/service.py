"""What systemd knows of the service: asked for with ``systemctl show``."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.open_sockets import SOCKET_UNIT, HandedOver
from ai_ticket_daemon.config.values.addresses import TcpBind, parse_bind
from ai_ticket_daemon.config.values.schema import Invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ai_ticket_daemon.config.values.addresses import Bind

SERVICE_UNIT = "ai-ticket.service"
INSTANCE_UNITS = tuple(f"ai-ticket@{number}.service" for number in range(1, 10))
"""Those whose metrics pages have ports of their own."""
ASK_SECONDS = 5.0
_LISTEN = re.compile(r"(.+) \(Stream\)")


@dataclass(frozen=True, slots=True)
class Instance:
    """A further daemon beside the service, with the same conf file.

    Args:
        unit: its name.
        main_pid: the process that runs; 0 if none does.
        metrics_port: that of its metrics page, if the unit sets one.
    """

    unit: str
    main_pid: int = 0
    metrics_port: int | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """The service as systemd has it.

    Args:
        user: as whom the daemon runs.
        handed_over: the sockets it is given; None if it opens ``http.bind`` by itself.
        environment: the variables that the unit sets.
        main_pid: the process that runs; 0 if none does.
        writable: where it may write.
        hides_homes: whether it sees no home directories.
        instances: further daemons that run, or start with the host.
    """

    user: str
    handed_over: HandedOver | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    main_pid: int = 0
    writable: tuple[Path, ...] = ()
    hides_homes: bool = False
    instances: tuple[Instance, ...] = ()

    @property
    def running(self) -> tuple[str, ...]:
        """The units whose daemons run."""
        own = (SERVICE_UNIT,) if self.main_pid else ()
        return (*own, *(one.unit for one in self.instances if one.main_pid))


def ask_systemd(show: Callable[[str], Mapping[str, str]] | None = None) -> Service | None:
    """Return what systemd has; None where the service is not installed."""
    show = show or _show
    unit = show(SERVICE_UNIT)
    if unit.get("LoadState") != "loaded":
        return None
    writable = [Path(path) for path in shlex.split(unit.get("ReadWritePaths", ""))]
    for key, base in (("State", "/var/lib"), ("Cache", "/var/cache"), ("Runtime", "/run")):
        writable += [Path(base, name) for name in unit.get(f"{key}Directory", "").split()]
    return Service(
        user=unit.get("User") or "root",
        handed_over=_handed_over(show(SOCKET_UNIT)),
        environment=_environment(unit),
        main_pid=int(unit.get("MainPID") or 0),
        writable=tuple(writable) if unit.get("ProtectSystem") == "strict" else (Path("/"),),
        hides_homes=unit.get("ProtectHome") in {"yes", "tmpfs"},
        instances=tuple(_instances(show)),
    )


def _environment(unit: Mapping[str, str]) -> dict[str, str]:
    words = shlex.split(unit.get("Environment", ""))
    return dict(word.split("=", 1) for word in words if "=" in word)


def _instances(show: Callable[[str], Mapping[str, str]]) -> Iterator[Instance]:
    for name in INSTANCE_UNITS:
        unit = show(name)
        if unit.get("LoadState") != "loaded":
            return  # there is no template, and so none of the others
        main_pid = int(unit.get("MainPID") or 0)
        if main_pid or unit.get("UnitFileState") == "enabled":
            port = _environment(unit).get("OTEL_PROMETHEUS_PORT", "")
            yield Instance(name, main_pid, int(port) if port.isdecimal() else None)


def _handed_over(unit: Mapping[str, str]) -> HandedOver | None:
    # A socket that is neither open nor opened at the next boot hands nothing over.
    is_open = unit.get("ActiveState") == "active"
    if unit.get("LoadState") != "loaded" or not (is_open or unit.get("UnitFileState") == "enabled"):
        return None
    binds: list[Bind] = []
    for found in _LISTEN.findall(unit.get("Listen", "")):
        try:
            bind = parse_bind(f"unix:{found}" if found.startswith("/") else found)
        except Invalid:
            continue
        binds.append(bind)
        if (
            isinstance(bind, TcpBind)
            and bind.host == "::"
            and unit.get("BindIPv6Only") != "ipv6-only"
        ):
            binds.append(TcpBind("0.0.0.0", bind.port))  # noqa: S104 - it listens there, too
    return HandedOver(tuple(binds)) if binds else None


def _show(unit: str) -> dict[str, str]:
    """Return the properties of a unit; none where there is no systemd."""
    if not Path("/run/systemd/system").is_dir():
        return {}
    try:
        told = subprocess.run(  # noqa: S603 - the name is one of ours
            ["systemctl", "show", unit],  # noqa: S607 - wherever the host has it
            capture_output=True, text=True, timeout=ASK_SECONDS, check=False,
        ).stdout  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return {}
    found: dict[str, str] = {}
    for line in told.splitlines():
        key, _, value = line.partition("=")
        # A socket unit has a line of its own for each address.
        found[key] = f"{found[key]}\n{value}" if key in found else value
    return found
