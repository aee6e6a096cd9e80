"""The three generation dialects: what their requests mean.

Nearly every mistake in a request is answered without an error status. Which one leads to what
depends on where the server stumbles: while it reads the request (the connection closes without a
byte) or once it generates (the answer is ``null``, or a stream that never begins).
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Dialect",
    "Job",
    "NoAnswer",
    "NullAnswer",
    "Poison",
    "adapter_prompt",
    "find_dialect",
    "messages_of",
    "read_job",
]

_MOST_STOPS = 32
_DEFICIENT_CONTEXTS = range(4)
_NUMBERS = {
    "temperature": 0.7,
    "top_p": 0.92,
    "min_p": 0.0,
    "presence_penalty": 0.0,
}
_STRINGS = ("prompt", "memory", "genkey", "grammar")


class Dialect(enum.Enum):
    """The kinds of generation requests."""

    CHAT = "/v1/chat/completions"
    TEXT = "/v1/completions"
    NATIVE = "/api/v1/generate"


_PATHS = (
    ("/v1/chat/completions", Dialect.CHAT, False),
    ("/v1/completions", Dialect.TEXT, False),
    ("/v1/completion", Dialect.TEXT, False),
    ("/api/v1/generate", Dialect.NATIVE, False),
    ("/api/latest/generate", Dialect.NATIVE, False),
    ("/api/extra/generate/stream", Dialect.NATIVE, True),
)


LayOut = Callable[[Any, dict[str, Any]], tuple[str, str, list[str]]]


class NoAnswer(Exception):
    """The server stumbles while reading the request and closes without a byte."""


class NullAnswer(Exception):
    """The server stumbles when it generates: ``null``, or a stream that never begins."""

    def __init__(self, stream: bool) -> None:
        super().__init__(stream)
        self.stream = stream


class Poison(Exception):
    """The request kills the server."""


@dataclass(frozen=True, slots=True)
class Job:
    """A generation as the engine gets it."""

    dialect: Dialect
    stream: bool
    prompt: str
    subject: str | None
    """The last user message of a chat; None when the prompt itself is the subject."""
    max_tokens: int
    seed: int
    stops: tuple[str, ...]
    trim_stop: bool
    ban_end_of_text: bool
    genkey: str
    context_tokens: int | None
    spoiled: bool
    """The generation runs, then its result is lost."""
    literal: str | None = None
    """The one text that a grammar allows."""
    thinks: bool = False
    """The model thinks before it answers."""
    in_thought: bool = False
    """The prompt ends where a thought has begun."""
    tells_usage: bool = False
    """A stream is to tell what it cost."""
    shares_batch: bool = True
    names_model: bool = False


def find_dialect(path: str) -> tuple[Dialect, bool] | None:
    """The dialect of a path and whether the path itself asks for a stream; only its end counts."""
    for suffix, dialect, stream in _PATHS:
        if path.endswith(suffix):
            return dialect, stream
    return None


def read_job(
    dialect: Dialect, stream_path: bool, body: Any, *, lay_out: LayOut | None = None
) -> Job:
    """Turn a JSON body into a job, as version 1.76 does.

    Args:
        dialect: Of the path.
        stream_path: Whether the path asks for a stream.
        body: The JSON.
        lay_out: Makes the prompt of a conversation: its text, its last user message, its stops.

    Raises:
        NoAnswer: The body breaks the server's reading of it.
        NullAnswer: The body breaks the generation.
        Poison: The body breaks the whole server.
    """
    if not isinstance(body, dict):
        raise NoAnswer
    for name in ("rep_pen", "repetition_penalty", "repeat_penalty"):
        if not isinstance(body.get(name, 1.0), int | float):
            raise NoAnswer
    if dialect is Dialect.NATIVE:
        prompt, subject = body.get("prompt", ""), None
        limit = body.get("max_length", 180)
        stops, seed = body.get("stop_sequence", []), body.get("sampler_seed", -1)
        stream = stream_path
    else:
        stop = body.get("stop", [])
        stops = list(stop) if isinstance(stop, list) else [stop]
        seed = body.get("seed", -1)
        if seed is None or isinstance(seed, list | dict):
            raise NoAnswer
        limit, stream = body.get("max_tokens", 180), bool(body.get("stream"))
        prompt, subject = body.get("prompt", ""), None
        if dialect is Dialect.CHAT:
            adapter = body.get("adapter", {})
            if not isinstance(adapter, dict):
                raise NoAnswer
            limit = body.get("max_tokens", adapter.get("max_length", 400))
            prompt, subject, own_stops = (lay_out or adapter_prompt)(
                body.get("messages", []), adapter
            )
            stops += own_stops
    trim = bool(body.get("trim_stop")) or dialect is Dialect.CHAT
    return _checked_job(body, dialect, stream, prompt, subject, limit, seed, stops, trim)


def _checked_job(
    body: dict[str, Any],
    dialect: Dialect,
    stream: bool,
    prompt: Any,
    subject: str | None,
    limit: Any,
    seed: Any,
    stops: Any,
    trim: bool,
) -> Job:
    texts = {name: body.get(name, "") for name in _STRINGS} | {"prompt": prompt}
    if isinstance(seed, str):
        try:
            seed = int(seed)
        except ValueError:
            raise NullAnswer(stream) from None
    context = body.get("max_context_length", 4096)
    sound = (
        all(isinstance(text, str) for text in texts.values())
        and all(isinstance(body.get(name, 0.0), int | float) for name in _NUMBERS)
        and all(isinstance(value, int) for value in (limit, body.get("top_k", 100), context))
        and isinstance(seed, int | float)
        and (stops is None or isinstance(stops, list | str))
        and all(not stop or isinstance(stop, str) for stop in list(stops or ())[:_MOST_STOPS])
    )
    if not sound:
        raise NullAnswer(stream)
    if context in _DEFICIENT_CONTEXTS:
        raise Poison
    return Job(
        dialect=dialect,
        stream=stream,
        prompt=texts["memory"] + texts["prompt"],
        subject=subject,
        max_tokens=limit,
        seed=int(seed),
        stops=tuple(stop for stop in list(stops or ())[:_MOST_STOPS] if stop),
        trim_stop=trim,
        ban_end_of_text=bool(body.get("ban_eos_token")),
        genkey=texts["genkey"],
        context_tokens=context if "max_context_length" in body and context > 0 else None,
        spoiled=trim and (stops is None or any(not isinstance(stop, str) for stop in stops)),
    )


def adapter_prompt(messages: Any, adapter: dict[str, Any]) -> tuple[str, str, list[str]]:
    """Build the prompt of a chat: its text, the last user message, and the stops it adds."""
    user_start = adapter.get("user_start", "\n### Instruction:\n")
    assistant_start = adapter.get("assistant_start", "\n### Response:\n")
    starts = {
        "system": adapter.get("system_start", "\n### Instruction:\n"),
        "user": user_start,
        "assistant": assistant_start,
        "tool": adapter.get("tools_start", ""),
    }
    parts = [adapter.get("chat_start", "")]
    subject = ""
    for role, text in messages_of(messages):
        if isinstance(role, str):
            parts += [starts.get(role, ""), text, adapter.get(f"{role}_end", "")]
        if role == "user":
            subject = text
    parts.append(assistant_start)
    if not all(isinstance(part, str) for part in (*parts, user_start)):
        raise NoAnswer
    return "".join(parts), subject, [user_start.strip(), assistant_start.strip()]


def messages_of(messages: Any) -> list[tuple[Any, str]]:
    """Return role and text of each message.

    Raises:
        NoAnswer: They break the server's reading of them.
    """
    if not isinstance(messages, list):
        raise NoAnswer
    found = []
    for message in messages:
        if not isinstance(message, dict) or "role" not in message or "content" not in message:
            raise NoAnswer
        found.append((message["role"], _content_text(message["content"])))
    return found


def _content_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    try:
        return "".join(part["text"] for part in content if part["type"] == "text")
    except (KeyError, TypeError):
        raise NoAnswer from None
