"""Mutated answers of servers: a client makes of each a completion or an error, and goes on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.backends.factory import open_client
from ai_ticket_daemon.backends.generation import GenerationRequest
from ai_ticket_daemon.backends.transport.wire import Wire
from ai_ticket_daemon.config.backends import BackendKind, Dialect, ServerConfig
from ai_ticket_daemon.errors import TicketError
from ai_ticket_daemon.events.event import Message, Role, Sampling
from tests.support.attacks.fuzzing import cases, mutate
from tests.support.scripted_stream import ScriptedStream, connection_over

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.generation import BackendClient
    from ai_ticket_daemon.backends.transport.connection import Connection

pytestmark = pytest.mark.system

CASES_OF_A_CLIENT = 500
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
NOT_THERE = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
PROBES = {
    b"/v1/models": HEAD + b'{"data": [{"id": "model", "meta": {"n_ctx": 4096}}, {"id": "b"}]}',
    b"/api/v1/model": HEAD + b'{"result": "koboldcpp/model"}',
    b"/api/extra/true_max_context_length": HEAD + b'{"value": 4096}',
    b"/api/extra/perf": HEAD
    + b'{"last_process": 0.1, "last_eval": 0.5, "last_token_count": 24, "last_seed": 1, '
    b'"total_gens": 1, "stop_reason": 1, "queue": 0, "idle": 1, "uptime": 100.5}',
    b"/api/extra/abort": HEAD + b'{"success": "true"}',
    b"/api/extra/generate/check": HEAD + b'{"results": [{"text": "hel"}]}',
    b"/api/extra/tokencount": HEAD + b'{"value": 2, "ids": [1, 2]}',
    b"/api/extra/version": HEAD + b'{"result": "KoboldCpp", "version": "1.96", "protected": false}',
    b"/props": HEAD + b'{"chat_template": "{{ messages[0].content }}", "total_slots": 1}',
}
"""What a good server answers to short calls, by path."""
NEWER_PROBES = PROBES | {
    b"/api/extra/perf": HEAD
    + b'{"last_process": 0.1, "last_eval": 0.5, "last_token_count": 24, "last_input_count": 3, '
    b'"last_process_speed": 90.5, "last_eval_speed": 20.5, "total_gens": 1, "stop_reason": 1, '
    b'"queue": 0, "idle": 1, "idletime": 3, "uptime": 100.5}',
    b"/api/extra/version": HEAD
    + b'{"result": "KoboldCpp", "version": "1.115.1", "protected": false, "llm": true, "jinja": '
    b'true, "router": false, "admin": 0}',
    b"/props": HEAD + b'{"chat_template": "{{ messages }}<think>", "total_slots": 1}',
}
CHAT = b"/v1/chat/completions"
PLAIN = b"/api/v1/generate"
GENERATE_STREAM = b"/api/extra/generate/stream"
OF_OPENAI = [
        (CHAT, HEAD + b'{"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}], '
        b'"usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}'),
        (CHAT, HEAD + b'{"choices": [{"message": {"content": null}, "finish_reason": "length"}]}'),
        (CHAT, (b'HTTP/1.1 400 Bad\r\ncontent-length: 61\r\n\r\n{"error": {"message": "maximum '
        b'context length", "code": 400}}')),
        (CHAT, STREAM + b'data: {"choices": [{"delta": {"role": "assistant"}}]}\n\n'
        b'data: {"choices": [{"delta": {"content": "hel"}}]}\n\n'
        b'data: {"choices": [{"delta": {"content": "lo"}, "finish_reason": "stop"}]}\n\n'
        b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}\n\n'
        b"data: [DONE]\n\n"),
        (CHAT, CHUNKED + b'33\r\ndata: {"choices": [{"delta": {"content": "a"}}]}     \n\n\r\n'
        b"0\r\n\r\n"),
]  # fmt: skip
OF_OLD_KOBOLDCPP = [
        (PLAIN, HEAD + b'{"results": [{"text": "hello", "finish_reason": "stop"}]}'),
        (PLAIN, HEAD + b'{"results": [{"text": "", "finish_reason": "length"}]}'),
        (PLAIN, (b'HTTP/1.1 503 Busy\r\ncontent-length: 38\r\n\r\n'
        b'{"detail": {"msg": "Busy", "type": ""}}')),
        (GENERATE_STREAM, STREAM + b'event: message\ndata: {"token": "hel", "finish_reason": null}'
        b'\n\nevent: message\ndata: {"token": "lo", "finish_reason": "stop"}\n\n'),
]  # fmt: skip
OF_NEW_KOBOLDCPP = [
    *OF_OPENAI,
    (CHAT, STREAM
    + b'data: {"choices": [{"delta": {"role": "assistant"}, "finish_reason": null}]}\n\n'
    b'data: {"choices": [{"delta": {"reasoning_content": "hm"}, "finish_reason": null}]}\n\n'
    b'data: {"choices": [{"delta": {"content": "hello"}, "finish_reason": null}]}\n\n'
    b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
    b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, '
    b'"completion_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 7}}\n\n'
    b"data: [DONE]\n\n"),
    (CHAT, STREAM + b'data: {"choices": [{"delta": {"content": "<think>hm</think>"}}]}\n\n'
    b'data: {"choices": [{"delta": {"content": "hello"}, "finish_reason": "length"}]}\n\n'),
    (CHAT, HEAD + b'{"choices": [{"message": {"content": "", "reasoning_content": "hm"}, '
    b'"finish_reason": "length"}]}'),
    (CHAT, HEAD + b'{"choices": [{"message": {"content": ""}, "finish_reason": "error"}]}'),
]  # fmt: skip


@dataclass(frozen=True)
class Server:
    """A server as it should be: what it is, what it answers to probes, and to generations."""

    kind: BackendKind
    dialect: Dialect
    probes: dict[bytes, bytes]
    answers: list[tuple[bytes, bytes]]


SERVERS = {
    "openai": Server(
        BackendKind.OPENAI,
        Dialect.OPENAI_CHAT,
        {path: PROBES[path] for path in (b"/v1/models",)},
        OF_OPENAI,
    ),
    "koboldcpp": Server(
        BackendKind.KOBOLDCPP,
        Dialect.KOBOLD,
        {path: says for path, says in PROBES.items() if path != b"/v1/models"},
        OF_OLD_KOBOLDCPP,
    ),
    "koboldcpp 1.115": Server(
        BackendKind.KOBOLDCPP, Dialect.OPENAI_CHAT, NEWER_PROBES, OF_NEW_KOBOLDCPP
    ),
}
WORDS = (
    b"null", b"[]", b"{}", b"true", b'""', b"1.5", b"\\ud83d", b"\\ude00", b"\\udcff", b"\xff",
    b"\xef\xbb\xbf", b"<think>", b"</think>",
    b"data: ", b"data:\n\n", b"data: [DONE]", b"\n\n", b"\r\n", b":\n",
    b"event: x\n", b'"choices"', b'"delta": null', b'"usage": {"prompt_tokens": 1.5}',
    b'"finish_reason": "error"', b'"finish_reason": "content_filter"', b'{"error": "text"}',
    b"[" * 500, b'{"a":' * 500, b"x" * 4000, b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 204 No\r\n\r\n", b"HTTP/1.1 429 Slow\r\n",
    b"content-encoding: gzip\r\n", b"content-length: 5\r\n", b"retry-after: Wed, 21 Oct 2015\r\n",
    b"transfer-encoding: chunked\r\n", b"location: /\r\n", b"\x1b[31m", b"\x00", b"ffffffff\r\n",
)  # fmt: skip
SAMPLING = Sampling(max_tokens=24)
REQUEST = (Message(Role.USER, "hello"),)


class Network:
    """A network with one server in it: it answers ``says`` at ``mutated_path``, and hangs up."""

    def __init__(self, server: Server) -> None:
        self._probes = server.probes
        self.says = b""
        self.mutated_path = b""
        self.piece = 65_536

    async def connect(self) -> Connection:
        return connection_over(ScriptedStream(self.answer, self.piece))

    def answer(self, asked: bytes) -> bytes:
        path = asked.split(b" ", 2)[1]
        return self.says if path == self.mutated_path else self._probes.get(path, NOT_THERE)


async def client_of(server: Server) -> BackendClient:
    """Return a real client of such a server that has looked at it."""
    config = ServerConfig("primary", "http://127.0.0.1:9", kind=server.kind, dialect=server.dialect)
    client = open_client(config, stall_seconds=lambda: 5.0, on_abort=lambda *_: None)
    await client.probe(identify=True)
    return client


async def ask(client: BackendClient, *, probe: bool, stream: bool) -> str:
    """Have the client do one thing; return what came of it."""
    try:
        if probe:
            probed = await client.probe(identify=True)
            repr(probed).encode()
            (probed.model or "").encode()
            return "probed"
        deltas: list[str] = []
        request = GenerationRequest(REQUEST, SAMPLING, stream=stream, reasoning=True)
        result = await client.generate(request, deltas.append if stream else None)
        (result.text + result.reasoning).encode()
        "".join(deltas).encode()
    except TicketError as error:
        error.message.encode()
        return error.code.value
    assert result.finish_reason in {"stop", "length"}
    assert result.usage.completion_tokens >= 0
    return "completed"


@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
async def test_mutated_answers_end_as_a_completion_or_an_error(
    server: Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(server)
    monkeypatch.setattr(Wire, "_connect", lambda _: network.connect())
    seen: Counter[str] = Counter()
    client = await client_of(server)
    for case in cases(f"answers of {request.node.callspec.id}", 1 / len(SERVERS)):
        chance = case.chance
        if case.number % CASES_OF_A_CLIENT == 0:
            await client.aclose()
            network.mutated_path = b""
            client = await client_of(server)
        probe = chance.random() < 0.25
        path, whole = chance.choice(list(server.probes.items()) if probe else server.answers)
        network.mutated_path, network.piece = path, chance.choice((1, 7, 100, 65_536))
        network.says = mutate(chance, whole, WORDS)
        case.data = (path, network.says)
        with case.guarded():
            stream = whole.startswith((STREAM, CHUNKED))
            seen[await ask(client, probe=probe, stream=stream)] += 1
    await client.aclose()
    print(dict(seen))
    assert seen.total() < 100 or {"completed", "probed"} <= seen.keys()
