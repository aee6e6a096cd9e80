"""How the answers to generations look on the wire, in each version."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .dialects import Dialect
from .wire import NEWER_STREAM_HEADERS, STREAM_HEADERS

if TYPE_CHECKING:
    from .dialects import Job

__all__ = ["Answers", "NewerAnswers", "Written", "answers_of"]

_CHAT_ID, _TEXT_ID, _STREAM_ID = "chatcmpl-A1", "cmpl-A1", "koboldcpp"
_USAGE = {"prompt_tokens": 100, "completion_tokens": 100, "total_tokens": 200}
_THINK, _THOUGHT = "<think>", "</think>"


@dataclass(frozen=True, slots=True)
class Written:
    """What there is of an answer so far, and what an answer tells besides."""

    text: str
    model: str
    created: int
    prompt_tokens: int = 0
    tokens: int = 0

    @property
    def usage(self) -> dict[str, int]:
        """The true bill."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": self.prompt_tokens + self.tokens,
        }


class Answers:
    """The answers of version 1.76."""

    stream_headers = STREAM_HEADERS

    def plain(self, job: Job, written: Written, reason: str) -> dict[str, Any]:
        """Return the JSON of a whole answer."""
        text = written.text
        if job.dialect is Dialect.NATIVE:
            return {"results": [{"text": text, "finish_reason": reason}]}
        if job.dialect is Dialect.TEXT:
            choice: dict[str, Any] = {"text": text, "index": 0, "finish_reason": reason}
            return self._frame(job, written, _TEXT_ID, "text_completion", choice)
        message = {"role": "assistant", "content": text, "tool_calls": []}
        choice = {"index": 0, "message": message, "finish_reason": reason}
        return self._frame(job, written, _CHAT_ID, "chat.completion", choice)

    def _frame(
        self, _job: Job, written: Written, name: str, kind: str, choice: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "id": name,
            "object": kind,
            "created": written.created,
            "model": written.model,
            "usage": _USAGE,
            "choices": [choice],
        }

    def more(self, job: Job, sent: str, written: Written) -> tuple[bytes, ...]:
        """Return the event with what was written since ``sent``, in pieces as they are sent."""
        return self._event(job, written, {"content": written.text[len(sent) :]}, "null")

    def end(self, job: Job, sent: str, written: Written, reason: str) -> tuple[bytes, ...]:
        """Return what ends a stream: here the last text and the reason share an event."""
        last = self._event(job, written, {"content": written.text[len(sent) :]}, reason)
        return last if job.dialect is Dialect.NATIVE else (*last, b"data: [DONE]")

    def _event(
        self, job: Job, written: Written, delta: dict[str, str], reason: str | None
    ) -> tuple[bytes, ...]:
        if job.dialect is Dialect.NATIVE:
            data = json.dumps({"token": delta["content"], "finish_reason": reason})
            return b"event: message\n", f"data: {data}\n\n".encode()
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason}
        if job.dialect is Dialect.CHAT:
            choice["delta"] = {"role": "assistant", **delta}
        else:
            choice["text"] = delta["content"]
        return (_data(self._chunk(job, written, [choice])),)

    def _chunk(self, job: Job, written: Written, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chat = job.dialect is Dialect.CHAT
        return {
            "id": self._stream_id(job, written),
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": written.created,
            "model": written.model,
            "choices": choices,
        }

    def _stream_id(self, _job: Job, _written: Written) -> str:
        return _STREAM_ID


class NewerAnswers(Answers):
    """The answers of version 1.115."""

    stream_headers = NEWER_STREAM_HEADERS

    def plain(self, job: Job, written: Written, reason: str) -> dict[str, Any]:
        """Return the JSON of a whole answer; thinking that was cut off counts as its text."""
        if job.dialect is Dialect.NATIVE:
            result: dict[str, Any] = {
                "text": written.text,
                "tool_calls": [],
                "finish_reason": reason,
                "logprobs": None,
                "prompt_tokens": written.prompt_tokens,
                "completion_tokens": written.tokens,
            }
            return {"results": [result]}
        payload = super().plain(job, written, reason)
        (choice,) = payload["choices"]
        choice["logprobs"] = None
        if job.dialect is Dialect.CHAT:
            thinking, content = _parted(job, written.text)
            if thinking and not content:
                thinking, content = "", thinking
            choice["message"]["content"] = content
            if thinking:
                choice["message"]["reasoning_content"] = thinking
        return payload

    def _frame(
        self, job: Job, written: Written, name: str, kind: str, choice: dict[str, Any]
    ) -> dict[str, Any]:
        frame = super()._frame(job, written, name, kind, choice)
        return frame | {"id": self._stream_id(job, written), "usage": written.usage}

    def more(self, job: Job, sent: str, written: Written) -> tuple[bytes, ...]:
        """Return an event each for what was thought and what was said since ``sent``."""
        if job.dialect is not Dialect.CHAT:
            return self._event(job, written, {"content": written.text[len(sent) :]}, None)
        pieces: list[bytes] = []
        before, now = _parted(job, sent), _parted(job, written.text)
        for name, old, new in zip(("reasoning_content", "content"), before, now, strict=True):
            if len(new) > len(old):
                pieces += self._event(job, written, {name: new[len(old) :]}, None)
        return tuple(pieces)

    def end(self, job: Job, sent: str, written: Written, reason: str) -> tuple[bytes, ...]:
        """Return what ends a stream: the rest, an event with the reason, the bill, the mark."""
        pieces = [*self.more(job, sent, written)] if len(written.text) > len(sent) else []
        pieces += self._event(job, written, {"content": ""}, reason)
        if job.dialect is Dialect.NATIVE:
            return tuple(pieces)
        if job.tells_usage:
            pieces.append(_data(self._chunk(job, written, []) | {"usage": written.usage}))
        return (*pieces, b"data: [DONE]\n\n")

    def _stream_id(self, job: Job, written: Written) -> str:
        kind = "chatcmpl" if job.dialect is Dialect.CHAT else "cmpl"
        return f"{kind}-A{written.created % 900_000 + 100_000}"


def answers_of(*, newer: bool) -> Answers:
    """Return the answers of one of the two versions."""
    return NewerAnswers() if newer else Answers()


def _parted(job: Job, text: str) -> tuple[str, str]:
    """Part what a model has written of a chat into what it thinks and what it says."""
    if not job.in_thought:
        if not text.startswith(_THINK):
            return "", text
        text = text.removeprefix(_THINK)
    thinking, _, content = text.partition(_THOUGHT)
    return thinking, content


def _data(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()
