"""Debian's nginx, HAProxy and Caddy as processes of a test, with the recipes of docs/proxies.md."""

from __future__ import annotations

import os
import re
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from tests.support.project import ROOT
from tests.support.system.debian_packages import cannot_run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

PAGE = ROOT / "docs" / "proxies.md"
UNPACKED = ROOT / ".cache" / "proxies"
"""Where ops/bootstrap.sh --with-proxies unpacks them."""
HOST = "ai-ticket.example.org"
CERTIFICATES = "/etc/ssl/ai-ticket"
START_SECONDS = 60

_NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {recipe};
}}
"""
_CADDY = """\
{{
	admin off
	auto_https disable_redirects
	default_bind 127.0.0.1
}}
import {recipe}
"""


@dataclass(frozen=True)
class Kind:
    """One of the proxies.

    Args:
        name: the language of its block in the page.
        program: where it is below the folder of what was unpacked.
        arguments: how it is started; ``{recipe}``, ``{around}`` and ``{folder}`` stand for paths.
        around: what the host's own configuration would be, if the recipe is not a whole one.
        port: how the recipe has the port of HTTPS, and with what that is replaced.
    """

    name: str
    program: str
    arguments: tuple[str, ...]
    around: str
    port: tuple[str, str]


NGINX = Kind(
    "nginx",
    "usr/sbin/nginx",
    ("-c", "{around}", "-p", "{folder}", "-e", "stderr"),
    _NGINX,
    ("listen 443 ", "listen 127.0.0.1:{port} "),
)
HAPROXY = Kind(
    "haproxy",
    "usr/sbin/haproxy",
    ("-db", "-f", "{recipe}"),
    "",
    ("bind :443 ", "bind 127.0.0.1:{port} "),
)
CADDY = Kind(
    "caddy",
    "usr/bin/caddy",
    ("run", "--adapter", "caddyfile", "--config", "{around}"),
    _CADDY,
    (f"{HOST} {{", f"{HOST}:{{port}} {{"),
)
KINDS = (NGINX, HAPROXY, CADDY)


def need_proxy(kind: Kind) -> None:
    """Skip the test, telling why, where the proxy is missing; in CI that is a failure."""
    if not (UNPACKED / kind.program).exists():
        cannot_run(f"needs Debian's {kind.name}: ops/bootstrap.sh --with-proxies")


def recipe(kind: Kind) -> str:
    """Return what the page tells to write for a proxy."""
    [block] = re.findall(
        rf"^```{kind.name}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    return str(block)


@asynccontextmanager
async def running(
    kind: Kind, folder: Path, *, port: int, daemon: str, changes: Mapping[str, str]
) -> AsyncIterator[None]:
    """Run a proxy in front of a daemon for the length of a block.

    Args:
        kind: which one.
        folder: where its files are, among them the certificate.
        port: where it listens.
        daemon: the address of the daemon.
        changes: what to write in place of parts of the recipe.
    """
    text = recipe(kind)
    before, after = kind.port
    replaced = {
        before: after.replace("{port}", str(port)),
        "127.0.0.1:5000": daemon,
        **changes,
        CERTIFICATES: str(folder),
    }
    for old, new in replaced.items():
        assert old in recipe(kind), (kind.name, old)
        text = text.replace(old, new)
    paths = {"folder": folder, "recipe": folder / "recipe", "around": folder / "around"}
    paths["recipe"].write_text(text)
    paths["around"].write_text(kind.around.format(**paths))
    log = (folder / "proxy.log").open("wb")
    process = await trio.lowlevel.open_process(
        [UNPACKED / kind.program, *(word.format(**paths) for word in kind.arguments)],
        stdout=log,
        stderr=log,
        env={
            "LD_LIBRARY_PATH": str(UNPACKED / "usr/lib" / f"{os.uname().machine}-linux-gnu"),
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
        },
    )
    try:
        await _answers(port, process, folder / "proxy.log")
        yield
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            with trio.move_on_after(5):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
        log.close()


async def _answers(port: int, process: trio.Process, log: Path) -> None:
    with trio.fail_after(START_SECONDS):
        while True:
            assert process.poll() is None, await trio.Path(log).read_text()
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.05)
                continue
            await stream.aclose()
            return
