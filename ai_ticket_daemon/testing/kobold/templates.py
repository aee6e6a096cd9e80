"""How version 1.115 lays a conversation out: the template, its tokens and its placeholders."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CHAT_TEMPLATE", "expanded", "laid_out", "subject_of"]

_START, _END = "<|im_start|>", "<|im_end|>"
_USER, _ASSISTANT = f"{_START}user\n", f"{_START}assistant\n"
_PLACEHOLDERS = {
    "{{[INPUT]}}": _USER,
    "{{[OUTPUT]}}": f"{_END}\n{_ASSISTANT}",
    "{{[SYSTEM]}}": f"{_START}system\n",
}
_DEFAULT_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "
    f"'{_START}system\n{_DEFAULT_SYSTEM}{_END}\n' }}}}{{% endif %}}"
    f"{{{{'{_START}' + message['role'] + '\n' + message['content'] + '{_END}' + '\n'}}}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The template of the recorded model, as ``/props`` shows it."""


def laid_out(messages: Sequence[tuple[str, str]], *, jinja: bool, go_on: bool) -> str:
    """Return the prompt of a conversation.

    Args:
        messages: role and text of each.
        jinja: whether the model's own template is used, which adds a system message.
        go_on: whether a last message of the assistant is continued.
    """
    parts = []
    if jinja and (not messages or messages[0][0] != "system"):
        parts.append(f"{_START}system\n{_DEFAULT_SYSTEM}{_END}\n")
    continued = go_on and bool(messages) and messages[-1][0] == "assistant"
    for role, text in messages[:-1] if continued else messages:
        parts.append(f"{_START}{role}\n{text}{_END}\n")
    parts.append(_ASSISTANT)
    if continued:
        parts.append(messages[-1][1])
    return "".join(parts)


def expanded(text: str) -> str:
    """Return a text whose placeholders have become role markers."""
    for placeholder, marker in _PLACEHOLDERS.items():
        text = text.replace(placeholder, marker)
    return text


def subject_of(prompt: str) -> str:
    """Return what the model answers: the last turn of a user, by the markers it sees.

    A text that holds markers begins a turn of its own, whoever wrote it.
    """
    before, marker, turn = prompt.rpartition(_USER)
    return turn.partition(_END)[0] if marker else before + turn
