"""The simulated server: its port, its connections, its deaths and its returns."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from .admin import is_reload, reload_as_asked, unload_when_idle
from .endpoints import answer_get, answer_lock_free_post, is_lock_free_post
from .faults import Faults
from .generate import expected_completion
from .generations import serve_locked_post
from .observe import Observations
from .process import ServerProcess
from .settings import KoboldSettings
from .wire import OK_EMPTY, TOO_BIG, ClientGone, Connection, bad_gateway, error_page

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import AsyncIterator, Callable

    from .observe import GenerationRecord
    from .wire import Request

__all__ = ["SimulatedKobold", "open_simulated_kobold"]

_MOST_BODY_BYTES = 32 * 1024 * 1024


class SimulatedKobold:
    """A KoboldCPP without a model, on real sockets, with its accidents on demand.

    `faults` makes it misbehave; the properties and `observations` tell what it has seen.
    """

    def __init__(self, settings: KoboldSettings | None = None) -> None:
        self.settings = settings or KoboldSettings()
        self.port = 0
        self.observations = Observations(self.settings.log_length)
        self.faults = Faults(self, self.observations.changed)
        self._process: ServerProcess | None = None
        self._reserve: socket.socket | None = None
        self._listener: trio.socket.SocketType | None = None
        self._nursery: trio.Nursery | None = None
        self._starts_unloaded = False

    @property
    def url(self) -> str:
        """Base address, without a slash at the end."""
        return f"http://{self.settings.host}:{self.port}"

    @property
    def alive(self) -> bool:
        """Whether the simulated process lives."""
        return self._process is not None

    @property
    def running(self) -> int:
        """Requests that hold a place at the generation lock now."""
        return self.observations.running

    @property
    def waiting(self) -> int:
        """Requests that wait for the lock now."""
        return self.observations.waiting

    @property
    def tokens_written(self) -> int:
        """Tokens of what is generated now, so far; 0 if nothing is."""
        return self._process.tokens_written if self._process else 0

    @property
    def log(self) -> deque[GenerationRecord]:
        """Every request for the lock in order of arrival, across restarts."""
        return self.observations.log

    def is_back(self) -> bool:
        """Whether it listens, and what generates there is not being started."""
        return self._listener is not None and self._process is not None and not self._process.away

    async def wait_for(self, condition: Callable[[SimulatedKobold], object]) -> None:
        """Return once the condition holds; it is looked at again after each change of state."""
        while not condition(self):
            await self.observations.next_change()

    def expected_completion(self, subject: str, *, max_tokens: int, seed: int = -1) -> str:
        """The text this server answers to a last user message or a prompt."""
        return expected_completion(
            subject, settings=self.settings, max_tokens=max_tokens, seed=seed
        )

    def state(self) -> dict[str, Any]:
        """What can be observed, as plain JSON values."""
        return {
            "url": self.url,
            "alive": self.alive,
            "tokens_written": self.tokens_written,
            **self.observations.summary(),
        }

    async def serve(
        self, port: int = 0, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled, through any number of deaths; reports the port once it listens.

        Raises:
            OSError: The port cannot be had.
        """
        self._reserve = _bound_socket(self.settings.host, port)
        self.port = self._reserve.getsockname()[1]
        try:
            async with trio.open_nursery() as self._nursery:
                self.start()
                task_status.started(self.port)
                while True:
                    await self.wait_for(lambda sim: sim.alive)
                    process = self._process
                    if process is not None:
                        await self._live(process)
        finally:
            self.kill(reset=False)
            self._reserve.close()

    async def _live(self, process: ServerProcess) -> None:
        with process.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(unload_when_idle, process)
                await self._accept(process, nursery)

    async def _accept(self, process: ServerProcess, nursery: trio.Nursery) -> None:
        """Take a connection for each free handler, and leave the others in the kernel's hands."""
        while True:
            await self.wait_for(lambda _: self._may_accept(process))
            listener = self._listener
            if listener is None:
                continue
            try:
                accepted, _ = await listener.accept()
            except (OSError, trio.ClosedResourceError):
                continue
            connection = Connection(
                accepted,
                self.faults,
                newer=self.settings.newer,
                routed=self.settings.router,
            )
            process.connections.add(connection)
            self.observations.connections_total += 1
            self.observations.open_connections += 1
            self.observations.changed()
            nursery.start_soon(self._handle, process, connection)

    def _may_accept(self, process: ServerProcess) -> bool:
        return (
            self._listener is not None
            and not self.faults.frozen
            and len(process.connections) < self.settings.handler_threads
        )

    async def _handle(self, process: ServerProcess, connection: Connection) -> None:
        try:
            request = await connection.read_request()
            if request is None:
                await connection.send(
                    error_page(
                        400, "Bad request syntax", "Bad request syntax or unsupported method"
                    )
                )
            elif request.method == "GET":
                await connection.send(answer_get(process, request))
            elif request.method == "POST":
                await self._post(process, connection, request)
            elif request.method in ("HEAD", "OPTIONS"):
                await connection.send(OK_EMPTY)
            else:
                message = f"Unsupported method ('{request.method}')"
                explanation = "Server does not support this operation"
                await connection.send(error_page(501, message, explanation))
        except ClientGone:
            pass
        finally:
            connection.close()
            process.connections.discard(connection)
            self.observations.open_connections -= 1
            self.observations.changed()

    async def _post(self, process: ServerProcess, connection: Connection, request: Request) -> None:
        if request.length_bytes > _MOST_BODY_BYTES:
            await connection.send(TOO_BIG)
            return
        body = await connection.read_body(request)
        if is_reload(process, request):
            await connection.send(reload_as_asked(process, body))
        elif is_lock_free_post(request.path):
            await connection.send(await answer_lock_free_post(process, request, body))
        else:
            with process.generating() as scope:
                await serve_locked_post(process, connection, request, body)
            if scope.cancelled_caught and not connection.answered:
                await connection.send(bad_gateway())

    # What faults do to the process.

    def kill(self, *, reset: bool) -> None:
        """Die at once: no listener, no connection, nothing remembered."""
        self.stop_listening()
        process, self._process = self._process, None
        if process is not None:
            self.observations.deaths_total += 1
            for connection in process.connections:
                connection.close(reset=reset)
            process.scope.cancel()
            self.observations.changed()

    def stop_listening(self) -> None:
        """Refuse connections from now on; those waiting in the kernel are cut."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    def start(self, *, after_seconds: float = 0.0) -> None:
        """Be alive and listening, at once or later."""
        if after_seconds > 0 and self._nursery is not None:
            self._nursery.start_soon(self._start_later, after_seconds)
            return
        if self._process is None:
            self._process = ServerProcess(
                self.settings, self.faults, self.observations, unloaded=self._starts_unloaded
            )
            self._starts_unloaded = False
        if self._listener is None:
            opened = _bound_socket(self.settings.host, self.port)
            opened.listen(self.settings.listen_backlog)
            self._listener = trio.socket.from_stdlib_socket(opened)
        self.observations.changed()

    def reload(self, *, model: bool) -> None:
        """Start the process that generates anew, with a model or without one."""
        process = self._process
        if process is None:
            return
        if self.settings.router and self._nursery is not None:
            process.away = True
            self.observations.changed()
            self._nursery.start_soon(partial(process.begin_anew, model=model))
            return
        self._starts_unloaded = not model
        self.kill(reset=False)
        self.start(after_seconds=self.settings.load_seconds)

    async def _start_later(self, seconds: float) -> None:
        deaths = self.observations.deaths_total
        await trio.sleep(seconds)
        if deaths == self.observations.deaths_total:
            self.start()


def _bound_socket(host: str, port: int) -> socket.socket:
    """Bind without listening: keeps the port ours, and refused, while the process is dead."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setblocking(False)
    try:
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


@asynccontextmanager
async def open_simulated_kobold(
    settings: KoboldSettings | None = None, *, port: int = 0
) -> AsyncIterator[SimulatedKobold]:
    """Run a simulated server on a free port for the length of a block."""
    simulated = SimulatedKobold(settings)
    async with trio.open_nursery() as nursery:
        await nursery.start(simulated.serve, port)
        yield simulated
        nursery.cancel_scope.cancel()
