# ruff: noqa: RUF001 - disguised letters are what this is about
"""A ticket's text stays text, whatever template it is laid out with."""

from __future__ import annotations

import random
import re
import unicodedata

import pytest

from ai_ticket_daemon.backends.text.template_tokens import escape
from ai_ticket_daemon.config.backends import EscapedTexts
from ai_ticket_daemon.events.event import Message, Role

TOKENS = [
    # ChatML, Llama 3 and 4, Phi, GLM, gpt-oss, Command R
    *("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|header_start|>"),
    *("<|end|>", "<|assistant|>", "<|endoftext|>", "<|channel|>", "<|START_OF_TURN_TOKEN|>"),
    # DeepSeek, whose bars and blanks are no ASCII
    *("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
    # Gemma, T5, Llama 2, Mistral, Exaone, MiniCPM
    *("<start_of_turn>", "<end_of_turn>", "<turn|>", "<|turn>", "<extra_id_0>", "<bos>"),
    *("<s>", "</s>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[SYSTEM_PROMPT]"),
    *("[TOOL_CALLS]", "[|endofturn|]", "<用户>", "<AI>", "<seed:eos>"),
    *("<think>", "</think>", "<tool_call>", "</tool_response>"),
    # Alpaca, which a server without a template takes
    *("### Instruction:", "### Response:", "###Response:"),
    # KoboldCPP's own
    *("{{[INPUT]}}", "{{[OUTPUT]}}", "{{[SYSTEM]}}", "{{[INPUT_END]}}"),
]


def said(*texts: str, role: Role = Role.USER) -> list[Message]:
    return [Message(role, text) for text in texts]


def escaped(*texts: str) -> list[str]:
    return [message.content for message in escape(said(*texts), EscapedTexts.USER)]


def as_normalized(text: str) -> str:
    """What is left of a text without what cannot be seen, and with plain letters."""
    visible = "".join(sign for sign in text if unicodedata.category(sign) not in ("Cf", "Mn"))
    return unicodedata.normalize("NFKC", visible)


def fullwidth(text: str) -> str:
    return "".join(chr(ord(sign) + 0xFEE0) if "!" <= sign <= "~" else sign for sign in text)


@pytest.mark.parametrize("token", TOKENS)
def test_no_token_of_a_template_survives_in_any_disguise(token: str) -> None:
    plain = as_normalized(token)
    disguises = {
        "plain": token,
        "upper case": token.upper(),
        "fullwidth": fullwidth(token),
        "zero width space within": token[:2] + "\u200b" + token[2:],
        "zero width space everywhere": "\u200b".join(token),
        "joiner and variation selector": token[0] + "\u2060\ufe0f" + token[1:],
        "soft hyphen before the end": token[:-1] + "\u00ad" + token[-1],
        "tag characters": token[0] + "\U000e0041" + token[1:],
    }
    for name, disguised in disguises.items():
        for text in (disguised, f"日本 ﬁ… {disguised}\u200b tail", f"a{disguised}{disguised}b"):
            (result,) = escaped(text)
            assert plain.casefold() not in as_normalized(result).casefold(), name
            # Spaces are all that was added: a person still reads the same.
            assert result.replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize(
    "text",
    [
        "if (a < b && c > d) { return x[0]; }",
        "<p>The <b>printer</b> of <user@example.org> is [offline] {see below}</p>",
        "# Heading\n## Steps\n### What happened\n| a | b |\n{{ jinja }} {{user}} [1] [x]",
        "<audio>, <video>, <order>, <T>, std::vector<int>, a <- b, x |> f",
        "日本語のチケット 👩\u200d🔧 café ﬁne",
        "",
    ],
)
def test_ordinary_text_is_left_as_it_is(text: str) -> None:
    assert escaped(text) == [text]


@pytest.mark.parametrize(
    ("texts", "role", "expected"),
    [
        (EscapedTexts.USER, Role.USER, "< |im_end|>"),
        (EscapedTexts.USER, Role.SYSTEM, "<|im_end|>"),
        (EscapedTexts.USER, Role.ASSISTANT, "<|im_end|>"),
        (EscapedTexts.ALL, Role.SYSTEM, "< |im_end|>"),
        (EscapedTexts.ALL, Role.ASSISTANT, "< |im_end|>"),
        (EscapedTexts.OFF, Role.USER, "<|im_end|>"),
    ],
)
def test_the_setting_says_whose_texts_are_escaped(
    texts: EscapedTexts, role: Role, expected: str
) -> None:
    (message,) = escape(said("<|im_end|>", role=role), texts)
    assert message == Message(role, expected)


@pytest.mark.parametrize("cut", range(1, len("<|im_end|>") - 1))
@pytest.mark.parametrize("pad", ["", " ", "\n", "\u200b"])
@pytest.mark.parametrize("first", [Role.USER, Role.SYSTEM])
def test_a_token_over_two_messages_is_parted_in_one_that_may_be_changed(
    cut: int, pad: str, first: Role
) -> None:
    token = "<|im_end|>"
    messages = [
        Message(first, f"é {token[:cut]}{pad}"),
        Message(Role.USER, f"{pad}{token[cut:]} x"),
    ]
    before, after = escape(messages, EscapedTexts.USER)
    joined = as_normalized(before.content).strip() + as_normalized(after.content).strip()
    assert token not in joined
    if first is Role.SYSTEM:
        assert before == messages[0]


def test_random_texts_of_pieces_of_tokens_never_hold_one_afterwards() -> None:
    chance = random.Random(7)
    pieces = [token[a:b] for token in TOKENS for a in (0, 1, 3) for b in (2, 5, len(token))]
    pieces += [" ", "\u200b", "\ufe0f", "＜", "｜", "ﬁ", "…", "x", "\n"]
    tokens = re.compile("|".join(re.escape(as_normalized(token)) for token in TOKENS))
    for _ in range(2000):
        texts = ["".join(chance.choices(pieces, k=12)) for _ in range(3)]
        results = escaped(*texts)
        assert not tokens.search(as_normalized("".join(text.strip() for text in results)))
        assert escape(said(*results), EscapedTexts.USER) == tuple(said(*results))
