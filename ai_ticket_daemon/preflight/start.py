"""What a start would meet: files, the store, addresses; each with what to do about it."""

from __future__ import annotations

import os
import socket
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

from ai_ticket_daemon.config.check import warnings
from ai_ticket_daemon.config.read.credentials import FILE_KEYS, PREFIX
from ai_ticket_daemon.config.read.document import read_document
from ai_ticket_daemon.config.read.environment import VARIABLES
from ai_ticket_daemon.config.values.addresses import FdBind, TcpBind, UnixBind
from ai_ticket_daemon.config.values.certificate import CertificateUnusable, check_pair
from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.preflight.access import (
    is_home,
    seen_by,
    unreadable,
    unwritable_directory,
)
from ai_ticket_daemon.preflight.credentials import stale_copies
from ai_ticket_daemon.preflight.finding import Finding, Weight
from ai_ticket_daemon.preflight.servers import recommend
from ai_ticket_daemon.preflight.taken import holder_of, holder_of_path
from ai_ticket_daemon.store.sqlite.schema import refuse_foreign

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ai_ticket_daemon.config.tree import Config
    from ai_ticket_daemon.preflight.service import Service

LOCKED_MILLISECONDS = 1000


def look(
    config: Config, path: Path | None, environ: Mapping[str, str], service: Service | None
) -> list[Finding]:
    """Return all that a start with this configuration would meet.

    Args:
        config: the configuration, which is valid by itself.
        path: the conf file; None if there is none.
        environ: the environment that it was read with.
        service: the service whose conf file this is; None for a daemon that is started by hand.
    """
    found = [
        *(Finding(Weight.WARNING, text) for text in _warnings(config, service)),
        *_differences(path, environ, service),
    ]
    if service is None or os.geteuid() == 0:
        with seen_by(None if service is None else service.user):
            found += _files(path, service)
            found += _store(config.store.path, service)
    else:
        found.append(
            Finding(Weight.NOTE, f"only root can tell what the user {service.user} may read")
        )
    found += _addresses(config, service)
    found += recommend(config.backends.servers)
    return found


def _warnings(config: Config, service: Service | None) -> Iterator[str]:
    yield from warnings(config, None if service is None else service.handed_over)
    http = config.http
    if http.tls_cert is not None and http.tls_key is not None:
        try:
            expiry = check_pair(http.tls_cert, http.tls_key).warning(time.time())
        except CertificateUnusable:
            return  # it was usable a moment ago, and is being replaced
        if expiry is not None:
            yield expiry


def _named_files(path: Path | None) -> Iterator[tuple[str, str]]:
    """Yield every file that the conf file names, with its key."""

    def walk(value: object, key: str) -> Iterator[tuple[str, str]]:
        match value:
            case dict():
                for name, inner in value.items():
                    yield from walk(inner, f"{key}.{name}" if key else str(name))
            case list():
                for index, inner in enumerate(value):
                    yield from walk(inner, f"{key}[{index}]")
            case str() if value and key.rpartition(".")[2] in FILE_KEYS:
                yield key, value

    if path is not None:
        yield from walk(read_document(path).raw, "")


def _files(path: Path | None, service: Service | None) -> Iterator[Finding]:
    if path is None:
        return
    who = "the daemon" if service is None else f"the user {service.user}"
    # What is a credential is root's, and handed over as a copy.
    named = [(key, Path(name)) for key, name in _named_files(path) if not name.startswith(PREFIX)]
    for key, file in (("", path), *named):
        reason = unreadable(file)
        if reason is None and service is not None and service.hides_homes and is_home(file):
            reason = "the service sees no home directories (ProtectHome=)"
        if reason is not None:
            place = f"{key}: " if key else ""
            yield Finding(
                Weight.PROBLEM,
                f"{place}{who} cannot read {file}: {reason}; make it readable for that user"
                + (f', or a credential ("{PREFIX}NAME")' if key else ""),
            )


