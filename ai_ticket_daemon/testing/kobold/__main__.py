"""Run a simulated KoboldCPP: ``python -m ai_ticket_daemon.testing.kobold --help``."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from .control import serve_control
from .server import SimulatedKobold
from .settings import VERSIONS, KoboldSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

_DEFAULTS = KoboldSettings()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ai_ticket_daemon.testing.kobold",
        description="A simulated KoboldCPP, for tests, demonstrations and benchmarks.",
    )
    add = parser.add_argument
    add("--host", default=_DEFAULTS.host, help="address to listen on (default %(default)s)")
    add("--port", type=int, default=5001, help="0 for any free one (default %(default)s)")
    add("--control-port", type=int, metavar="N", help="serve faults and state here; 0 for any")
    add("--version", choices=VERSIONS, default=VERSIONS[-1], help="default %(default)s")
    add("--parallelrequests", type=int, default=1, metavar="N", help="share a batch (1.115)")
    add("--jinja", action="store_true", help="lay out with the model's own template (1.115)")
    add("--admin", action="store_true", help="let anybody unload and reload (1.115)")
    add("--routermode", action="store_true", help="load what a request names (1.115)")
    add("--adminunloadtimeout", type=float, metavar="S", help="unload when idle (1.115)")
    add("--thinking", action="store_true", help="think before each answer")
    add("--multiuser", type=int, default=_DEFAULTS.multiuser, metavar="N", help="queue option")
    add("--context", type=int, default=_DEFAULTS.context_tokens, metavar="TOKENS")
    add("--model", default=_DEFAULTS.model, metavar="NAME", help="default %(default)s")
    add("--nomodel", action="store_true", help="look healthy, answer with empty text")
    add("--password-file", type=Path, metavar="FILE", help="require the password in this file")
    add("--tokens-per-second", type=float, metavar="X", help="speed of writing")
    add("--prompt-seconds", type=float, metavar="X", help="time to read any prompt")
    add("--instant", action="store_true", help="no delays at all and a strict order")
    add("--echo", action="store_true", help="answer with the text of the request")
    return parser


def _settings(options: argparse.Namespace) -> KoboldSettings:
    password = options.password_file
    settings = KoboldSettings(
        version=options.version,
        parallel=options.parallelrequests,
        jinja=options.jinja,
        admin=options.admin,
        router=options.routermode,
        unload_after_seconds=options.adminunloadtimeout,
        thinking=options.thinking,
        host=options.host,
        model=options.model,
        has_model=not options.nomodel,
        password=password.read_text("utf-8").strip() if password else None,
        multiuser=options.multiuser,
        context_tokens=options.context,
        reply="echo" if options.echo else "words",
        tokens_per_second=options.tokens_per_second or _DEFAULTS.tokens_per_second,
        prompt_seconds=options.prompt_seconds,
    )
    return settings.instant() if options.instant else settings


async def _run(settings: KoboldSettings, port: int, control_port: int | None) -> None:
    simulated = SimulatedKobold(settings)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(simulated.serve, port)
            line = f"simulated KoboldCPP ready on {simulated.url}"
            if control_port is not None:
                chosen = await nursery.start(serve_control, simulated, control_port)
                line += f" control http://127.0.0.1:{chosen}"
            print(line, flush=True)
            await anext(signals)
            nursery.cancel_scope.cancel()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        settings = _settings(options)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    trio.run(_run, settings, options.port, options.control_port)


if __name__ == "__main__":
    main()
