"""What odd servers were seen to answer, or could: bytes, and what they are worth."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from typing import Any

from ai_ticket_daemon.errors import ErrorCode
from tests.support.hostile_server import Odd, Then

E = ErrorCode
CHUNKED = "transfer-encoding: chunked"
GZIP = "content-encoding: gzip"


def answer(
    body: bytes | str | object, status: str = "200 OK", *headers: str, length: int | None = None
) -> bytes:
    """Return an answer with a length and these headers."""
    data = body if isinstance(body, bytes) else body if isinstance(body, str) else json.dumps(body)
    data = data.encode() if isinstance(data, str) else data
    lines = [
        f"HTTP/1.1 {status}",
        *headers,
        f"content-length: {len(data) if length is None else length}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def chat(content: object = "Hello.", finish: object = "stop", **more: object) -> dict[str, Any]:
    """Return the JSON of a plain chat answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}}
    return {"choices": [choice | {"finish_reason": finish}], **more}


def stream(*frames: object, head: str = "", end: bytes = b"data: [DONE]\n\n") -> bytes:
    """Return a stream of events; a frame that is bytes is sent as it is."""
    parts = [
        frame if isinstance(frame, bytes) else b"data: " + json.dumps(frame).encode() + b"\n\n"
        for frame in frames
    ]
    first = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{head}\r\n"
    return first.encode() + b"".join(parts) + end


def delta(content: object = None, finish: object = None, **more: object) -> dict[str, Any]:
    """Return the JSON of one event of a chat stream."""
    return {
        "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish}]
    } | more


def thought(reasoning: object, content: object = None, key: str = "reasoning_content") -> Any:
    """Return the JSON of one event of a chat stream that thinks."""
    return {"choices": [{"delta": {"content": content, key: reasoning}, "finish_reason": None}]}


def thoughtful(reasoning: object, content: object = "Hello.") -> dict[str, Any]:
    """Return the JSON of a plain chat answer with thinking."""
    message = {"role": "assistant", "content": content, "reasoning_content": reasoning}
    return {"choices": [{"message": message, "finish_reason": "stop"}]}


@dataclass(frozen=True)
class Case:
    """An answer to a generation, and what comes of it: a text, or an error of this code.

    ``kobold`` is the code of a server of kind ``koboldcpp``, where it differs, since such a server
    can be asked whether it is the same as before. ``says`` has to be in the error's message.
    """

    odd: Odd
    code: ErrorCode | None = None
    text: str | None = None
    kobold: ErrorCode | None = None
    says: str = ""


def fails(raw: bytes, code: ErrorCode, says: str = "", kobold: ErrorCode | None = None) -> Case:
    """Return the case of an error."""
    return Case(Odd(raw), code, says=says, kobold=kobold)


def gives(raw: bytes, text: str) -> Case:
    """Return the case of a success."""
    return Case(Odd(raw), text=text)


def status(number: str, code: ErrorCode, says: str = "", body: object = None) -> Case:
    """Return the case of a status."""
    return fails(answer("" if body is None else body, number), code, says)


DEEP = b"[" * 100_000
HELLO = [delta("Hel"), delta("lo."), delta("", "stop")]
LONG = "x" * 300_000
EMOJI = b'data: {"choices":[{"delta":{"content":"\\ud83d"}}]}\n\n'
EMOJI_END = b'data: {"choices":[{"delta":{"content":"\\ude00!"},"finish_reason":"stop"}]}\n\n'

