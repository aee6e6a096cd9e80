#!/usr/bin/env python3
"""Run the daemon with two local model servers and send it a sample ticket.

``ops/quickstart.sh`` prepares the virtual environment and then runs this. Every process started
here is a ``Child``; all of them are stopped on the way out, whichever way that is, and the kernel
stops them should this process be killed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shlex
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import trio

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".cache" / "quickstart"
CONTROL = STATE / "control.sock"
MAX_SOCKET_PATH_BYTES = 107  # unix(7); in a folder deeper than that there is no control socket
LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 5000
DEFAULT_METRICS_PORT = 9464

SERVER_START_SECONDS = 60.0  # a cold disk reads the 90 MB model slowly
DAEMON_START_SECONDS = 30.0
SAMPLE_SECONDS = 120.0
DRAIN_SECONDS = 5
STOP_SECONDS = DRAIN_SECONDS + 5.0  # then a child is killed
POLL_SECONDS = 0.1
LOG_TAIL_LINES = 15
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_INTERRUPTED = 130

INSTRUCTION = "You sort support tickets. Answer with one category: hardware, software or account."
TICKET = "The printer on the third floor prints blank pages since this morning."

# The environment overrides the conf file, and what is set in a shell is not meant for this run.
FOREIGN_SETTINGS = ("KOBOLDCPP_", "OTEL_", "LOG_LEVEL", "PORT", "NOTIFY_SOCKET", "LISTEN_")


class QuickstartError(Exception):
    """Why the quickstart cannot go on, and what to do; ``log`` is the file to look into."""

    def __init__(self, sentence: str, log: Path | None = None) -> None:
        super().__init__(sentence)
        self.log = log


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    simulated: bool
    once: bool
    port: int | None


@dataclass(slots=True, eq=False)
class Child:
    """A process of ours: its name for people, what it answers on, and where its output goes."""

    name: str
    url: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def log(self) -> Path:
        """The file with all that it printed."""
        return STATE / f"{self.name}.log"

    def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C reaches only us and we stop in order."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(FOREIGN_SETTINGS)
        }
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(  # noqa: S603 - the command is ours
                # setpriv becomes the command, and the kernel ends it when this process is killed.
                ["/usr/bin/env", "setpriv", "--pdeathsig", "TERM", "--", *self.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=kept,
                cwd=ROOT,
                start_new_session=True,
            )

    async def exited(self) -> int:
        """Wait until it has ended and return its exit status."""
        if self.process.poll() is None:
            pidfd = os.pidfd_open(self.process.pid)
            try:
                await trio.lowlevel.wait_readable(pidfd)
            finally:
                os.close(pidfd)
        return self.process.wait()

    async def stop(self) -> None:
        """End it: politely, and after ``STOP_SECONDS`` by force."""
        if self.process.poll() is None:
            self.process.terminate()
            with trio.move_on_after(STOP_SECONDS):
                await self.exited()
            self.process.kill()
        await self.exited()


def say(line: str = "") -> None:
    """Print a line at once, also into a pipe."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def is_free(port: int) -> bool:
    """Tell whether this loopback port can be listened on now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Ask the kernel for different free loopback ports."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]


def daemon_port(wanted: int | None) -> int:
    """Return the port asked for, or the first free one from 5000.

    Raises:
        QuickstartError: The port asked for is taken.
    """
    if wanted is not None:
        if not is_free(wanted):
            raise QuickstartError(
                f"Port {wanted} is taken or not permitted; name another with --port, "
                "or leave that out to use the next free one"
            )
        return wanted
    candidates = range(DEFAULT_PORT, DEFAULT_PORT + 100)
    return next((port for port in candidates if is_free(port)), free_ports(1)[0])


def server_command(options: Options, port: int) -> list[str]:
    """Return the command of one local model server."""
    module = "kobold" if options.simulated else "llama"
    return [sys.executable, "-m", f"ai_ticket_daemon.testing.{module}", "--port", str(port)]


def has_control() -> bool:
    """Tell whether the path of the control socket is short enough for the kernel."""
    return len(os.fsencode(CONTROL)) <= MAX_SOCKET_PATH_BYTES


def conf_text(options: Options, servers: Sequence[Child], http: int, metrics: int) -> str:
    """Return the daemon's conf file for these servers and ports."""
    kind = "koboldcpp" if options.simulated else "openai"
    sections = [
        "# Written by ops/quickstart.sh; ai-ticket.conf in the top folder explains every setting.",
        f'[http]\nbind = ["{LOOPBACK}:{http}"]',
        f"[pipeline]\ndrain_seconds = {DRAIN_SECONDS}",
        f'[store]\nurl = "sqlite:///{STATE / "events.db"}"',
        f'[metrics]\nbind = "{LOOPBACK}:{metrics}"',
        f'[control]\nsocket = "{CONTROL if has_control() else ""}"',
        '[telemetry]\ntraces = "none"',
    ]
    sections += [
        f'[[backends.server]]\nname = "{server.name}"\nurl = "{server.url}"\n'
        f'role = "{server.name}"\nkind = "{kind}"\nmax_in_flight = 1'
        for server in servers
    ]
    return "\n\n".join(sections) + "\n"


