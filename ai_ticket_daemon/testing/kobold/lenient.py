"""What version 1.115 makes of a request that 1.76 stumbles at, or reads otherwise."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .dialects import Dialect, NoAnswer, adapter_prompt, messages_of, read_job
from .templates import expanded, laid_out, subject_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .dialects import Job
    from .settings import KoboldSettings

__all__ = ["prompt_of_count", "read_newer_job"]

_DEFAULT_TOKENS = 1024
_MOST_OF_CONTEXT = 0.8
_FORGIVEN: dict[str, Callable[[str], object]] = {
    "max_tokens": int,
    "max_length": int,
    "top_k": int,
    "seed": int,
    "sampler_seed": int,
    "temperature": float,
    "top_p": float,
    "min_p": float,
    "rep_pen": float,
    "presence_penalty": float,
    "stop": str,
    "stop_sequence": str,
}
_ALONE = ("grammar", "tools", "reasoning_effort", "dry_multiplier", "xtc_probability")
"""Fields of requests that share no batch."""
_LITERAL = re.compile(r'root ::= "([^"\\]*)"')
_THINK = "<think>"


def read_newer_job(
    dialect: Dialect, stream_path: bool, body: Any, *, settings: KoboldSettings, context: int
) -> Job:
    """Turn a JSON body into a job.

    Raises:
        NoAnswer: The body breaks the server's reading of it.
        NullAnswer: The body breaks the generation.
    """
    if not isinstance(body, dict):
        raise NoAnswer
    body = _forgiven(body)
    empty = body.pop("max_context_length", None) == 0
    name = "max_length" if dialect is Dialect.NATIVE else "max_tokens"
    limit = body.get(name, body.get("max_completion_tokens")) or _DEFAULT_TOKENS
    body[name] = min(limit, int(context * _MOST_OF_CONTEXT)) if type(limit) is int else limit
    body.setdefault("trim_stop", True)

    def lay_out(messages: Any, adapter: dict[str, Any]) -> tuple[str, str, list[str]]:
        if adapter:
            return adapter_prompt(messages, adapter)
        go_on = bool(body.get("continue_assistant_turn", True))
        return laid_out(messages_of(messages), jinja=settings.jinja, go_on=go_on), "", []

    job = read_job(dialect, stream_path, body, lay_out=lay_out)
    prompt = expanded(job.prompt) if body.get("replace_instruct_placeholders", True) else job.prompt
    grammar, options = body.get("grammar"), body.get("stream_options")
    literal = _LITERAL.fullmatch(grammar) if isinstance(grammar, str) else None
    with_adapter = dialect is Dialect.CHAT and bool(body.get("adapter"))
    return replace(
        job,
        prompt=prompt,
        subject=job.subject if with_adapter else subject_of(prompt),
        max_tokens=0 if empty else job.max_tokens,
        literal=literal and literal[1],
        thinks=settings.thinking and not literal,
        in_thought=prompt.endswith(_THINK),
        tells_usage=isinstance(options, dict) and bool(options.get("include_usage")),
        shares_batch=not any(body.get(name) for name in _ALONE),
        names_model=bool(body.get("model")),
    )


def prompt_of_count(body: dict[str, Any], settings: KoboldSettings) -> str:
    """Return the text that a token count is about: of a conversation, its prompt."""
    prompt = str(body.get("prompt", ""))
    if "messages" in body:
        try:
            messages = messages_of(body["messages"])
        except NoAnswer:
            return prompt
        prompt = laid_out(messages, jinja=settings.jinja, go_on=True)
    return expanded(prompt) if body.get("replace_instruct_placeholders", True) else prompt


def _forgiven(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body without nulls where they do no harm, and with numbers for their texts."""
    found = dict(body)
    for name, kind in _FORGIVEN.items():
        value = body.get(name, 0)
        if value is None:
            del found[name]
        elif isinstance(value, str):
            try:
                found[name] = kind(value)
            except ValueError:
                continue
    return found