def _store(path: Path | None, service: Service | None) -> Iterator[Finding]:
    if path is None:
        return
    if service is not None and not any(
        path.is_relative_to(directory) for directory in service.writable
    ):
        yield Finding(
            Weight.PROBLEM,
            f"store.url: the service may not write to {path.parent}: only below "
            f"{', '.join(map(str, service.writable))} (ReadWritePaths= in a drop-in adds more)",
        )
        return
    made_by_systemd = service is not None and not path.parent.exists()
    if not made_by_systemd:
        reason = unwritable_directory(path.parent)
        if reason is not None:
            yield Finding(Weight.PROBLEM, f"store.url: {reason}")
            return
    try:
        if not path.exists():
            return
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    except (apsw.Error, OSError) as error:
        yield Finding(Weight.PROBLEM, f"store.url: {path} cannot be opened: {error}")
        return
    try:
        connection.set_busy_timeout(LOCKED_MILLISECONDS)
        refuse_foreign(connection)
        # Locked against writers alone, a file can be read.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except apsw.BusyError:
        text = f"store.url: {path} is locked by another program; end that one"
        yield Finding(Weight.PROBLEM, text)
    except (apsw.Error, StoreUnavailable) as error:
        yield Finding(Weight.PROBLEM, f"store.url: {path}: {error}")
    finally:
        connection.close()


def _addresses(config: Config, service: Service | None) -> Iterator[Finding]:
    handed_over = None if service is None else service.handed_over
    if handed_over is None or any(isinstance(bind, FdBind) for bind in config.http.bind):
        for bind in config.http.bind:
            yield from _address("http.bind", bind, service)
    else:
        yield Finding(Weight.NOTE, f"http.bind: {handed_over.by} holds {handed_over}")
    page = config.metrics.bind
    yield from _address("metrics.bind", page, service)
    for instance in () if service is None else service.instances:
        if instance.metrics_port is not None:
            key = f"metrics.bind of {instance.unit}"
            yield from _address(key, TcpBind(page.host, instance.metrics_port), service)
    if not page.is_local:
        yield Finding(
            Weight.NOTE,
            f"metrics.bind: {page} can be reached from other hosts; the page only tells, and takes "
            "no work",
        )


def _address(
    key: str, bind: TcpBind | UnixBind | FdBind, service: Service | None
) -> Iterator[Finding]:
    if isinstance(bind, FdBind):
        return
    if isinstance(bind, UnixBind):
        reason, holder = _path_problem(bind), holder_of_path(bind)
    else:
        reason, holder = _tcp_problem(bind, service), holder_of(bind)
    if holder is not None and holder.is_daemon:
        yield Finding(Weight.NOTE, f"{key}: {bind} is held by a daemon that runs: {holder}")
    elif holder is not None:
        text = f"{key}: {bind} is taken by {holder}; end it, or choose another address"
        yield Finding(Weight.PROBLEM, text)
    elif reason is not None:
        yield Finding(Weight.PROBLEM, f"{key}: cannot listen on {bind}: {reason}")


def _path_problem(bind: UnixBind) -> str | None:
    try:
        if not stat.S_ISSOCK(bind.path.lstat().st_mode):
            return "there is a file of this name that is not a socket"
    except OSError:
        pass  # nothing is there, as it should be
    if not bind.path.parent.is_dir():
        return f"there is no directory {bind.path.parent}"
    return unwritable_directory(bind.path.parent)


def _tcp_problem(bind: TcpBind, service: Service | None) -> str | None:
    as_root = os.geteuid() == 0 and (service is None or service.user == "root")
    if 0 < bind.port < _first_free_port() and not as_root:
        return (
            f"ports below {_first_free_port()} are for root; use another one, or let the socket "
            "unit open it"
        )
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            bind.host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as probe:
                # Any port will do: the question is whether this host has the address.
                probe.bind(address)
    except OSError as error:
        return f"{error.strerror or error}; it has to be an address of this host"
    return None


def _first_free_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text("ascii"))
    except (OSError, ValueError):
        return 1024


def _differences(
    path: Path | None, environ: Mapping[str, str], service: Service | None
) -> Iterator[Finding]:
    """Yield where this check, a reload and the next start would not see the same."""
    if service is None:
        return
    for name in VARIABLES:
        here, there = environ.get(name, ""), service.environment.get(name, "")
        if here != there:
            seen = "is set here and not" if not there else "is not set here as it is"
            yield Finding(
                Weight.WARNING,
                f"environment variable {name} {seen} for the service; this check went by what is "
                "here",
            )
    if os.geteuid() == 0:
        yield from stale_copies(_named_files(path), service.running)
