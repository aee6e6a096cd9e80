"""What is served on the control socket: the operations, and the public routes without tokens.

Whoever may open the socket (its owner and its group) may do everything. Each change is logged with
the user id of whoever made it, as the kernel tells it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl

import msgspec
import trio

from ai_ticket_daemon.errors import ErrorCode, RequestRefused, TicketError
from ai_ticket_daemon.events.json_bounds import Excessive, values_of
from ai_ticket_daemon.server.answers import error_object, to_json
from ai_ticket_daemon.server.exchange import INVITE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from hypercorn.typing import ASGIFramework
    from structlog.typing import FilteringBoundLogger

PREFIX = "/control/"
MAX_BODY_BYTES = 65_536
BODY_SECONDS = 5.0
OPERATION_SECONDS = 60.0
"""The longest an operation may take, a backup apart."""
_PIECE_BYTES = 65_536
_PIECE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing an operator can ask for.

    ``changes``: it is asked for by POST, and logged. ``call`` gets an instance of ``arguments`` and
    returns what is answered as JSON, or the path of a file, which is sent and removed.
    """

    name: str
    arguments: type[msgspec.Struct]
    call: Callable[[Any], Awaitable[object]]
    changes: bool = False
    seconds: float = OPERATION_SECONDS


class ControlSurface:
    """The ASGI app of the control socket.

    Args:
        operations: what there is.
        public: serves all paths but those under ``/control/``.
        log: where the audit goes.
    """

    def __init__(
        self,
        operations: Mapping[str, Operation],
        *,
        public: ASGIFramework,
        log: FilteringBoundLogger,
    ) -> None:
        self._operations = operations
        self._public = public
        self._log = log

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._public(scope, receive, send)
            return
        try:
            answer = await self._answer(scope, receive)
        except TicketError as error:
            refusal = error_object(error, event_id=None, trace_id=None)
            await _send(send, error.http_status, to_json(refusal))
            return
        if isinstance(answer, Path):
            await _send_file(send, answer)
        else:
            await _send(send, 200, to_json(answer))

    async def _answer(self, scope: Any, receive: Any) -> object:
        operation = self._operations.get(scope["path"].removeprefix(PREFIX))
        if operation is None:
            raise RequestRefused(ErrorCode.NOT_FOUND, "There is no such operation.")
        method = "POST" if operation.changes else "GET"
        if scope["method"] != method:
            raise RequestRefused(ErrorCode.METHOD_NOT_ALLOWED, f"Ask for this by {method}.")
        raw = await _read_arguments(scope, receive, operation)
        arguments = _convert(raw, operation)
        said = "failed"
        try:
            with trio.fail_after(operation.seconds):
                answer = await operation.call(arguments)
            said = "done"
        except trio.TooSlowError:
            raise RequestRefused(
                ErrorCode.REQUEST_TIMEOUT, f"This took longer than {operation.seconds:g} seconds."
            ) from None
        except TicketError as error:
            said = error.code.value
            raise
        except (OverflowError, UnicodeError) as error:  # of a value that nothing here can hold
            said = ErrorCode.INVALID_PARAMETER.value
            raise RequestRefused(
                ErrorCode.INVALID_PARAMETER, f"There is no such value: {error}"
            ) from error
        except Exception as error:  # the edge of one operation: the daemon goes on
            self._log.error("control_crashed", operation=operation.name, exc_info=error)
            raise TicketError(
                ErrorCode.INTERNAL_ERROR, "The daemon failed at this; its log has the details."
            ) from error
        finally:
            if operation.changes:
                state = scope.get("state") or {}
                self._log.warning(
                    "control_change",
                    operation=operation.name,
                    arguments=msgspec.to_builtins(arguments),
                    uid=state.get("peer_uid"),
                    pid=state.get("peer_pid"),
                    result=said,
                )
        return answer


async def _read_arguments(scope: Any, receive: Any, operation: Operation) -> object:
    if not operation.changes:
        return dict(parse_qsl(scope["query_string"].decode("utf-8", "replace")))
    body = bytearray()
    with trio.move_on_after(BODY_SECONDS):
        if (invite := (scope.get("state") or {}).get(INVITE)) is not None:
            await invite()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                break
            body += message["body"]
            if len(body) > MAX_BODY_BYTES:
                raise RequestRefused(
                    ErrorCode.PAYLOAD_TOO_LARGE, f"More than {MAX_BODY_BYTES} bytes were sent."
                )
            if not message.get("more_body"):
                return _decode(bytes(body) or b"{}")
    raise RequestRefused(ErrorCode.REQUEST_TIMEOUT, "The body did not arrive in time.")


def _decode(data: bytes) -> object:
    try:
        values_of(data)
        return cast("object", msgspec.json.decode(data))
    except Excessive as error:
        raise RequestRefused(
            ErrorCode.INVALID_INPUT_FORMAT, f"The body holds too much: {error.excess.value}."
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestRefused(
            ErrorCode.INVALID_INPUT_FORMAT, f"The body is no JSON: {error}"
        ) from error


def _convert(raw: object, operation: Operation) -> Any:
    try:
        return msgspec.convert(raw, operation.arguments, strict=operation.changes)
    except msgspec.ValidationError as error:
        raise RequestRefused(ErrorCode.INVALID_PARAMETER, str(error)) from error


async def _send(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _send_file(send: Any, path: Path) -> None:
    """Send a file in pieces and remove it; a reader that stops reading is left alone."""
    try:
        async with await trio.open_file(path, "rb") as file:
            size = (await trio.Path(path).stat()).st_size
            headers = [
                (b"content-type", b"application/octet-stream"),
                (b"content-length", str(size).encode()),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            while piece := await file.read(_PIECE_BYTES):
                with trio.fail_after(_PIECE_SECONDS):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        with trio.CancelScope(shield=True):
            await trio.Path(path).unlink(missing_ok=True)
