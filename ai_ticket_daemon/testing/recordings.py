"""Recorded HTTP exchanges: read them, send them again over a raw socket, compare the answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import trio

__all__ = [
    "NEWER_VARYING",
    "Answer",
    "Recording",
    "differences",
    "load_recordings",
    "parse_answer",
    "receive",
]

VARYING = frozenset(
    {"text", "content", "token", "created", "uptime", "idletime", "ids", "total_gens"}
    | {"last_process", "last_eval", "last_token_count", "last_seed", "stop_reason"}
)
"""Members whose value depends on the model, the machine or the moment."""
NEWER_VARYING = VARYING | {
    *("id", "prompt_tokens", "completion_tokens", "total_tokens", "reasoning_content"),
    *("last_input_count", "last_process_time", "last_eval_time"),
    *("last_process_speed", "last_eval_speed"),
}
"""The same of version 1.115, which tells true figures."""
_CLOCK = frozenset({"uptime", "idletime"})
_TEXTS = frozenset({"text", "content", "token", "reasoning_content"})


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
            headers.pop("Content-Length", None)
        if data and not {"Transfer-Encoding", "Content-Length"} & headers.keys():
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


def differences(
    recording: Recording,
    answer: Answer,
    *,
    exact: bool = False,
    varying: frozenset[str] = VARYING,
) -> list[str]:
    """What sets an answer apart from the recorded one, in sentences; empty if nothing does.

    Args:
        recording: The exchange with the real server.
        answer: What came this time.
        exact: Compare figures too, except those of the clock.
        varying: Members that differ from time to time.
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
    varying = _CLOCK if exact else varying
    if recording.streamed:
        found += _stream_differences(expected.body, answer.body, varying)
    elif expected.headers["content-type"].startswith("text/html; charset"):
        pass  # A page for people, which the recording does not hold whole.
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
    if name in varying and {type(expected), type(actual)} == {int, float}:
        return []  # A nought has no decimal point.
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
    expected_end, end = _end(recorded), _end(events)
    not_yet = {_finish_reason(data) for _, data in recorded[: len(recorded) - len(expected_end)]}
    for number, (before, data) in enumerate(events):
        if before != recorded[-1][0]:
            found.append(f"event {number} begins with {before!r}")
        reason = _finish_reason(data)
        if number < len(events) - len(end) and not_yet and reason not in not_yet:
            found.append(f"event {number} does not end the stream, but has {reason!r}")
    if len(expected_end) != len(end):
        found.append(f"{len(end)} events from the end on, instead of {len(expected_end)}")
    for number, (told, now) in enumerate(zip(expected_end, end, strict=False)):
        # A text may be empty or not, so it takes no part in the comparison.
        where = f"event {number} of the end"
        found += _value_differences(_untold(told), _untold(now), varying, where)
    whole = [any(_text(data) for _, data in stream) for stream in (recorded, events)]
    if whole[0] != whole[1]:
        found.append(f"the stream has text: {whole[1]}, the recorded one: {whole[0]}")
    return found


def _end(events: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the events from the one that tells the reason on; the last one if none does."""
    data = [data for _, data in events]
    for number, value in enumerate(data):
        if _finish_reason(value) not in ("null", None):
            return data[number:]
    return data[-1:]


def _events(body: str) -> tuple[list[tuple[str, dict[str, Any]]], str]:
    """Split into (lines before the data, data) and what is left: the end mark, or half an event."""
    *blocks, rest = body.split("\n\n")
    if blocks and blocks[-1] == "data: [DONE]":
        rest = blocks.pop() + "\n\n" + rest
    events = []
    for block in blocks:
        before, _, data = block.rpartition("data: ")
        events.append((before, json.loads(data)))
    return events, rest


def _finish_reason(data: dict[str, Any]) -> object:
    choices = data.get("choices", [data])
    return choices[0].get("finish_reason") if choices else None


def _text(data: dict[str, Any]) -> object:
    if "choices" not in data:
        return data.get("token")
    for choice in data["choices"]:
        delta = choice.get("delta", choice)
        return delta.get("text") or delta.get("content") or delta.get("reasoning_content")
    return None


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
