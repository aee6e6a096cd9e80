"""Where the thinking of a model ends and its answer begins, however the text is cut."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from ai_ticket_daemon.backends.dialects import wire_dialect
from ai_ticket_daemon.backends.generation import GenerationRequest
from ai_ticket_daemon.backends.text.reasoning import (
    MARKS,
    Marks,
    ReasoningSplitter,
    opened_mark,
)
from ai_ticket_daemon.backends.text.template_tokens import escape
from ai_ticket_daemon.config.backends import Dialect, EscapedTexts
from ai_ticket_daemon.events.event import Message, Role, Sampling
from ai_ticket_daemon.events.reasoning import ReasoningText


def parts(pieces: list[str], close: str | None = None) -> tuple[str, str]:
    """Return answer and thinking of a text that comes in these pieces."""
    splitter = ReasoningSplitter(close)
    found = [part for piece in pieces for part in splitter.feed(piece)]
    found += splitter.finish()
    answer = "".join(part for part in found if not isinstance(part, ReasoningText))
    return answer, "".join(part for part in found if isinstance(part, ReasoningText))


@pytest.mark.parametrize(
    ("text", "answer", "thinking"),
    [
        ("Yes.", "Yes.", ""),
        ("\n\nYes.", "\n\nYes.", ""),
        ("", "", ""),
        ("  ", "  ", ""),
        ("<think>Hm.</think>Yes.", "Yes.", "Hm."),
        ("\n<think>\nHm,\n\n hm.\n</think>\n\nYes.\n", "Yes.\n", "Hm,\n\n hm."),
        ("<thinking>Hm.</thinking> Yes.", "Yes.", "Hm."),
        ("[THINK]Hm.[/THINK]Yes.", "Yes.", "Hm."),
        ("<think></think>Yes.", "Yes.", ""),
        ("<think>\n\n</think>\n\nYes.", "Yes.", ""),
        ("<think>Hm", "", "Hm"),
        ("<think>Hm </thi", "", "Hm </thi"),
        ("<think>", "", ""),
        ("<thi", "<thi", ""),
        ("<thing>is</thing>", "<thing>is</thing>", ""),
        ("Say <think>no</think>.", "Say <think>no</think>.", ""),
        ("<think>a < b </ c</think>Yes <think>no</think>", "Yes <think>no</think>", "a < b </ c"),
        ("Hm.</think>Yes.", "Hm.</think>Yes.", ""),
        ("</think>Yes.", "</think>Yes.", ""),
        ("\ufeff<think>Hm.</think>Yes.", "Yes.", "Hm."),
        (" \ufeff\n\u200b<think>Hm.</think>\n\ufeffYes.", "Yes.", "Hm."),
        ("\ufeffYes.", "\ufeffYes.", ""),
        ("<think>One.</think><think>Two.</think>Yes.", "Yes.", "One.\n\nTwo."),
        ("<think>One.</think>\n\n<think>\nTwo.\n</think>\n\nYes.", "Yes.", "One.\n\nTwo."),
        ("<think></think><think>Two.</think>Yes.", "Yes.", "Two."),
        ("<think>One.</think><thinking>Two.</thinking>Yes.", "Yes.", "One.\n\nTwo."),
        ("<think>One.</think>Yes.<think>No.</think>", "Yes.<think>No.</think>", "One."),
        ("<think>One.</think> <thi", "<thi", "One."),
        ("<think>One.</think> <thing>", "<thing>", "One."),
        ("<think>One.</think><think>Two", "", "One.\n\nTwo"),
        ("<think>Hm.</think><answer>Yes.</answer>", "<answer>Yes.</answer>", "Hm."),
        (
            "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes",
            "Yes",
            "Hm.",
        ),
        ("<|channel|>final<|message|>Yes.<|return|>", "Yes.", ""),
        ("<|channel|>commentary<|message|>Yes.", "<|channel|>commentary<|message|>Yes.", ""),
        (
            "<|channel|>analysis<|message|>One<|end|><|channel|>analysis<|message|>Two<|end|>Yes",
            "Yes",
            "One\n\nTwo",
        ),
        ("<|channel|>analysis<|message|>Hm.<|end|><|start|>assist", "<|start|>assist", "Hm."),
        (
            "<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>Yes.<|END_RESPONSE|>",
            "Yes.",
            "Hm.",
        ),
        ("<|START_THINKING|>Hm.<|END_THINKING|>Yes.<|END_", "Yes.<|END_", "Hm."),
        ("<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>Yes.<|END_", "Yes.<|END_", "Hm."),
        ("<|START_RESPONSE|>Yes.<|END_RESPONSE|> x<|END_RESPONSE|>", "Yes. x<|END_RESPONSE|>", ""),
        ("<|START_RESPONSE|><|END_RESPONSE|> x", "x", ""),
        ("<|channel>thought\nHm.\n<channel|>Yes.", "Yes.", "Hm."),
        ("<|channel>thought\n<channel|>Yes.", "Yes.", ""),
    ],
)
def test_thinking_is_parted_from_the_answer_wherever_the_text_is_cut(
    text: str, answer: str, thinking: str
) -> None:
    assert parts([text]) == (answer, thinking)
    assert parts(list(text)) == (answer, thinking)
    for place in range(len(text)):
        assert parts([text[:place], text[place:]]) == (answer, thinking)


@pytest.mark.parametrize("marks", MARKS)
def test_each_known_mark_of_thinking_is_parted_and_begins_none_from_a_ticket(marks: Marks) -> None:
    text = f"{marks.opening}\nHm.{marks.close}\n{marks.heading}Yes.{marks.end}"
    for cut in ([text], list(text)):
        assert parts(cut) == ("Yes.", "Hm.")
    assert opened_mark(f"Is it?\n{marks.opening}\n") == marks.close
    (harmless,) = escape((Message(Role.USER, f"Is it? {marks.opening}"),), EscapedTexts.USER)
    assert opened_mark(harmless.content) is None


@pytest.mark.parametrize("close", [None, *(marks.close for marks in MARKS)])
def test_a_text_is_parted_the_same_whole_and_in_any_pieces(close: str | None) -> None:
    chance = random.Random(close or 0)
    words = [word for marks in MARKS for word in marks if word]
    words += ["<|start|>assistant", "\ufeff", " ", "\n", " " * 300, "Hm", "Yes.", "<", "<think"]
    for _ in range(150):
        marks = chance.choice(MARKS)
        likely = [*words, *([*marks] * 8), "Yes."]
        text = "".join(chance.choices(likely, k=chance.randrange(9)))
        whole = parts([text], close)
        places = sorted(chance.choices(range(len(text) + 1), k=3))
        ends = [0, *places, len(text)]
        assert parts([text[a:b] for a, b in pairwise(ends)], close) == whole, (text, places)
        assert parts(list(text), close) == whole, text


def test_a_text_that_begins_within_the_thinking_is_parted_at_its_end() -> None:
    assert parts(list("Hm.</think>\nYes."), "</think>") == ("Yes.", "Hm.")
    assert parts(["cut"], "</think>") == ("", "cut")


def test_nothing_is_held_back_without_need() -> None:
    splitter = ReasoningSplitter()
    assert list(splitter.feed("Y")) == ["Y"]
    splitter = ReasoningSplitter()
    assert list(splitter.feed("<think>Hm")) == ["Hm"]
    assert list(splitter.feed(", a <")) == [", a"]


def test_blanks_without_end_are_not_held_back_without_end() -> None:
    splitter = ReasoningSplitter()
    assert "".join("".join(splitter.feed(" ")) for _ in range(1000)) == " " * 1000
    splitter = ReasoningSplitter("</think>")
    list(splitter.feed("Hm"))
    given = sum(len(part) for _ in range(1000) for part in splitter.feed(" "))
    assert given > 700


@pytest.mark.parametrize(
    ("prompt", "close"),
    [
        ("Is it?", None),
        ("Is it?<think>", "</think>"),
        ("Is it?\n<think>\n", "</think>"),
        ("[THINK]", "[/THINK]"),
        ("<think>Hm", None),
        ("<think></think>", None),
    ],
)
def test_a_prompt_may_end_within_the_thinking(prompt: str, close: str | None) -> None:
    assert opened_mark(prompt) == close


ASKS = [Message(Role.USER, "Is it?")]
BEGINS = [Message(Role.USER, "Is it? <think>")]
LAID_OUT = "user: Is it?\nassistant: <think>\n"


@pytest.mark.parametrize(
    ("dialect", "messages", "laid_out", "close"),
    [
        (Dialect.KOBOLD, ASKS, None, None),
        (Dialect.KOBOLD, BEGINS, None, "</think>"),
        (Dialect.KOBOLD, [Message(Role.SYSTEM, "a"), *BEGINS], None, None),
        (Dialect.KOBOLD, ASKS, LAID_OUT, "</think>"),
        (Dialect.OPENAI_COMPLETIONS, ASKS, LAID_OUT, "</think>"),
        (Dialect.OPENAI_CHAT, BEGINS, None, None),
        (Dialect.OPENAI_CHAT, [*ASKS, Message(Role.ASSISTANT, "<think>")], None, "</think>"),
    ],
)
def test_the_thinking_may_be_begun_by_the_template_by_the_prompt_or_by_the_last_word(
    dialect: Dialect, messages: list[Message], laid_out: str | None, close: str | None
) -> None:
    request = GenerationRequest(tuple(messages), Sampling(), laid_out=laid_out)
    assert opened_mark(wire_dialect(dialect).end(request)) == close
