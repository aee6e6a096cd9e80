"""The command ``ai-ticket-daemon``: reads the configuration and runs the daemon."""

from __future__ import annotations

import faulthandler
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ai_ticket_daemon import __version__
from ai_ticket_daemon.config.read import otel_variables
from ai_ticket_daemon.config.read.errors import ConfigError
from ai_ticket_daemon.config.read.load import load_config
from ai_ticket_daemon.host.c_heap import keep_large_apart
from ai_ticket_daemon.host.descriptors import raise_limit
from ai_ticket_daemon.host.exhaustion import Resource, exhausted, exhausted_by_name
from ai_ticket_daemon.standard_streams import Parser, run_command
from ai_ticket_daemon.systemd.notify import from_environment, journal_reads

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from ai_ticket_daemon.config.tree import Config
    from ai_ticket_daemon.systemd.notify import Systemd
    from ai_ticket_daemon.telemetry.logs.logs import Logs

DEFAULT_CONFIG = Path("/etc/ai-ticket/ai-ticket.conf")

EXIT_OK = 0
EXIT_DIFFERS = 1
EXIT_UNAVAILABLE = 69
EXIT_INTERNAL = 70
EXIT_CONFIG = 78


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon and return its exit code (sysexits.h: 0, 69, 70 or 78)."""
    run = partial(_main, arguments)
    return run_command("ai-ticket-daemon", run, quiet=EXIT_OK, unwritable=EXIT_UNAVAILABLE)


def _main(arguments: Sequence[str] | None) -> int:
    options = command_line().parse_args(arguments)
    if options.reload is not None:
        from ai_ticket_daemon.systemd import reload_result  # noqa: PLC0415 - it must be quick

        return reload_result.main(options.reload, os.environ)
    systemd = from_environment(os.environ, os.getpid())
    load = partial(_load, options)
    try:
        config = load()
    except (ConfigError, MemoryError) as error:
        # A file that cannot be opened for want of a descriptor is no mistake in it.
        lacking = exhausted_by_name(error)
        if lacking is None and isinstance(error, ConfigError):
            _refuse(error, systemd)
            return EXIT_CONFIG
        reason = Resource.MEMORY.lack if lacking is None else lacking.lack
        print(f"ai-ticket-daemon: this host is {reason}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    if options.check_config:
        return _check(config, _conf_file(options))
    if options.audit:
        return _audit(config)
    # Imported only now: --version, --help, --check-config and --audit need none of it.
    from ai_ticket_daemon.telemetry.logs.logs import Logs  # noqa: PLC0415

    # When the watchdog ends a daemon that hangs (SIGABRT), this tells where it hung.
    faulthandler.enable()
    raise_limit()
    keep_large_apart()
    try:
        logs = Logs(config.log.level, config.log.format)
    except (OSError, RuntimeError, MemoryError) as error:
        if (lacking := exhausted(error)) is not None:
            print(f"ai-ticket-daemon: this host is {lacking.lack}", file=sys.stderr)
            return EXIT_UNAVAILABLE
        if not isinstance(error, OSError):
            raise
        print(f"ai-ticket-daemon: log.format: no journald here: {error}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    try:
        return _run(config, load, logs, systemd, demo=options.demo)
    finally:
        logs.close()


def _check(config: Config, path: Path | None) -> int:
    """Say what a start would meet."""
    from ai_ticket_daemon.preflight.finding import Weight  # noqa: PLC0415
    from ai_ticket_daemon.preflight.service import ask_systemd  # noqa: PLC0415
    from ai_ticket_daemon.preflight.start import look  # noqa: PLC0415

    # Of the service only if this is its conf file; any other is for a daemon started by hand.
    service = ask_systemd() if path == DEFAULT_CONFIG else None
    for sentence in otel_variables.warnings(os.environ):
        print(f"warning: {sentence}")
    found = look(config, path, os.environ, service)
    for finding in found:
        if finding.weight is not Weight.PROBLEM:
            print(f"{finding.weight.value}: {finding.text}")
    problems = [finding.text for finding in found if finding.weight is Weight.PROBLEM]
    if problems:
        listed = "\n".join(problems)
        print(f"ai-ticket-daemon: a start would fail:\n{listed}", file=sys.stderr)
        return EXIT_CONFIG
    print("The configuration is valid.")
    return EXIT_OK


def _audit(config: Config) -> int:
    """Recount the store and say what was found."""
    from ai_ticket_daemon.errors import StoreUnavailable  # noqa: PLC0415
    from ai_ticket_daemon.store.sqlite.audit import audit_file  # noqa: PLC0415

    if config.store.path is None:
        print("ai-ticket-daemon: the store is in memory (store.url)", file=sys.stderr)
        return EXIT_UNAVAILABLE
    try:
        found = audit_file(config.store.path)
    except StoreUnavailable as error:
        print(f"ai-ticket-daemon: the store cannot be read: {error.message}", file=sys.stderr)
        return EXIT_UNAVAILABLE
    print(found)
    return EXIT_DIFFERS if found.problems else EXIT_OK


def _refuse(error: ConfigError, systemd: Systemd) -> None:
    """Say why there is no start: to whoever sits at the terminal, or in one line of the journal."""
    systemd.notifier.status(f"the configuration cannot be used (exit code {EXIT_CONFIG}): {error}")
    if not journal_reads(os.environ):
        print(f"ai-ticket-daemon: the configuration cannot be used:\n{error}", file=sys.stderr)
        return
    from ai_ticket_daemon.config.log import LogFormat, LogLevel  # noqa: PLC0415
    from ai_ticket_daemon.telemetry.logs.logs import Logs  # noqa: PLC0415

    problems = [str(problem) for problem in error.problems]
    logs = Logs(LogLevel.INFO, LogFormat.JOURNALD)
    log = logs.logger(actor="main")
    log.critical("config_refused", problems=problems)
    logs.close()


def _run(
    config: Config, load: Callable[[], Config], logs: Logs, systemd: Systemd, *, demo: bool
) -> int:
    import trio  # noqa: PLC0415

    try:
        trio.run(
            partial(_daemon, config, load, logs, systemd, demo=demo),
            restrict_keyboard_interrupt_to_checkpoints=True,
            strict_exception_groups=True,
        )
    except Exception as error:  # noqa: BLE001 - the edge of the process: say what ended it
        return _explain(error, logs, systemd)
    systemd.notifier.status("stopped as asked")
    return EXIT_OK


def _explain(error: Exception, logs: Logs, systemd: Systemd) -> int:
    """Say what ended the daemon, in the log and where `systemctl status` shows it."""
    from ai_ticket_daemon.errors import StoreUnavailable  # noqa: PLC0415
    from ai_ticket_daemon.server.listen.sockets import ListenerUnavailable  # noqa: PLC0415
    from ai_ticket_daemon.supervisor import unwrap  # noqa: PLC0415

    log = logs.logger(actor="main")
    error = unwrap(error)
    if isinstance(error, ListenerUnavailable | StoreUnavailable):
        log.error("unavailable", detail=str(error))
        systemd.notifier.status(f"{error} (exit code {EXIT_UNAVAILABLE})")
        return EXIT_UNAVAILABLE
    if (lacking := exhausted(error)) is not None:
        detail = f"this host is {lacking.lack}"
        log.error("unavailable", detail=detail)
        systemd.notifier.status(f"{detail} (exit code {EXIT_UNAVAILABLE})")
        return EXIT_UNAVAILABLE
    log.critical("failed", exc_info=error)
    # The type alone: what a fault says may hold what a client sent.
    cause = f"a fault of the daemon, {type(error).__name__}; the journal has the traceback"
    systemd.notifier.status(f"{cause} (exit code {EXIT_INTERNAL})")
    return EXIT_INTERNAL


async def _daemon(
    config: Config, load: Callable[[], Config], logs: Logs, systemd: Systemd, *, demo: bool
) -> None:
    from ai_ticket_daemon.host.collector import uncollected  # noqa: PLC0415

    with uncollected():
        from ai_ticket_daemon.app import Daemon  # noqa: PLC0415

        make = partial(Daemon, logs=logs, systemd=systemd)
        daemon = None if demo else make(config, load=load)
    if daemon is None:
        from ai_ticket_daemon.testing.demo import run_demo  # noqa: PLC0415

        await run_demo(config, lambda changed: make(changed, load=partial(_same, changed)))
        return
    await daemon.run()


def _same(config: Config) -> Config:
    return config


def _conf_file(options: argparse.Namespace) -> Path | None:
    path: Path | None = options.config
    if path is None and not options.demo and DEFAULT_CONFIG.exists():
        return DEFAULT_CONFIG
    return path


def _load(options: argparse.Namespace) -> Config:
    path = _conf_file(options)
    if not options.demo:
        return load_config(path, os.environ)
    # The demo brings its own backends: these stand for them until it knows their ports.
    servers = [
        {"name": role, "url": f"http://127.0.0.1:{port}", "role": role}
        for port, role in enumerate(("primary", "standby"), start=1)
    ]
    overrides: dict[str, object] = {"backends.server": servers}
    if path is None:
        overrides |= {"telemetry.traces": "none", "store.url": "memory:"}
        environ = {"PORT": "5000", **os.environ}
        overrides["http.bind"] = [f"127.0.0.1:{environ['PORT']}"]
        overrides["metrics.bind"] = f"127.0.0.1:{environ.get('OTEL_PROMETHEUS_PORT', '9464')}"
    return load_config(path, os.environ, overrides)


def command_line() -> argparse.ArgumentParser:
    """Return what reads the command line, and knows every option."""
    parser = Parser(
        prog="ai-ticket-daemon",
        description="Takes events over HTTP and answers each with a completion from KoboldCPP.",
        epilog="Signals: HUP reloads the configuration; TERM and INT drain and stop, a second one "
        "stops now; USR1 logs what every task does; USR2 switches debug logging on and off. "
        "Exit codes: 0 stopped as asked, 69 an address or the store is unavailable, 70 internal "
        "fault, 78 the configuration cannot be used.",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help=f"the conf file; default {DEFAULT_CONFIG} if it exists, else the environment alone",
    )
    parser.add_argument(
        "--check-config",
        action="store_true",
        help="do all that a start does, short of listening: check the configuration, certificates, "
        "files, the store and addresses, list every mistake, and exit: 0 if a start would succeed, "
        "78 if not",
    )
    parser.add_argument(
        "--audit",
        action="store_true",
        help="count the events in the store anew, daemons running or not, and exit: 0 if every "
        "accepted event is accounted for, 1 if not, 69 if the store cannot be read",
    )
    parser.add_argument(
        "--reload",
        metavar="PID",
        type=int,
        help="have the daemon of that process id reload, and wait: exit 0 if the configuration was "
        "applied, 1 if it was refused; for ExecReload= in its unit",
    )
    parser.add_argument(
        "--demo",
        action="store_true",
        help="run on two simulated KoboldCPP servers of its own, with a control socket of its "
        "own, and print what to try; for a first look, not for work",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
