"""HTTP over the control socket, with short timeouts and clear words; the standard library only."""

from __future__ import annotations

import json
import socket
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from ai_ticket_daemon.ctl.audit_log import asked
from ai_ticket_daemon.groups import group_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONNECT_SECONDS = 2.0
VIEW_DIRECTORY = Path("/run/ai-ticket-view")
"""Where services have their view sockets; a directory whose group may look."""


class Unreachable(Exception):
    """Nobody answers on the socket; the message says what to do."""


class Refused(Exception):
    """The daemon answered with an error: its ``code`` and what it says."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path, view: Path | None, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path
        self._view = view
        self._seconds = timeout_seconds

    def connect(self) -> None:
        try:
            self.sock = _connected(self._path)
        except PermissionError as closed:
            if self._view is None:
                raise
            try:
                self.sock = _connected(self._view)
            except (FileNotFoundError, PermissionError):
                # Of the two it is the control socket that this user was to open.
                raise closed from None
        self.sock.settimeout(self._seconds)


def _connected(path: Path) -> socket.socket:
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        found.settimeout(CONNECT_SECONDS)
        found.connect(str(path))
    except BaseException:
        found.close()
        raise
    return found


class Client:
    """Asks the daemon behind the socket ``path``.

    Args:
        path: the control socket.
        timeout_seconds: how long the daemon may be silent.
        view: the view socket, which is asked if this user may not open the other one; the daemon
            refuses to act there, and says why.
    """

    def __init__(self, path: Path, timeout_seconds: float, view: Path | None = None) -> None:
        self.path = path
        self._view = view
        self._timeout_seconds = timeout_seconds

    def need_to_act(self) -> None:
        """Make sure that this user may do more than look.

        Raises:
            Refused: the daemon says who may.
            Unreachable: this user may not even look.
        """
        try:
            _connected(self.path).close()
        except PermissionError:
            with self.open("POST", "/event", {}):
                pass
        except OSError:
            pass  # said of what is asked next

    def look(self, operation: str, **arguments: object) -> Any:
        """Return what an operation that changes nothing answers.

        Raises:
            Unreachable: there is no answer.
            Refused: the answer is an error.
        """
        query = urlencode({k: v for k, v in arguments.items() if v is not None})
        with self.open("GET", f"/control/{operation}?{query}") as answer:
            return answer.json()

    def change(self, operation: str, **arguments: object) -> Any:
        """Return what an operation that changes something answers; raises as :meth:`look`."""
        given = {k: v for k, v in arguments.items() if v is not None}
        asked(operation, given)
        with self.open("POST", f"/control/{operation}", given) as answer:
            return answer.json()

    @contextmanager
    def open(
        self,
        method: str,
        target: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> Iterator[Answer]:
        """Ask, and read the answer's body meanwhile; raises as :meth:`look`."""
        seconds = timeout_seconds or self._timeout_seconds
        connection = _UnixConnection(self.path, self._view, seconds)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with _explained(self.path):
                connection.request(
                    method,
                    target,
                    None if body is None else data,
                    {"content-type": "application/json", **(headers or {})},
                )
                response = connection.getresponse()
                if response.status >= 400:
                    raise _refusal(response.status, response.read())
            yield Answer(response, self.path)
        finally:
            connection.close()


class Answer:
    """The body of an answer, to be read as it comes; raises as :meth:`Client.look`."""

    def __init__(self, response: HTTPResponse, path: Path) -> None:
        self._response = response
        self._path = path

    def read(self, size: int = -1) -> bytes:
        """Return at most ``size`` bytes, or all there are."""
        with _explained(self._path):
            return self._response.read(None if size < 0 else size)

    def __iter__(self) -> Iterator[bytes]:
        """Yield line after line."""
        while True:
            with _explained(self._path):
                line = self._response.readline()
            if not line:
                return
            yield line

    def json(self) -> Any:
        """Return what all of it says as JSON."""
        data = self.read()
        try:
            return json.loads(data)
        except ValueError as error:
            raise Unreachable(f"what listens at {self._path} is not this daemon") from error


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Tell what goes wrong with the connection, and only that, in clear words."""
    try:
        yield
    except (OSError, HTTPException) as error:
        raise Unreachable(_explain(error, path)) from error


def _refusal(status: int, body: bytes) -> Refused:
    try:
        error = json.loads(body)
        return Refused(error["error"], error["message"])
    except (ValueError, KeyError, TypeError):
        return Refused("internal_error", f"the daemon answered with status {status}")


def _explain(error: Exception, path: Path) -> str:
    match error:
        case FileNotFoundError():
            return (
                f"there is no control socket at {path}: the daemon is not running here, or its "
                "control.socket is another one (--socket PATH, --instance N)"
            )
        case PermissionError():
            looking = (
                f", or {group_of(VIEW_DIRECTORY)} to look alone" if VIEW_DIRECTORY.is_dir() else ""
            )
            return (
                f"{path} may not be opened by this user: use sudo, or join the group "
                f"{group_of(path)}{looking}"
            )
        case ConnectionRefusedError():
            return f"nobody listens at {path}: the daemon has died; systemctl status ai-ticket"
        case TimeoutError():
            return (
                f"the daemon at {path} does not answer in time: it hangs or is very busy; "
                "kill -USR1 makes it log where it waits"
            )
    return f"the daemon at {path} broke off: {str(error) or type(error).__name__}"
