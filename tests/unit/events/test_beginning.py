"""Prompts that share a long beginning are known by it, and others are not."""

from __future__ import annotations

import pytest

from ai_ticket_daemon.events.beginning import LONG_CHARACTERS, beginning_of
from ai_ticket_daemon.events.event import Event, Message, Role, Sampling
from ai_ticket_daemon.events.reasoning import ReasoningEffort

RULES = "You sort tickets. " * 20
assert len(RULES) > LONG_CHARACTERS


def prompt(*turns: tuple[Role, str], effort: ReasoningEffort | None = None) -> bytes | None:
    messages = tuple(Message(role, text) for role, text in turns)
    return beginning_of(Event("a", messages, Sampling(), 0.0, 1.0, reasoning_effort=effort))


def test_what_the_system_says_is_the_beginning_whatever_follows() -> None:
    one = prompt((Role.SYSTEM, RULES), (Role.USER, "My printer is broken."))
    other = prompt((Role.SYSTEM, RULES), (Role.USER, "x" * 1000), (Role.ASSISTANT, "y"))
    assert one is not None
    assert one == other
    assert prompt((Role.SYSTEM, RULES + "!"), (Role.USER, "My printer is broken.")) != one


def test_without_a_long_system_message_the_first_characters_are_the_beginning() -> None:
    one = prompt((Role.SYSTEM, "Sort."), (Role.USER, RULES + "My printer is broken."))
    assert one is not None
    assert one == prompt((Role.SYSTEM, "Sort."), (Role.USER, RULES + "The mail is late."))
    assert one != prompt((Role.SYSTEM, "Sort!"), (Role.USER, RULES + "The mail is late."))
    assert prompt((Role.USER, RULES + "a")) == prompt((Role.USER, RULES + "b"), (Role.USER, "c"))


@pytest.mark.parametrize("length", [LONG_CHARACTERS - 1, LONG_CHARACTERS])
def test_a_short_prompt_has_no_beginning(length: int) -> None:
    expected = length >= LONG_CHARACTERS
    assert (prompt((Role.USER, "x" * length)) is not None) is expected
    halves = (Role.SYSTEM, "x" * (length // 2)), (Role.USER, "x" * (length - length // 2))
    assert (prompt(*halves) is not None) is expected
    assert prompt() is None


def test_who_says_it_and_how_much_is_thought_is_part_of_the_beginning() -> None:
    ways = [
        prompt((Role.SYSTEM, RULES)),
        prompt((Role.USER, RULES)),
        prompt((Role.SYSTEM, RULES[:200]), (Role.SYSTEM, RULES[200:])),
        prompt((Role.SYSTEM, RULES), effort=ReasoningEffort.HIGH),
    ]
    assert None not in ways
    assert len(set(ways)) == len(ways)


def test_half_a_character_is_no_reason_to_fail() -> None:
    assert prompt((Role.SYSTEM, "\ud800" * LONG_CHARACTERS)) is not None
