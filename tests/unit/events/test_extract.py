from __future__ import annotations

import json

import pytest

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events.event import Message, Role
from ai_ticket_daemon.events.extract import extract_messages

USER, SYSTEM, ASSISTANT = Role.USER, Role.SYSTEM, Role.ASSISTANT
CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
    ]
}
CHAT_MESSAGES = (
    Message(SYSTEM, "Be brief."),
    Message(USER, "Hello"),
    Message(ASSISTANT, "Hi"),
)


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        ("Hello", (Message(USER, "Hello"),)),
        ({"prompt": "Hello"}, (Message(USER, "Hello"),)),
        ({"prompt": "Hello", "messages": None}, (Message(USER, "Hello"),)),
        (CHAT, CHAT_MESSAGES),
        (json.dumps(CHAT), CHAT_MESSAGES),
        (f"  {json.dumps([CHAT])}\n", CHAT_MESSAGES),
        (["a", CHAT, {"prompt": "b"}], (Message(USER, "a"), *CHAT_MESSAGES, Message(USER, "b"))),
        ([json.dumps({"prompt": "a"})], (Message(USER, "a"),)),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 2}]},
            (Message(USER, "aa"),),
        ),
        # A message without text is kept as long as another one has some.
        (["", "a"], (Message(USER, ""), Message(USER, "a"))),
    ],
)
def test_each_accepted_shape_becomes_a_conversation(
    content: object, messages: tuple[Message, ...]
) -> None:
    assert extract_messages(content, max_bytes=1000) == messages


@pytest.mark.parametrize(
    "text",
    [
        '{"title": "Printer on fire"}',
        '["a", "b"]',
        "[]",
        "[urgent] printer on fire",
        '{"messages": ',
        '[{"prompt": "a"}, 5]',
        '{"messages": [{"role": "wizard"}]}',
        '{"messages": {"id": 1}, "chat": "support"}',
        '{"prompt": 5}',
        '{"prompt": null}',
        '{"prompt": "a", "messages": []}',
        '{"messages": []}',
        '{"object": "page", "messages": [{"from": "491511", "text": {"body": "hi"}}]}',
        '{"messages": [{"role": "user", "content": {"parts": ["hi"]}}]}',
        '[{"prompt": "a"}, {"prompt": []}]',
        '{"prompt": "a", "more": [' + "0," * 20_000 + "0]}",
        '{"prompt": ' + "[" * 100 + "]" * 100 + "}",
        "[" * 100_000,
        "5",
    ],
)
def test_a_string_that_holds_anything_else_is_taken_as_text(text: str) -> None:
    assert extract_messages(text, max_bytes=1_000_000) == (Message(USER, text),)


def test_a_prompt_that_holds_json_is_text() -> None:
    text = json.dumps(CHAT)
    assert extract_messages({"prompt": text}, max_bytes=1000) == (Message(USER, text),)


