"""The control port of a simulated server: faults on and off, and its state, as JSON over HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import trio

from .faults import SCRIPTS, Faults, ScriptedAnswer
from .wire import ClientGone, Connection, json_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .server import SimulatedKobold
    from .wire import Request

__all__ = ["KINDS", "BadFault", "apply_fault", "serve_control"]


class BadFault(Exception):
    """A fault that does not exist or was asked for wrongly; the message is for its sender."""


_NUMBER = (int, float)
KINDS: Mapping[str, tuple[Callable[..., None], Mapping[str, type | tuple[type, ...]]]] = {
    "die": (Faults.die, {"reset": bool}),
    "restart": (Faults.restart, {"after_seconds": _NUMBER, "reset": bool}),
    "refuse": (Faults.refuse, {}),
    "start_again": (Faults.start_again, {}),
    "freeze": (Faults.freeze, {}),
    "stall": (Faults.stall, {"after_tokens": int, "ignores_abort": bool}),
    "slow_down": (Faults.slow_down, {"tokens_per_second": _NUMBER, "prompt_seconds": _NUMBER}),
    "lose_model": (Faults.lose_model, {}),
    "swap_model": (Faults.swap_model, {"model": str, "context_tokens": int}),
    "answer_busy": (Faults.answer_busy, {}),
    "reject_credentials": (Faults.reject_credentials, {}),
    "cut_stream": (Faults.cut_stream, {"after_events": int, "times": int, "reset": bool}),
    "leave_out_end": (Faults.leave_out_end, {"of": str, "times": int}),
    "unload": (Faults.unload, {}),
    "reload": (Faults.reload, {}),
    "script": (
        Faults.script,
        {"answer": str, "raw": str, "status": int, "body": str, "times": int},
    ),
}


def apply_fault(faults: Faults, order: Any) -> None:
    """Put a fault in force, given as ``{"kind": name, argument: value, ...}``.

    Raises:
        BadFault: The order is not one of `KINDS` with its arguments.
    """
    if not isinstance(order, dict) or order.get("kind") not in KINDS:
        raise BadFault(f'send {{"kind": ...}} with one of: {", ".join(KINDS)}')
    method, types = KINDS[order["kind"]]
    arguments = {name: value for name, value in order.items() if name != "kind"}
    for name, value in arguments.items():
        if name not in types:
            raise BadFault(
                f"{order['kind']} knows {', '.join(types) or 'no arguments'}: not {name}"
            )
        if not isinstance(value, types[name]):
            raise BadFault(f"{name} must not be a {type(value).__name__}: {value!r}")
    if order["kind"] == "script":
        arguments = _script_arguments(arguments)
    try:
        method(faults, **arguments)
    except (TypeError, ValueError) as error:
        raise BadFault(str(error)) from error


def _script_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    times = {"times": arguments["times"]} if "times" in arguments else {}
    if "raw" in arguments:
        return {"answer": ScriptedAnswer(arguments["raw"].encode("latin-1", "replace")), **times}
    if "status" in arguments:
        answer = ScriptedAnswer.of(arguments["status"], arguments.get("body", ""))
        return {"answer": answer, **times}
    if "answer" in arguments:
        return {"answer": arguments["answer"], **times}
    raise BadFault(f"script needs raw, or status and body, or answer: {', '.join(SCRIPTS)}")


async def serve_control(
    simulated: SimulatedKobold,
    port: int = 0,
    *,
    host: str = "127.0.0.1",
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``POST /fault``, ``POST /clear`` and ``GET /state`` until cancelled."""
    with trio.socket.socket() as listener:
        listener.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
        await listener.bind((host, port))
        listener.listen()
        # Its own faults never bear on the control port: this object stays healthy.
        healthy = Faults(simulated, lambda: None)
        async with trio.open_nursery() as nursery:
            task_status.started(listener.getsockname()[1])
            while True:
                accepted, _ = await listener.accept()
                nursery.start_soon(_handle, simulated, Connection(accepted, healthy))


async def _handle(simulated: SimulatedKobold, connection: Connection) -> None:
    try:
        with trio.move_on_after(10):
            request = await connection.read_request()
            if request is not None:
                body = await connection.read_body(request)
                await connection.send(_answer(simulated, request, body))
    except ClientGone:
        pass
    finally:
        connection.close()


def _answer(simulated: SimulatedKobold, request: Request, body: bytes) -> bytes:
    match request.method, request.path:
        case "GET", "/state":
            return json_answer(simulated.state())
        case "POST", "/clear":
            simulated.faults.clear()
            return json_answer({"ok": True})
        case "POST", "/fault":
            try:
                apply_fault(simulated.faults, json.loads(body))
            except (BadFault, ValueError) as error:
                return json_answer({"error": str(error)}, status=400)
            return json_answer({"ok": True})
    return json_answer({"error": "there are GET /state, POST /fault, POST /clear"}, status=400)