async def wait_until_answering(child: Child, path: str, budget_seconds: float) -> None:
    """Poll a path of this child until it answers 200.

    Raises:
        QuickstartError: The child has ended, or the time is up.
    """
    started = trio.current_time()
    last = "nothing answered"
    async with httpx.AsyncClient(base_url=child.url, trust_env=False, timeout=5) as client:
        with trio.move_on_after(budget_seconds):
            while child.process.poll() is None:
                try:
                    response = await client.get(path)
                except httpx.TransportError:
                    last = "nothing answered"
                else:
                    if response.status_code == httpx.codes.OK:
                        say(f"  {child.name:8} {child.url}  {trio.current_time() - started:5.1f} s")
                        return
                    last = f"{path} answered {response.status_code} {response.text.strip()[:300]}"
                await trio.sleep(POLL_SECONDS)
    status = child.process.poll()
    if status is not None:
        raise QuickstartError(
            f"The {child.name} ended with status {status} before it was ready", child.log
        )
    raise QuickstartError(
        f"The {child.name} was not ready within {budget_seconds:g} s: {last}", child.log
    )


async def send_sample(daemon: Child) -> None:
    """Send the sample ticket and print what came back.

    Raises:
        QuickstartError: No completion came back.
    """
    event = {
        "content": {
            "messages": [
                {"role": "system", "content": INSTRUCTION},
                {"role": "user", "content": TICKET},
            ]
        },
        "max_tokens": 48,
    }
    started = trio.current_time()
    async with httpx.AsyncClient(trust_env=False, timeout=SAMPLE_SECONDS) as client:
        try:
            response = await client.post(f"{daemon.url}/event", json=event)
        except httpx.TransportError as error:
            raise QuickstartError(
                f"The sample ticket was not answered ({type(error).__name__})", daemon.log
            ) from error
    took_seconds = trio.current_time() - started
    try:
        answer = response.json()
        completion = answer["completion"].strip()
        backend = answer["backend"]
    except (ValueError, KeyError, TypeError, AttributeError):
        completion = backend = ""
    if response.status_code != httpx.codes.OK or not completion:
        raise QuickstartError(
            "The sample ticket was not completed: "
            f"{response.status_code} {response.text.strip()[:500]}",
            daemon.log,
        )
    say(f"\nTicket:      {TICKET}")
    say(f"Completion:  {completion}")
    say(f"Answered by: {backend}, in {took_seconds:.1f} s")


def say_what_next(daemon: Child, primary: Child, metrics_port: int) -> None:
    """Print where everything is and what to try."""
    say(f"\n  events   {daemon.url}/event")
    say(f"  health   {daemon.url}/health")
    say(f"  openapi  {daemon.url}/openapi.json")
    say(f"  metrics  http://{LOOPBACK}:{metrics_port}/metrics")
    say("\nSend a ticket of your own:")
    say(f"  curl -s {daemon.url}/event -H 'Content-Type: application/json' \\")
    say("""       -d '{"content": "My password has expired. What do I do?", "max_tokens": 64}'""")
    say("Pull the primary's plug, send it again, and see the standby answer:")
    say(f"  kill {primary.process.pid}")
    say("Bring it back, in a shell of its own, and see it serve again half a minute later:")
    say(f"  {shlex.join(primary.command)}")
    if has_control():
        say("Look on as an operator:")
        say(f"  {Path(sys.executable).with_name('ai-ticketctl')} --socket {CONTROL} top")
    say(f"\nCtrl-C stops everything. Logs: {STATE}")


