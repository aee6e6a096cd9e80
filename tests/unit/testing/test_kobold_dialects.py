from __future__ import annotations

from typing import Any

import pytest

from ai_ticket_daemon.testing.kobold.dialects import (
    Dialect,
    NoAnswer,
    NullAnswer,
    Poison,
    find_dialect,
    read_job,
)

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v1/chat/completions", (Dialect.CHAT, False)),
        ("/any/prefix/v1/chat/completions", (Dialect.CHAT, False)),
        ("/v1/completion", (Dialect.TEXT, False)),
        ("/api/v1/completions", (Dialect.TEXT, False)),
        ("/api/latest/generate", (Dialect.NATIVE, False)),
        ("/api/extra/generate/stream", (Dialect.NATIVE, True)),
        ("/v1/embeddings", None),
        ("/v1/completions?x=1", None),
    ],
)
def test_only_the_end_of_a_path_counts(path: str, found: object) -> None:
    assert find_dialect(path) == found


@pytest.mark.parametrize(
    "body",
    [
        [],
        "text",
        {"messages": "hello"},
        {"messages": None},
        {"messages": ["hello"]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"content": "hi"}]},
        {"messages": [{"role": "user", "content": [{"text": "no type"}]}]},
        HELLO | {"adapter": "alpaca"},
        HELLO | {"adapter": {"user_start": 5}},
        HELLO | {"seed": None},
        HELLO | {"rep_pen": "1"},
    ],
)
def test_some_mistakes_close_the_connection_without_a_byte(body: object) -> None:
    with pytest.raises(NoAnswer):
        read_job(Dialect.CHAT, False, body)


@pytest.mark.parametrize(
    "mistake",
    [
        {"max_tokens": "4"},
        {"max_tokens": None},
        {"max_tokens": 4.5},
        {"temperature": None},
        {"top_p": "0.9"},
        {"top_k": 1.5},
        {"genkey": 5},
        {"memory": None},
        {"seed": "seven"},
        {"stop": [5]},
        {"max_context_length": None},
    ],
)
@pytest.mark.parametrize("stream", [False, "false"])
def test_other_mistakes_lose_the_answer(mistake: dict[str, Any], stream: object) -> None:
    with pytest.raises(NullAnswer) as caught:
        read_job(Dialect.CHAT, False, HELLO | mistake | {"stream": stream})
    assert caught.value.stream is bool(stream)


@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_a_tiny_context_is_poison(size: int) -> None:
    with pytest.raises(Poison):
        read_job(Dialect.NATIVE, False, {"prompt": "x", "max_context_length": size})


@pytest.mark.parametrize("size", [-1, 4, 64])
def test_a_negative_or_larger_context_is_not_poison(size: int) -> None:
    job = read_job(Dialect.NATIVE, False, {"prompt": "x", "max_context_length": size})
    assert job.context_tokens == (size if size > 0 else None)


def test_an_explicit_null_as_stop_spoils_a_chat_but_not_a_completion() -> None:
    assert read_job(Dialect.CHAT, False, HELLO | {"stop": None}).spoiled
    assert not read_job(Dialect.TEXT, False, {"prompt": "x", "stop": None}).spoiled


def test_a_chat_prompt_uses_the_markers_of_its_adapter() -> None:
    messages = [{"role": "system", "content": "Be brief."}, *HELLO["messages"]]
    adapter = {"system_start": "<s>", "user_start": "<u>", "user_end": "</u>"}
    job = read_job(Dialect.CHAT, False, {"messages": messages, "adapter": adapter})
    assert job.prompt == "<s>Be brief.<u>hi</u>\n### Response:\n"
    assert job.subject == "hi"
    assert job.stops == ("<u>", "### Response:")


def test_a_string_of_stops_counts_as_its_characters_on_the_native_endpoint() -> None:
    job = read_job(Dialect.NATIVE, False, {"stop_sequence": "ab"})
    assert job.stops == ("a", "b")


def test_defaults_differ_between_the_dialects() -> None:
    assert read_job(Dialect.CHAT, False, HELLO).max_tokens == 400
    assert read_job(Dialect.TEXT, False, {}).max_tokens == 180
    assert read_job(Dialect.NATIVE, True, {"stream": False}).stream
    assert read_job(Dialect.CHAT, False, HELLO | {"stream": "false"}).stream
    assert read_job(Dialect.TEXT, False, {"prompt": "b", "memory": "a"}).prompt == "ab"
