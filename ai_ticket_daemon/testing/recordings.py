"""Recorded HTTP exchanges: read them, send them again over a raw socket, compare the answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import trio

__all__ = ["Answer", "Recording", "differences", "load_recordings", "parse_answer", "receive"]

VARYING = frozenset(
    {"text", "content", "token", "created", "uptime", "idletime", "ids", "total_gens"}
    | {"last_process", "last_eval", "last_token_count", "last_seed", "stop_reason"}
)
"""Members whose value depends on the model, the machine or the moment."""
_TEXTS = frozenset({"text", "content", "token"})


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came over the wire."""

    version: str
    status: int
    headers: dict[str, str]
    body: str


@dataclass(frozen=True, slots=True)
class Recording:
    """One exchange with the real server."""

    name: str
    method: str
    path: str
    headers: dict[str, str]
    body: str | None
    outcome: str
    answer: Answer | None
    streamed: bool

    def wire_request(self, *, body: str | None = None) -> bytes:
        """The request in bytes, as HTTP/1.1.

        Args:
            body: Replaces the recorded body, and its length.
        """
        headers = {"Host": "localhost", **self.headers}
        data = (self.body or "").encode()
        if body is not None:
            data = body.encode()
            headers["Content-Length"] = str(len(data))
        if headers.get("Transfer-Encoding") == "chunked":
            data = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
        lines = [f"{self.method} {self.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def load_recordings(folder: Path) -> dict[str, Recording]:
    """Read every recording in a folder, by name."""
    return {path.stem: _load(path) for path in sorted(folder.glob("*.json"))}


def _load(path: Path) -> Recording:
    raw = json.loads(path.read_text("utf-8"))
    request, response = raw["request"], raw["response"]
    answer, streamed = None, False
    if response is not None:
        body = response["body"]
        streamed = isinstance(body, list)
        answer = Answer(
            version=response["http_version"],
            status=response["status"],
            headers=response["headers"],
            body="".join(body) if streamed else body,
        )
    return Recording(
        name=raw["name"],
        method=request["method"],
        path=request["path"],
        headers=request["headers"],
        body=request["body"],
        outcome=raw["notes"].removeprefix("outcome=").partition(";")[0],
        answer=answer,
        streamed=streamed,
    )


async def receive(
    stream: trio.abc.ReceiveStream, on_data: Callable[[bytes], None] | None = None
) -> bytes:
    """Read to the end of the connection; the caller limits the time.

    Args:
        stream: The client's end of the connection.
        on_data: Told each piece as it arrives.
    """
    data = b""
    async for piece in stream:
        data += piece
        if on_data is not None:
            on_data(bytes(piece))
    return data


def parse_answer(data: bytes) -> Answer:
    """Take an answer apart; repeated headers are joined by commas, names are in lower case."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    version, status, _ = first.split(" ", 2)
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Answer(version, int(status), headers, body.decode("ascii"))


def differences(recording: Recording, answer: Answer, *, exact: bool = False) -> list[str]:
    """What sets an answer apart from the recorded one, in sentences; empty if nothing does.

    Args:
        recording: The exchange with the real server.
        answer: What came this time.
        exact: Compare figures too, except those of the clock.
    """
    expected = recording.answer
    if expected is None:
        return [f"the recording has no answer, but this came: {answer}"]
    found = []
    if (answer.version, answer.status) != (expected.version, expected.status):
        found.append(f"status line {answer.version} {answer.status}")
    if _fixed(answer.headers) != _fixed(expected.headers):
        found.append(f"headers {answer.headers} instead of {expected.headers}")
    announced = answer.headers.get("content-length")
    if announced is not None and int(announced) != len(answer.body):
        found.append(f"content-length {announced} for {len(answer.body)} bytes")
    varying = frozenset({"uptime", "idletime"}) if exact else VARYING
    if recording.streamed:
        found += _stream_differences(expected.body, answer.body, varying)
    elif expected.headers["content-type"] == "application/json":
        found += _value_differences(json.loads(expected.body), json.loads(answer.body), varying)
    elif expected.body != answer.body:
        found.append(f"body {answer.body!r} instead of {expected.body!r}")
    return found


def _fixed(headers: dict[str, str]) -> list[tuple[str, str]]:
    return sorted((name, "" if name == "content-length" else headers[name]) for name in headers)


def _value_differences(
    expected: Any, actual: Any, varying: frozenset[str], where: str = "", name: str = ""
) -> list[str]:
    if type(expected) is not type(actual):
        return [f"{where}: {actual!r} is not a {type(expected).__name__}"]
    if isinstance(expected, dict):
        if list(expected) != list(actual):
            return [f"{where}: members {list(actual)} instead of {list(expected)}"]
        return [
            line
            for key in expected
            for line in _value_differences(
                expected[key], actual[key], varying, f"{where}.{key}", key
            )
        ]
    if isinstance(expected, list) and name in varying:
        return [f"{where}[{i}]: {x!r}" for i, x in enumerate(actual) if not isinstance(x, int)]
    if isinstance(expected, list):
        if len(expected) != len(actual):
            return [f"{where}: {len(actual)} elements instead of {len(expected)}"]
        return [
            line
            for number, pair in enumerate(zip(expected, actual, strict=True))
            for line in _value_differences(*pair, varying, f"{where}[{number}]")
        ]
    if name in varying:
        if name in _TEXTS and bool(expected) != bool(actual):
            return [f"{where}: {actual!r} instead of {expected!r}"]
        return []
    return [] if expected == actual else [f"{where}: {actual!r} instead of {expected!r}"]


def _stream_differences(expected: str, actual: str, varying: frozenset[str]) -> list[str]:
    """Compare framing and event shapes; how many events share the text is up to the clock."""
    recorded, recorded_rest = _events(expected)
    try:
        events, rest = _events(actual)
    except ValueError as error:
        return [f"an event is not JSON: {error}"]
    found = []
    if rest != recorded_rest:
        found.append(f"the stream ends in {rest!r} instead of {recorded_rest!r}")
    if not recorded or not events:
        return found if bool(recorded) == bool(events) else [*found, f"{len(events)} events"]
    recorded_last, last = recorded[-1], events[-1]
    for number, (before, data) in enumerate(events):
        if before != recorded_last[0]:
            found.append(f"event {number} begins with {before!r}")
        reasons = _finish_reason(data)
        if number < len(events) - 1 and reasons != "null":
            found.append(f"event {number} ends the stream early: {reasons!r}")
    # The text of the last event may be empty or not, so it takes no part in the comparison.
    found += _value_differences(_untold(recorded_last[1]), _untold(last[1]), varying, "last event")
    whole = [any(_text(data) for _, data in stream) for stream in (recorded, events)]
    if whole[0] != whole[1]:
        found.append(f"the stream has text: {whole[1]}, the recorded one: {whole[0]}")
    return found


def _events(body: str) -> tuple[list[tuple[str, dict[str, Any]]], str]:
    """Split into (lines before the data, data) and what is left after the last blank line."""
    *blocks, rest = body.split("\n\n")
    events = []
    for block in blocks:
        before, _, data = block.rpartition("data: ")
        events.append((before, json.loads(data)))
    return events, rest


def _finish_reason(data: dict[str, Any]) -> object:
    choice = data["choices"][0] if "choices" in data else data
    return choice.get("finish_reason")


def _text(data: dict[str, Any]) -> object:
    if "choices" not in data:
        return data.get("token")
    choice = data["choices"][0]
    return choice["text"] if "text" in choice else choice["delta"]["content"]


def _untold(data: dict[str, Any]) -> Any:
    """The same event with its texts made equal."""

    def without_text(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: type(inner)() if key in _TEXTS else without_text(inner)
                for key, inner in value.items()
            }
        return [without_text(inner) for inner in value] if isinstance(value, list) else value

    return without_text(data)