async def watch(servers: Sequence[Child], daemon: Child) -> None:
    """Look on until cancelled; a lost server is reported, as the daemon has another one.

    Raises:
        QuickstartError: The daemon, or the last server, has ended.
    """
    alive = {*servers, daemon}
    endings_send, endings = trio.open_memory_channel[tuple[Child, int]](0)

    async def report(child: Child) -> None:
        await endings_send.send((child, await child.exited()))

    async with trio.open_nursery() as nursery:
        for child in alive:
            nursery.start_soon(report, child)
        while True:
            ended, status = await endings.receive()
            alive.remove(ended)
            sentence = f"The {ended.name} has ended with status {status}"
            if daemon not in alive or alive == {daemon}:
                break
            say(f"\n{sentence}; the daemon goes on with the other server")
            say_log_tail(ended.log)
        nursery.cancel_scope.cancel()
    raise QuickstartError(sentence, ended.log)


def say_log_tail(log: Path) -> None:
    """Print the end of a child's log."""
    lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    say("\n".join([f"  the end of {log}:", *(f"  | {line}" for line in lines)]))


async def tell_story(options: Options, children: list[Child]) -> None:
    """Start everything as ``children``, in order, and send the sample ticket.

    Raises:
        QuickstartError: Something did not start, or the ticket was not completed.
    """
    *server_ports, metrics_port = free_ports(3)
    http_port = daemon_port(options.port)
    if http_port != DEFAULT_METRICS_PORT and is_free(DEFAULT_METRICS_PORT):
        metrics_port = DEFAULT_METRICS_PORT

    servers = [
        Child(name, f"http://{LOOPBACK}:{port}", server_command(options, port))
        for name, port in zip(("primary", "standby"), server_ports, strict=True)
    ]
    conf = STATE / "ai-ticket.conf"
    conf.write_text(conf_text(options, servers, http_port, metrics_port))
    executable = Path(sys.executable).with_name("ai-ticket-daemon")
    daemon = Child(
        "daemon", f"http://{LOOPBACK}:{http_port}", [str(executable), "--config", str(conf)]
    )

    say("starting two " + ("simulated KoboldCPP servers" if options.simulated else "model servers"))
    probe = "/api/v1/model" if options.simulated else "/v1/models"
    for child in servers:
        child.start()
        children.append(child)
    for child in servers:
        await wait_until_answering(child, probe, SERVER_START_SECONDS)
    daemon.start()
    children.append(daemon)
    await wait_until_answering(daemon, "/ready", DAEMON_START_SECONDS)

    await send_sample(daemon)
    if not options.once:
        say_what_next(daemon, servers[0], metrics_port)


async def supervise(options: Options) -> int:
    """Tell the story, stop every child however it ends, and return the exit code."""
    children: list[Child] = []
    code = EXIT_INTERRUPTED
    # Open until the last child is gone: a second Ctrl-C must not cut the stopping short.
    with trio.open_signal_receiver(*STOP_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:

            async def stop_on_signal() -> None:
                async for _ in signals:
                    say("\nstopping")
                    nursery.cancel_scope.cancel()

            nursery.start_soon(stop_on_signal)
            try:
                await tell_story(options, children)
                code = 0  # from here on, being stopped is how it is meant to end
                if not options.once:
                    *servers, daemon = children
                    await watch(servers, daemon)
            except QuickstartError as error:
                if error.log is not None:
                    say_log_tail(error.log)
                sys.stderr.write(f"quickstart: {error}\n")
                code = 1
            finally:
                with trio.CancelScope(shield=True):
                    for child in reversed(children):  # the daemon before what it talks to
                        await child.stop()
            nursery.cancel_scope.cancel()
    return code


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Hold this checkout's quickstart lock.

    Raises:
        QuickstartError: Another quickstart holds it.
    """
    with (STATE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = "Another quickstart runs in this folder; stop that one first"
            raise QuickstartError(message) from error
        yield


def main() -> int:
    """Parse the command line, which ops/quickstart.sh has checked, and run."""
    parser = argparse.ArgumentParser(prog="ops/quickstart.sh")
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--port", type=int)
    given = parser.parse_args()
    STATE.mkdir(parents=True, exist_ok=True)
    try:
        with only_one():
            return trio.run(supervise, Options(given.simulated, given.once, given.port))
    except QuickstartError as error:
        sys.stderr.write(f"quickstart: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
