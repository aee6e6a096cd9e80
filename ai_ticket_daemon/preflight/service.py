"""What systemd knows of the service: asked for with ``systemctl show``."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.addresses import TcpBind, parse_bind
from ai_ticket_daemon.config.open_sockets import SOCKET_UNIT, HandedOver
from ai_ticket_daemon.config.schema import Invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ai_ticket_daemon.config.addresses import Bind

SERVICE_UNIT = "ai-ticket.service"
ASK_SECONDS = 5.0
_LISTEN = re.compile(r"(.+) \(Stream\)")


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
    """

    user: str
    handed_over: HandedOver | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    main_pid: int = 0
    writable: tuple[Path, ...] = ()
    hides_homes: bool = False


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
        environment=dict(
            word.split("=", 1) for word in shlex.split(unit.get("Environment", "")) if "=" in word
        ),
        main_pid=int(unit.get("MainPID") or 0),
        writable=tuple(writable) if unit.get("ProtectSystem") == "strict" else (Path("/"),),
        hides_homes=unit.get("ProtectHome") in {"yes", "tmpfs"},
    )


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
        told = subprocess.run(  # noqa: S603 - the name is one of two of ours
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
