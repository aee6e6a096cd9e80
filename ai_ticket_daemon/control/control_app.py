"""What is served on the control socket: the operations, and the public routes without tokens.

Whoever may open the socket (its owner and its group) may do everything; :mod:`view_app` is for
those who may only look. Each change is logged with the user id of its maker, as the kernel tells
it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl

import msgspec
import trio
from quart import Response, request
from quart.asgi import ASGIHTTPConnection
from quart.wrappers.response import ResponseBody
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.exceptions import (
    HTTPException,
    InternalServerError,
    MethodNotAllowed,
    RequestEntityTooLarge,
    RequestTimeout,
)

from ai_ticket_daemon.control.operation import Access, Answer
from ai_ticket_daemon.errors import ErrorCode, RequestRefused, TicketError
from ai_ticket_daemon.events.json_bounds import Excessive, values_of
from ai_ticket_daemon.server.answers import error_object, host_exhausted, to_json
from ai_ticket_daemon.server.listen.connection_state import INVITE, ask

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from hypercorn.typing import ASGIFramework
    from quart.wrappers import Request
    from structlog.typing import FilteringBoundLogger

    from ai_ticket_daemon.control.operation import Operation
    from ai_ticket_daemon.host.exhaustion import Exhaustion

PREFIX = "/control/"
MAX_BODY_BYTES = 65_536
BODY_SECONDS = 5.0
_PIECE_BYTES = 65_536
_PIECE_SECONDS = 30.0
_CRASHED = "The daemon failed at this; its log has the details."


class ControlApp:
    """The ASGI app of the control socket: a Quart app for the operations, beside the public routes.

    Args:
        operations: what there is.
        public: serves all paths but those under ``/control/``.
        log: where the audit goes.
        exhaustion: is told of what the host lacks.
    """

    def __init__(
        self,
        operations: Mapping[str, Operation],
        *,
        public: ASGIFramework,
        log: FilteringBoundLogger,
        exhaustion: Exhaustion,
    ) -> None:
        self._app = _open_app(operations, log, exhaustion)
        self._public = public

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._public(scope, receive, send)
            return

        async def send_in_time(message: Any) -> None:
            with trio.fail_after(_PIECE_SECONDS):
                await send(message)

        await self._app(scope, receive, send_in_time)


class _Connection(TrioASGIHTTPConnection):
    async def handle_messages(  # type: ignore[override]
        self, _nursery: object, request: Request, receive: Any
    ) -> None:
        """Take the body in. An operation that was begun ends by itself, whoever leaves."""
        await ASGIHTTPConnection.handle_messages(self, request, receive)


class _QuartApp(QuartTrio):
    asgi_http_class = _Connection

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__("ai_ticket_control", static_folder=None)
        self._log = log

    def log_exception(self, exception_info: Any) -> None:
        """Log what no operation has caught."""
        self._log.error("control_crashed", operation=request.path, exc_info=exception_info)

    def create_url_adapter(self, request: Any) -> Any:
        """Find operations by path alone: the name of the host means nothing on this socket."""
        if request is None:
            return None
        return self.url_map.bind("control", path_info=request.path, default_method=request.method)


def _open_app(
    operations: Mapping[str, Operation], log: FilteringBoundLogger, exhaustion: Exhaustion
) -> _QuartApp:
    app = _QuartApp(log)
    app.url_map.merge_slashes = False
    app.config.update(
        MAX_CONTENT_LENGTH=MAX_BODY_BYTES,
        BODY_TIMEOUT=BODY_SECONDS,
        RESPONSE_TIMEOUT=None,
        PROVIDE_AUTOMATIC_OPTIONS=False,
    )
    for operation in operations.values():
        app.add_url_rule(
            PREFIX + operation.name,
            operation.name,
            partial(_serve, operation, log, exhaustion),
            methods=[operation.access.value],
        )
    app.register_error_handler(TicketError, _refusal)
    app.register_error_handler(HTTPException, _explained)
    return app


async def _serve(
    operation: Operation, log: FilteringBoundLogger, exhaustion: Exhaustion
) -> Response:
    """Run the operation that this request asks for."""
    arguments = _convert(await _read_arguments(operation), operation)
    said = "failed"
    try:
        with trio.fail_after(operation.seconds):
            answer = await operation.call(arguments)
        said = "done"
        if isinstance(answer, Answer):
            said = answer.result
            answer = answer.told
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
        lacking = exhaustion.meets(error, "control")
        if lacking is not None:
            said = ErrorCode.HOST_EXHAUSTED.value
            raise host_exhausted(lacking) from error
        log.exception("control_crashed", operation=operation.name)
        raise TicketError(ErrorCode.INTERNAL_ERROR, _CRASHED) from error
    finally:
        if operation.access is Access.ACT:
            state = _state()
            log.warning(
                "control_change",
                operation=operation.name,
                arguments=msgspec.to_builtins(arguments),
                uid=state.get("peer_uid"),
                pid=state.get("peer_pid"),
                socket="control",
                result=said,
            )
    if isinstance(answer, Path):
        size = (await trio.Path(answer).stat()).st_size
        return Response(
            _SentFile(answer),
            headers={"content-type": "application/octet-stream", "content-length": str(size)},
        )
    return _json(200, answer)


async def _read_arguments(operation: Operation) -> object:
    if operation.access is Access.LOOK:
        return dict(parse_qsl(request.query_string.decode("utf-8", "replace")))
    await ask(cast("dict[str, Any]", request.scope), INVITE)
    body = cast("bytes", await request.get_data())
    return _decode(body or b"{}")


def _state() -> Mapping[str, Any]:
    """Return what the connection knows: who is at its other end, and how to ask for the body."""
    return cast("dict[str, Any]", request.scope).get("state") or {}


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
        return msgspec.convert(raw, operation.arguments, strict=operation.access is Access.ACT)
    except msgspec.ValidationError as error:
        raise RequestRefused(ErrorCode.INVALID_PARAMETER, str(error)) from error


def _refusal(error: TicketError) -> Response:
    return _json(error.http_status, error_object(error, event_id=None, trace_id=None))


def _explained(error: HTTPException) -> Response:
    """Answer in the daemon's own words what Quart found wrong with a request."""
    refusal: TicketError
    match error:
        case MethodNotAllowed():
            method = "GET" if "GET" in (error.valid_methods or ()) else "POST"
            refusal = RequestRefused(ErrorCode.METHOD_NOT_ALLOWED, f"Ask for this by {method}.")
        case InternalServerError():
            refusal = TicketError(ErrorCode.INTERNAL_ERROR, _CRASHED)
        case RequestEntityTooLarge():
            refusal = RequestRefused(
                ErrorCode.PAYLOAD_TOO_LARGE, f"More than {MAX_BODY_BYTES} bytes were sent."
            )
        case RequestTimeout():
            refusal = RequestRefused(ErrorCode.REQUEST_TIMEOUT, "The body did not arrive in time.")
        case _:
            refusal = RequestRefused(ErrorCode.NOT_FOUND, "There is no such operation.")
    return _refusal(refusal)


def _json(status: int, value: object) -> Response:
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    return Response(to_json(value), status, headers)


class _SentFile(ResponseBody):
    """A file that is sent in pieces, and removed in the end."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __aenter__(self) -> AsyncIterator[bytes]:
        self._file = await trio.open_file(self._path, "rb")
        return self._pieces()

    async def __aexit__(self, *_error: object) -> None:
        with trio.CancelScope(shield=True):
            await self._file.aclose()
            await trio.Path(self._path).unlink(missing_ok=True)

    async def _pieces(self) -> AsyncIterator[bytes]:
        while piece := await self._file.read(_PIECE_BYTES):
            yield piece
