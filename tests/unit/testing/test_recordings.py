from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ai_ticket_daemon.testing.recordings import (
    Answer,
    Recording,
    differences,
    load_recordings,
    parse_answer,
)
from tests.support.project import ROOT

RECORDINGS = load_recordings(ROOT / "tests" / "fixtures" / "kobold")
PLAIN = RECORDINGS["chat_plain"]
STREAM = RECORDINGS["chat_stream"]
NATIVE = RECORDINGS["generate_stream"]


def answer_of(recording: Recording) -> Answer:
    assert recording.answer is not None
    return recording.answer


@pytest.mark.parametrize("name", [n for n, r in RECORDINGS.items() if r.answer is not None])
def test_every_recording_equals_itself(name: str) -> None:
    recording = RECORDINGS[name]
    assert differences(recording, answer_of(recording)) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"total_tokens": 200', '"total_tokens": 201'),
        ('"tool_calls": []', '"tool_call": []'),
        ('"index": 0', '"index": "0"'),
        ('"created": 1795420609', '"created": "1795420609"'),
        ('"chatcmpl-A1"', '"chatcmpl-B2"'),
    ],
)
def test_a_changed_member_is_told(old: str, new: str) -> None:
    answer = answer_of(PLAIN)
    body = answer.body.replace(old, new)
    assert body != answer.body
    headers = answer.headers | {"content-length": str(len(body))}
    assert len(differences(PLAIN, replace(answer, body=body, headers=headers))) == 1


def test_another_text_is_no_difference_but_an_empty_one_is() -> None:
    answer = answer_of(PLAIN)
    payload = json.loads(answer.body)

    def told(text: str) -> list[str]:
        payload["choices"][0]["message"]["content"] = text
        body = json.dumps(payload)
        headers = answer.headers | {"content-length": str(len(body))}
        return differences(PLAIN, replace(answer, body=body, headers=headers))

    assert told("Something else.") == []
    assert told("") != []


@pytest.mark.parametrize(
    "change",
    [
        {"version": "HTTP/1.1"},
        {"status": 201},
        {"headers": {"content-type": "application/json"}},
        {"headers": {**answer_of(PLAIN).headers, "content-length": "1"}},
    ],
)
def test_another_status_or_header_is_told(change: dict[str, object]) -> None:
    assert differences(PLAIN, replace(answer_of(PLAIN), **change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("recording", "old", "new"),
    [
        (STREAM, "data: [DONE]", "data: [DONE]\n"),
        (STREAM, "data: [DONE]", "data: [DONE]\n\n"),
        (STREAM, "data: [DONE]", ""),
        (STREAM, '"finish_reason": "null"', '"finish_reason": null'),
        (STREAM, '"finish_reason": "length"', '"finish_reason": "stop"'),
        (STREAM, "chat.completion.chunk", "text_completion"),
        (NATIVE, "event: message\n", ""),
        (NATIVE, '"token": ', '"text": '),
    ],
)
def test_another_framing_of_a_stream_is_told(recording: Recording, old: str, new: str) -> None:
    answer = answer_of(recording)
    body = answer.body.replace(old, new)
    assert body != answer.body
    assert differences(recording, replace(answer, body=body))


def test_how_the_text_is_spread_over_events_is_no_difference() -> None:
    answer = answer_of(STREAM)
    events = answer.body.split("\n\n")
    body = "\n\n".join(events[:1] + events[-2:])
    assert differences(STREAM, replace(answer, body=body)) == []


def test_repeated_headers_are_joined() -> None:
    data = b"HTTP/1.0 200 OK\r\nA: 1\r\na: 2\r\nB:3\r\n\r\nbody"
    assert parse_answer(data) == Answer("HTTP/1.0", 200, {"a": "1, 2", "b": "3"}, "body")


def test_a_chunked_request_is_sent_in_chunks() -> None:
    wire = RECORDINGS["error_chunked_request"].wire_request()
    assert b"content-length" not in wire.lower()
    assert wire.endswith(b"\r\n0\r\n\r\n")
