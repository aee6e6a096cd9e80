"""The rules most keys use: numbers with a range and a unit, choices, text, lists, files."""

from __future__ import annotations

import ipaddress
import json
import stat
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from ai_ticket_daemon.config.values.schema import Invalid, Mistake, Rule, not_a, wrong

T = TypeVar("T")
Choice = TypeVar("Choice", bound=StrEnum)
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_SHOWN_CHARACTERS = 40


def integer(minimum: int, maximum: int, unit: str = "") -> Rule[int]:
    """Return the rule for a whole number from ``minimum`` to ``maximum``."""
    kind = f"a whole number{_of(unit)} from {minimum} to {maximum}"

    def read(value: object) -> int:
        # bool is an int to Python, but `rise = true` is a mistake.
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            raise not_a(kind, value)
        return value

    return Rule(kind, read)


def number(minimum: float, maximum: float, unit: str = "") -> Rule[float]:
    """Return the rule for a number, with or without a fraction; NaN and infinity are refused."""
    kind = f"a number{_of(unit)} from {minimum:g} to {maximum:g}"

    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise not_a(kind, value)
        if not minimum <= value <= maximum:  # also true of NaN
            raise not_a(kind, value)
        return float(value)

    return Rule(kind, read)


def seconds(minimum: float, maximum: float) -> Rule[float]:
    """Return the rule for a duration."""
    return number(minimum, maximum, "seconds")


def _read_boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise not_a("true or false", value)
    return value


boolean = Rule("true or false", _read_boolean)


def choice(choices: type[Choice]) -> Rule[Choice]:
    """Return the rule for one member of an enumeration, written as its value."""
    kind = "one of " + ", ".join(f'"{member}"' for member in choices)

    def read(value: object) -> Choice:
        if not isinstance(value, str):
            raise not_a(kind, value)
        try:
            return choices(value)
        except ValueError:
            shown = json.dumps(value[:_SHOWN_CHARACTERS])
            raise wrong(f"must be {kind}, not {shown}") from None

    return Rule(kind, read)


def text(maximum_characters: int = 200) -> Rule[str]:
    """Return the rule for one line of printable text."""
    kind = f"a string of 1 to {maximum_characters} printable characters"

    def read(value: object) -> str:
        if not isinstance(value, str):
            raise not_a(kind, value)
        if not 1 <= len(value) <= maximum_characters or not value.isprintable():
            raise wrong(f"must be {kind}")
        return value

    return Rule(kind, read)


def optional(rule: Rule[T]) -> Rule[T | None]:
    """Return the rule that also takes an empty string, for "none"."""
    return Rule(
        f"{rule.kind}, or empty for none",
        lambda value: None if value == "" else rule.read(value),
    )


def list_of(rule: Rule[T], *, minimum_items: int = 0) -> Rule[tuple[T, ...]]:
    """Return the rule for an array whose items follow ``rule`` and differ from each other."""
    kind = f"an array, each item {rule.kind}"

    def read(value: object) -> tuple[T, ...]:
        if isinstance(value, dict):
            raise wrong("is a single table; write its header with two brackets, as in [[...]]")
        if not isinstance(value, list):
            raise not_a(kind, value)
        if len(value) < minimum_items:
            raise wrong(f"must have at least {minimum_items} item")
        items: dict[T, int] = {}
        mistakes: list[Mistake] = []
        for index, item in enumerate(value):
            try:
                first = items.setdefault(rule.read(item), index)
            except Invalid as error:
                mistakes += [mistake.under(index) for mistake in error.mistakes]
                continue
            if first != index:
                mistakes.append(Mistake((index,), f"is the same as item [{first}]; remove one"))
        if mistakes:
            raise Invalid(mistakes)
        return tuple(items)

    return Rule(kind, read)


def _read_path(value: object) -> Path:
    if not isinstance(value, str):
        raise not_a("an absolute path", value)
    path = Path(value)
    if not path.is_absolute() or "\0" in value:
        raise wrong("must be an absolute path (one that begins with /)")
    return path


def _read_file_path(value: object) -> Path:
    path = _read_path(value)
    try:
        # A pipe or device would keep the loader waiting.
        if not stat.S_ISREG(path.stat().st_mode):
            raise wrong("is not a regular file")
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise wrong(f"the file cannot be read: {error.strerror}") from error
    return path


def _read_network(value: object) -> IpNetwork:
    if not isinstance(value, str):
        raise not_a(network.kind, value)
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        raise wrong(f"must be {network.kind}; no bits may be set behind the prefix") from None


absolute_path: Rule[Path] = Rule("an absolute path", _read_path)
readable_file: Rule[Path] = Rule("the absolute path of a readable file", _read_file_path)
network: Rule[IpNetwork] = Rule(
    'an IP address or network such as "10.0.0.0/8" or "::1"', _read_network
)


def _of(unit: str) -> str:
    return f" of {unit}" if unit else ""