ANY: dict[str, Case] = {
    # Not HTTP, or hardly.
    "closes without a byte": fails(b"", E.API_CONNECTION_ERROR, kobold=E.API_CLIENT_ERROR),
    "resets": Case(Odd(then=Then.RESET), E.API_CONNECTION_ERROR),
    "closes its half": Case(
        Odd(then=Then.HALF_CLOSE), E.API_CONNECTION_ERROR, kobold=E.API_CLIENT_ERROR
    ),
    "says nothing": Case(Odd(then=Then.HANG), E.API_TIMEOUT),
    "HTTP/0.9": fails(b"<html>hello</html>\r\n\r\n", E.API_RESPONSE_FORMAT_ERROR, "not HTTP"),
    "garbage": fails(b"\x00\xff\x80" * 100 + b"\r\n\r\n", E.API_RESPONSE_FORMAT_ERROR, "not HTTP"),
    "a TLS alert": fails(b"\x15\x03\x01\x00\x02\x02\x46", E.API_RESPONSE_FORMAT_ERROR, "not HTTP"),
    "a status that is no number": fails(
        b"HTTP/1.1 OK\r\n\r\n", E.API_RESPONSE_FORMAT_ERROR, "not HTTP"
    ),
    "half a head": fails(
        b"HTTP/1.1 200 OK\r\nserver: x", E.API_CONNECTION_ERROR, kobold=E.API_CLIENT_ERROR
    ),
    "headers without end": Case(
        Odd(b"HTTP/1.1 200 OK\r\n", endless=b"x-header: " + b"y" * 4000 + b"\r\n"),
        E.API_RESPONSE_FORMAT_ERROR,
        says="not HTTP",
    ),
    "one header without end": Case(
        Odd(b"HTTP/1.1 200 OK\r\nx: ", endless=b"y" * 4096), E.API_RESPONSE_FORMAT_ERROR
    ),
    "a NUL in a header": fails(
        b"HTTP/1.1 200 OK\r\nx: a\x00b\r\n\r\n", E.API_RESPONSE_FORMAT_ERROR
    ),
    "100 continue without end": Case(
        Odd(endless=b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        E.API_RESPONSE_FORMAT_ERROR,
        says="not HTTP",
    ),
    "switches protocols": fails(
        b"HTTP/1.1 101 Switching\r\n\r\n\x00\x01", E.API_RESPONSE_FORMAT_ERROR
    ),
    "two lengths": fails(
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        E.API_RESPONSE_FORMAT_ERROR,
    ),
    "a negative length": fails(answer("{}", length=-1), E.API_RESPONSE_FORMAT_ERROR),
    "a length beyond the body": fails(answer(chat(), length=100_000), E.API_CONNECTION_ERROR),
    "a chunk size that is no number": fails(
        answer("", "200 OK").split(b"\r\n")[0]
        + b"\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        E.API_CONNECTION_ERROR,
    ),
    "a chunk extension without end": Case(
        Odd(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", endless=b"e" * 4096),
        E.API_CONNECTION_ERROR,
    ),
    # Statuses.
    "204": status("204 No Content", E.API_SERVER_ERROR, "no completion comes with"),
    "a redirect": fails(
        answer("", "302 Found", "location: http://127.0.0.1:1/"), E.API_CLIENT_ERROR, "redirects"
    ),
    "400": status("400 Bad Request", E.API_CLIENT_ERROR, "malformed"),
    "401": status("401 Unauthorized", E.API_AUTHENTICATION_ERROR),
    "402": status("402 Payment Required", E.API_CLIENT_ERROR, "no credit"),
    "404 in its own words": status(
        "404 Not Found",
        E.API_CLIENT_ERROR,
        'it says: "The model `x` does not exist."',
        {"object": "error", "message": "The model `x` does not exist.", "code": 404},
    ),
    "408": status("408 Request Timeout", E.API_TIMEOUT, "(408)"),
    "409": status("409 Conflict", E.API_CLIENT_ERROR, "(409)"),
    "410": status("410 Gone", E.API_CLIENT_ERROR, "(410)"),
    "413": status("413 Too Large", E.API_CLIENT_ERROR, "(413)"),
    "421": status("421 Misdirected Request", E.API_CLIENT_ERROR, "(421)"),
    "423": status("423 Locked", E.API_SERVER_ERROR, "no fault of the request"),
    "424": status("424 Failed Dependency", E.API_SERVER_ERROR),
    "425": status("425 Too Early", E.API_SERVER_ERROR),
    "429": status("429 Too Many Requests", E.API_RATE_LIMITED),
    "499": status("499 Client Closed Request", E.API_SERVER_ERROR),
    "503": status("503 Service Unavailable", E.API_RATE_LIMITED),
    "999": status("999 Odd", E.API_SERVER_ERROR),
    "an error that is a text": status(
        "500 Error", E.API_SERVER_ERROR, 'it says: "out of memory"', {"error": "out of memory"}
    ),
    "FastAPI's list of errors": status(
        "422 Unprocessable",
        E.API_CLIENT_ERROR,
        'it says: "field required"',
        {"detail": [{"loc": ["body", "x"], "msg": "field required", "type": "missing"}]},
    ),
    "a message alone": status("500 Error", E.API_SERVER_ERROR, "no GPU", {"message": "no GPU"}),
    "an error page in plain text": status(
        "502 Bad Gateway", E.API_SERVER_ERROR, 'it says: "upstream is away"', "upstream is away\n"
    ),
    "an error page in HTML": status("502 Bad", E.API_SERVER_ERROR, "", "<html>no</html>"),
    "an error with terminal escapes": status(
        "500 Error",
        E.API_SERVER_ERROR,
        'it says: "\ufffd[31m red"',
        {"error": {"message": "\x1b[31m\nred", "type": ["x"], "code": {"a": 1}}},
    ),
    "an error of a megabyte": status("500 Error", E.API_SERVER_ERROR, "", {"error": "x" * 2**20}),
    "an error that repeats the ticket": status(
        "400 Bad", E.API_CLIENT_ERROR, "malformed", {"error": "cannot read: Please greet me"}
    ),
    "an early answer": Case(
        Odd(answer({"error": "not now"}, "500 Error"), early=True), E.API_SERVER_ERROR
    ),
    # Bodies of status 200 that are no completion.
    "an error in an answer of status 200": fails(
        answer({"error": "model is broken"}, "200 OK", "content-type: application/json"),
        E.API_SERVER_ERROR,
        'it says: "model is broken"',
    ),
    "a limit in an answer of status 200": fails(
        answer(
            {"error": {"code": 429, "message": "slow"}}, "200 OK", "content-type: application/json"
        ),
        E.API_RATE_LIMITED,
    ),
    "gzip": fails(
        answer(gzip.compress(json.dumps(chat()).encode()), "200 OK", GZIP),
        E.API_RESPONSE_FORMAT_ERROR,
        "compressed",
    ),
}

PLAIN: dict[str, Case] = ANY | {
    "a completion": gives(answer(chat()), "Hello."),
    "a completion of an old server": gives(
        b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps(chat()).encode(), "Hello."
    ),
    "a completion in crumbs": Case(Odd(answer(chat("x" * 500)), crumbs=True), text="x" * 500),
    "more than its length": gives(answer(chat()) + b"HTTP/1.1 500 Error\r\n\r\n", "Hello."),
    "a byte order mark": gives(answer(b"\xef\xbb\xbf" + json.dumps(chat()).encode()), "Hello."),
    "a body that drips": Case(Odd(answer(chat(), length=10_000), then=Then.HANG), E.API_TIMEOUT),
    "a body without end": Case(
        Odd(b"HTTP/1.1 200 OK\r\n\r\n" + b'{"a":"', endless=b"x" * 65_536),
        E.API_RESPONSE_FORMAT_ERROR,
        says="max_tokens",
    ),
    "an empty body": fails(answer(""), E.API_RESPONSE_FORMAT_ERROR),
    "null": fails(answer("null"), E.API_CLIENT_ERROR),
    "a number": fails(answer("7"), E.API_RESPONSE_STRUCTURE_ERROR),
    "a list": fails(answer("[]"), E.API_RESPONSE_STRUCTURE_ERROR),
    "an object": fails(answer("{}"), E.API_RESPONSE_STRUCTURE_ERROR),
    "HTML": fails(answer("<html>"), E.API_RESPONSE_FORMAT_ERROR, "not JSON"),
    "deep JSON": fails(answer(DEEP[:20_000]), E.API_RESPONSE_FORMAT_ERROR),
    "many values": fails(answer(b"[" + b"[]," * 30_000 + b"[]]"), E.API_RESPONSE_FORMAT_ERROR),
    "a number without end": fails(
        answer(b'{"a":' + b"1" * 9000 + b"}"), E.API_RESPONSE_FORMAT_ERROR
    ),
    "a byte that is not UTF-8": fails(
        answer(b'{"choices":[{"message":{"content":"\xff"}}]}'),
        E.API_RESPONSE_FORMAT_ERROR,
        "not UTF-8",
    ),
    "a name given twice": gives(
        answer(b'{"choices":[],' + json.dumps(chat()).encode()[1:]), "Hello."
    ),
    "no choice": fails(answer({"choices": []}), E.API_RESPONSE_STRUCTURE_ERROR),
    "no choice but a usage": fails(
        answer({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}),
        E.API_RESPONSE_STRUCTURE_ERROR,
    ),
    "no content": gives(answer({"choices": [{"message": {}, "finish_reason": "stop"}]}), ""),
    "null for a content": gives(answer(chat(None)), ""),
    "a content in parts": gives(
        answer(chat([{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo."}])), "Hello."
    ),
    "a number for a content": fails(answer(chat(0)), E.API_RESPONSE_STRUCTURE_ERROR),
    "a refusal": gives(
        answer(
            {"choices": [{"message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}]}
        ),
        "No.",
    ),
    "a call of a tool": fails(
        answer(chat(None, "tool_calls")), E.API_RESPONSE_STRUCTURE_ERROR, "tool"
    ),
    "a list for a finish reason": fails(answer(chat("x", [1])), E.API_RESPONSE_STRUCTURE_ERROR),
    "finish: error": fails(answer(chat("Hel", "error")), E.API_SERVER_ERROR, "gave up"),
    "finish: abort": fails(answer(chat("Hel", "abort")), E.API_SERVER_ERROR, "gave up"),
    "finish: content_filter": fails(
        answer(chat("Hel", "content_filter")), E.API_CLIENT_ERROR, "filter"
    ),
    "finish: a word nobody knows": gives(answer(chat("Hello.", "zzz\x1b[2J")), "Hello."),
    "half a character": gives(
        answer(b'{"choices":[{"message":{"content":"a\\ud83d"},"finish_reason":"stop"}]}'),
        "a\ufffd",
    ),
    "thinking apart": gives(answer(thoughtful("Hm.")), "Hello."),
    "thinking that is a number": gives(answer(thoughtful(7)), "Hello."),
    "thinking that is a list": gives(answer(thoughtful(["Hm."])), "Hello."),
    "thinking and no answer": gives(answer(thoughtful("Hm.", None)), ""),
    "thinking apart and a tag in the answer": gives(
        answer(thoughtful("Hm.", "<think>Hello.")), "<think>Hello."
    ),
    "thinking in the text": gives(answer(chat("<think>Hm.</think>\nHello.")), "Hello."),
    "a NUL in the text": gives(answer(chat("a\x00b")), "a\x00b"),
    "odd figures": gives(
        answer(
            json.dumps(chat()).encode()[:-1]
            + b',"usage":{"prompt_tokens":1e999,"completion_tokens":NaN,"total_tokens":[]}}'
        ),
        "Hello.",
    ),
    "huge figures": gives(
        answer(chat(usage={"prompt_tokens": 10**300, "completion_tokens": -5})), "Hello."
    ),
}

STREAMED: dict[str, Case] = ANY | {
    "a stream": gives(stream(*HELLO), "Hello."),
    "crumbs": Case(Odd(stream(*HELLO), crumbs=True), text="Hello."),
    "an answer that is no stream": gives(
        answer(chat(), "200 OK", "content-type: application/json; charset=utf-8"), "Hello."
    ),
    "frames without text": gives(
        stream(
            {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
            {"choices": None},
            {"id": "x"},
            b"data:\n\n",
            b"data: null\n\n",
            delta("Hel"),
            {"choices": [{"delta": None}]},
            {"choices": [{"delta": {}}]},
            {"choices": [{}]},
            delta("lo.", "stop"),
            {"choices": [{"delta": None, "finish_reason": None}]},
            {"choices": [], "usage": {"prompt_tokens": 1.0, "completion_tokens": 2.5}},
            {"choices": [], "usage": {"prompt_tokens": {}}},
            {"choices": [], "usage": 7},
        ),
        "Hello.",
    ),
    "a byte order mark": gives(stream(b"\xef\xbb\xbf", *HELLO), "Hello."),
    "CR for line ends": gives(
        stream(b"".join(b"data: " + json.dumps(f).encode() + b"\r\r" for f in HELLO)), "Hello."
    ),
    "an emoji in two halves": gives(stream(EMOJI, EMOJI_END), "\U0001f600!"),
    "thinking": gives(stream(thought("Hm"), thought("."), *HELLO), "Hello."),
    "thinking by its other name": gives(stream(thought("Hm", key="reasoning"), *HELLO), "Hello."),
    "thinking between": gives(stream(HELLO[0], thought("Hm"), *HELLO[1:]), "Hello."),
    "thinking and answer at once": gives(stream(thought("Hm", "Hel"), *HELLO[1:]), "Hello."),
    "thinking that is no text": gives(stream(thought(["Hm"]), thought({}), *HELLO), "Hello."),
    "half an emoji in thinking": gives(stream(thought("\ud83d"), *HELLO), "Hello."),
    "a tag in three pieces": gives(
        stream(delta("<th"), delta("ink>Hm.</"), delta("think>Hel"), *HELLO[1:]), "Hello."
    ),
    "thinking without end": Case(
        Odd(stream(end=b""), endless=stream(thought("x" * 60_000), end=b"").split(b"\r\n\r\n")[1]),
        E.API_RESPONSE_FORMAT_ERROR,
        says="max_tokens",
    ),
    "thinking that stands still": Case(
        Odd(stream(thought("Hm"), end=b""), Then.HANG), E.API_STALLED
    ),
    "thinking that breaks off": fails(stream(thought("Hm"), end=b""), E.API_CONNECTION_ERROR),
    "half an emoji": gives(stream(EMOJI, delta(None, "stop")), "\ufffd"),
    "cut": fails(stream(*HELLO[:2], end=b""), E.API_CONNECTION_ERROR),
    "no text at all": fails(stream(), E.API_CONNECTION_ERROR),
    "a finish and no end": gives(stream(*HELLO, end=b""), "Hello."),
    "comments without end": Case(
        Odd(stream(end=b""), endless=b": waiting\n\n" * 400), E.API_RESPONSE_FORMAT_ERROR
    ),
    "comments that trickle": Case(Odd(stream(b": hello\n\n", end=b""), Then.HANG), E.API_TIMEOUT),
    "a line without end": Case(
        Odd(stream(b"data: ", end=b""), endless=b"x" * 65_536), E.API_RESPONSE_FORMAT_ERROR
    ),
    "text without end": Case(
        Odd(
            stream(end=b""),
            endless=b'data: {"choices":[{"delta":{"content":"' + b"x" * 8000 + b'"}}]}\n\n',
        ),
        E.API_RESPONSE_FORMAT_ERROR,
        says="max_tokens",
    ),
    "a frame that is not JSON": fails(
        stream(b"data: hello\n\n"), E.API_RESPONSE_FORMAT_ERROR, "not JSON"
    ),
    "a frame that is a number": fails(stream(b"data: 7\n\n"), E.API_RESPONSE_STRUCTURE_ERROR),
    "a deep frame": fails(stream(b"data: " + DEEP[:5000] + b"\n\n"), E.API_RESPONSE_FORMAT_ERROR),
    "a byte that is not UTF-8": fails(
        stream(b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n'),
        E.API_RESPONSE_FORMAT_ERROR,
        "not UTF-8",
    ),
    "an error as an event": fails(
        stream(b'event: error\ndata: {"message": "no GPU"}\n\n'), E.API_SERVER_ERROR, "no GPU"
    ),
    "an error as a field": fails(
        stream(b'error: {"code": 503, "message": "no slot"}\n\n'), E.API_RATE_LIMITED
    ),
    "an error as a text": fails(stream({"error": "no GPU"}), E.API_SERVER_ERROR, "no GPU"),
    "finish: error": fails(stream(delta("Hel"), delta(None, "error")), E.API_SERVER_ERROR),
    "finish: content_filter": fails(
        stream(delta("Hel"), delta(None, "content_filter")), E.API_CLIENT_ERROR, "filter"
    ),
    "a call of a tool": fails(
        stream({"choices": [{"delta": {"tool_calls": [{}]}, "finish_reason": "tool_calls"}]}),
        E.API_RESPONSE_STRUCTURE_ERROR,
        "tool",
    ),
}
