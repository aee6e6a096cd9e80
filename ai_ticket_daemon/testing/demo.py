"""The demo: a primary and a standby, both simulated, a control socket, and what to try."""

from __future__ import annotations

import os
import shlex
import stat
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.config.control import DEFAULT_SOCKET
from ai_ticket_daemon.testing.kobold import VERSIONS, KoboldSettings, open_simulated_kobold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from ai_ticket_daemon.app import Daemon
    from ai_ticket_daemon.config.tree import Config

_LONGEST_SOCKET_PATH_BYTES = 107
_SOCKET = "control.sock"
_HEADERS = "-H 'content-type: application/json'"
_TICKET = """-d '{"content": "My password has expired. What do I do?", "max_tokens": 64}'"""


async def run_demo(config: Config, make: Callable[[Config], Daemon]) -> None:
    """Run a daemon on two simulated servers, and print what to try once it serves.

    Args:
        config: what the demo is to change.
        make: returns the daemon for a configuration.
    """
    async with open_demo(config) as changed, trio.open_nursery() as nursery:
        addresses = await nursery.start(make(changed).run)
        print(invitation(addresses, changed), file=sys.stderr, flush=True)


@asynccontextmanager
async def open_demo(config: Config) -> AsyncIterator[Config]:
    """Run two simulated KoboldCPP servers for the length of a block.

    Returns ``config`` with the addresses of its servers, in order, replaced by theirs. The control
    socket is in a private directory, unless ``config`` has it elsewhere or not at all: the default
    one is the service's.
    """
    async with AsyncExitStack() as stack:
        servers = []
        for server in config.backends.servers:
            simulated = await stack.enter_async_context(
                open_simulated_kobold(KoboldSettings(version=VERSIONS[-1]))
            )
            servers.append(replace(server, url=simulated.url))
        config = replace(config, backends=replace(config.backends, servers=tuple(servers)))
        if config.control.socket == DEFAULT_SOCKET:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(
                    prefix="ai-ticket-demo-",
                    dir=socket_parent(os.environ),
                    ignore_cleanup_errors=True,
                )
            )
            socket = Path(folder, _SOCKET)
            config = replace(
                config, control=replace(config.control, socket=socket, view_socket=None)
            )
        yield config


def socket_parent(environ: Mapping[str, str]) -> Path | None:
    """Return where the directory of the control socket belongs; None: with temporary files.

    That is the user's own runtime directory, if it can be used and the path is not too long.
    """
    path = Path(environ.get("XDG_RUNTIME_DIR", ""))
    if not path.is_absolute():
        return None
    longest = path / "ai-ticket-demo-12345678" / _SOCKET
    if len(os.fsencode(longest)) > _LONGEST_SOCKET_PATH_BYTES:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return path if is_own and os.access(path, os.W_OK | os.X_OK) else None


def invitation(addresses: Iterable[str], config: Config) -> str:
    """Return what to try from a second terminal.

    Args:
        addresses: where the daemon listens, as it logs them.
        config: the configuration of the demo.
    """
    lines = ["", "This demo runs until Ctrl-C. From a second terminal:", ""]
    lines += [
        f"  {_curl(address, encrypted=config.http.tls_cert is not None)}" for address in addresses
    ][:1]
    if config.control.socket is not None:
        socket = shlex.quote(str(config.control.socket))
        lines.append(f"  ai-ticketctl --socket {socket} status")
    return "\n".join([*lines, ""])


def _curl(address: str, *, encrypted: bool) -> str:
    path = address.removeprefix("unix:")
    if path != address:
        return (
            f"curl -s --unix-socket {shlex.quote(path)} http://localhost/event {_HEADERS} {_TICKET}"
        )
    host, _, port = address.rpartition(":")
    # Nobody connects to an address that stands for all of them.
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
    command = f"curl -sk https://{host}:{port}" if encrypted else f"curl -s http://{host}:{port}"
    return f"{command}/event {_HEADERS} {_TICKET}"