@pytest.mark.parametrize(
    ("content", "code", "field"),
    [
        (5, ErrorCode.INVALID_INPUT_FORMAT, "content"),
        (True, ErrorCode.INVALID_INPUT_FORMAT, "content"),
        ([["a"]], ErrorCode.INVALID_INPUT_FORMAT, "content[0]"),
        (["a", None], ErrorCode.INVALID_INPUT_FORMAT, "content[1]"),
        ({"messages": "a"}, ErrorCode.INVALID_INPUT_FORMAT, "content.messages"),
        ({"messages": ["a"]}, ErrorCode.INVALID_INPUT_FORMAT, "content.messages[0]"),
        ({"prompt": ["a"]}, ErrorCode.INVALID_INPUT_FORMAT, "content.prompt"),
        ({"prompt": "a", "messages": []}, ErrorCode.INVALID_INPUT_FORMAT, "content"),
        (
            {"messages": [{"role": "user", "content": 5}]},
            ErrorCode.INVALID_INPUT_FORMAT,
            "content.messages[0].content",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            ErrorCode.INVALID_INPUT_FORMAT,
            "content.messages[0].content[0]",
        ),
        ("a\0b", ErrorCode.INVALID_INPUT_FORMAT, "content"),
        ("a\ud800b", ErrorCode.INVALID_INPUT_FORMAT, "content"),
        ("", ErrorCode.PROMPT_EXTRACTION_FAILED, "content"),
        (" \n\t", ErrorCode.PROMPT_EXTRACTION_FAILED, "content"),
        ([], ErrorCode.PROMPT_EXTRACTION_FAILED, "content"),
        ({}, ErrorCode.PROMPT_EXTRACTION_FAILED, "content"),
        ({"messages": []}, ErrorCode.PROMPT_EXTRACTION_FAILED, "content.messages"),
        ({"prompt": ""}, ErrorCode.PROMPT_EXTRACTION_FAILED, "content"),
        (
            {"messages": [{"role": "wizard", "content": "a"}]},
            ErrorCode.PROMPT_EXTRACTION_FAILED,
            "content.messages[0].role",
        ),
        (
            {"messages": [{"content": "a"}]},
            ErrorCode.PROMPT_EXTRACTION_FAILED,
            "content.messages[0].role",
        ),
        (
            {"messages": [{"role": ["user"], "content": "a"}]},
            ErrorCode.PROMPT_EXTRACTION_FAILED,
            "content.messages[0].role",
        ),
        (
            {"messages": [{"role": "user"}]},
            ErrorCode.PROMPT_EXTRACTION_FAILED,
            "content.messages[0].content",
        ),
        ("x" * 1001, ErrorCode.PAYLOAD_TOO_LARGE, "content"),
        ("ü" * 501, ErrorCode.PAYLOAD_TOO_LARGE, "content"),
        (["x" * 600] * 2, ErrorCode.PAYLOAD_TOO_LARGE, "content"),
    ],
)
def test_everything_else_is_refused_and_the_field_named(
    content: object, code: ErrorCode, field: str
) -> None:
    with pytest.raises(RequestRefused) as caught:
        extract_messages(content, max_bytes=1000)
    assert caught.value.code is code
    assert caught.value.details is not None
    assert caught.value.details["field"] == field


def test_content_of_exactly_the_allowed_length_is_taken() -> None:
    assert extract_messages("ü" * 500, max_bytes=1000)


def test_many_strings_that_hold_much_json_are_refused_together() -> None:
    heavy = '{"prompt": "a", "more": [' + "[]," * 1500 + "0]}"
    assert len(extract_messages([heavy], max_bytes=1_000_000)) == 1
    with pytest.raises(RequestRefused) as caught:
        extract_messages([heavy] * 4, max_bytes=1_000_000)
    assert caught.value.code is ErrorCode.PAYLOAD_TOO_LARGE
    assert caught.value.details == {"field": "content[3]", "max_values": 10_000}


def test_many_strings_that_begin_like_json_are_text_however_many_there_are() -> None:
    notes = [f"[urgent] printer {n} is on fire, again" for n in range(3000)]
    assert len(extract_messages(notes, max_bytes=1_000_000)) == 3000


@pytest.mark.parametrize(
    "text",
    [
        '{"messages": [{"role": "system", "content": "a"}]}',
        '[{"prompt": "a"}]',
        ' {"prompt": "a"}',
    ],
)
def test_where_strings_hold_no_conversations_each_string_is_text(text: str) -> None:
    for content in (
        text,
        [text],
        {"prompt": text},
        {"messages": [{"role": USER, "content": text}]},
    ):
        found = extract_messages(content, max_bytes=1000, json_in_strings=False)
        assert found == (Message(USER, text),)
    objects = [{"messages": [{"role": "system", "content": "a"}]}, text]
    found = extract_messages(objects, max_bytes=1000, json_in_strings=False)
    assert found == (Message(Role.SYSTEM, "a"), Message(USER, text))
