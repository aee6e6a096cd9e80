"""How a section describes its keys, and how a TOML table is read by that description.

A section is a frozen dataclass whose fields carry a :class:`Setting`. Reading is a :class:`Rule`: a
plain function from a TOML value to the field's value that raises :class:`Invalid` with every
mistake it finds. A table and a list are rules made of other rules, so mistakes find their
path on the way up.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

KeyPath = tuple[str | int, ...]
"""Keys from the top of the file down; an int counts the items of an array from 0."""

_METADATA_KEY = "setting"
_LIVE_KEY = "live"
_HUGE = 10**40
_LIKENESS = 0.75
"""How alike two names have to be for one to be suggested: ``password`` and ``password_file``."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with one value.

    Args:
        path: where, seen from the table or list that is being read.
        message: what is wrong and what is allowed; never quotes text that may be a secret.
        others: for a check between keys, the further keys of the same table it looked at; it is
            not told when one of them is wrong by itself.
        unknown: whether the last of the path is no key there.
    """

    path: KeyPath
    message: str
    others: tuple[str, ...] = ()
    unknown: bool = False

    def under(self, key: str | int) -> Mistake:
        """Return the same mistake seen from one level up."""
        return Mistake((key, *self.path), self.message, unknown=self.unknown)


class Invalid(Exception):
    """A value does not follow its rule."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("; ".join(mistake.message for mistake in self.mistakes))


def wrong(message: str) -> Invalid:
    """Return the error for the value being read itself."""
    return Invalid([Mistake((), message)])


def not_a(kind: str, value: object) -> Invalid:
    """Return the error for a value of the wrong type or out of range."""
    return wrong(f"must be {kind}, not {describe(value)}")


def describe(value: object) -> str:
    """Name a TOML value in a sentence; numbers as they are, text never (it may be a secret)."""
    match value:
        case bool():
            return str(value).lower()
        case int() if abs(value) > _HUGE:
            return "a huge number"
        case int() | float():
            return repr(value)
        case str():
            return "a string"
        case list():
            return "an array"
        case dict():
            return "a table"
        case _:
            return "a date or time"


@dataclass(frozen=True, slots=True)
class Rule(Generic[T_co]):
    """How one TOML value is read.

    Args:
        kind: what is allowed, to follow "must be": ``a whole number of bytes from 1 to 9``.
        read: returns the value for the dataclass; raises :class:`Invalid`.
    """

    kind: str
    read: Callable[[object], T_co]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a section says about one of its keys.

    Args:
        key: the name in the file.
        rule: how it is read.
        meaning: one or two sentences for the reference.
        live: True if a reload applies it, False if it needs a restart.
    """

    key: str
    rule: Rule[Any]
    meaning: str
    live: bool


def setting(
    rule: Rule[Any], meaning: str, *, live: bool | None = None, key: str = ""
) -> Mapping[str, Any]:
    """Return the ``metadata`` of a dataclass field.

    ``key`` where the file names it otherwise, ``live`` where it is not as its section says: a
    section with ``live: ClassVar[bool] = True`` is applied by a reload.
    """
    return {_METADATA_KEY: Setting(key, rule, meaning, live=bool(live)), _LIVE_KEY: live}


def section(of: type[Any]) -> Mapping[str, Any]:
    """Return the ``metadata`` of a field that holds the whole section ``of``."""
    return setting(table(of), of.__doc__ or "")


def settings_of(of: type[Any]) -> dict[str, tuple[dataclasses.Field[Any], Setting]]:
    """Return the keys of a section in their order, each with its field and setting."""
    described = {}
    for field in dataclasses.fields(of):
        found: Setting = field.metadata[_METADATA_KEY]
        key = found.key or field.name
        said: bool | None = field.metadata[_LIVE_KEY]
        live = getattr(of, "live", False) if said is None else said
        described[key] = (field, dataclasses.replace(found, key=key, live=live))
    return described


def is_required(field: dataclasses.Field[Any]) -> bool:
    """Tell whether a field has no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


@runtime_checkable
class Checked(Protocol):
    """A section with checks between its keys."""

    def conflicts(self) -> Iterator[Mistake]:
        """Yield what does not go together; paths begin at this section."""
        ...


def table(into: type[T], *, noun: str = "key") -> Rule[T]:
    """Return the rule for a table read into a dataclass; ``noun`` is what its keys are called."""
    return Rule("a table", lambda value: _read_table(into, value, noun))


def _read_table(into: type[T], value: object, noun: str) -> T:
    if not isinstance(value, dict):
        raise not_a("a table", value)
    settings = settings_of(into)
    mistakes = [
        Mistake((key,), _unknown(key, settings, noun), unknown=True)
        for key in value
        if key not in settings
    ]
    values: dict[str, Any] = {}
    broken = set()
    complete = True
    for key, (field, described) in settings.items():
        if key in value:
            try:
                values[field.name] = described.rule.read(value[key])
                continue
            except Invalid as error:
                mistakes += [mistake.under(key) for mistake in error.mistakes]
        elif not is_required(field):
            continue
        else:
            mistakes.append(Mistake((key,), f"is missing; it must be {described.rule.kind}"))
        broken.add(key)
        complete = complete and not is_required(field)
    if complete:
        # Keys that are wrong by themselves stand at their default here; checks that look at one
        # of them are left out, all others are made, so that one run shows as much as possible.
        result = into(**values)
        if isinstance(result, Checked):
            mistakes += [
                mistake
                for mistake in result.conflicts()
                if broken.isdisjoint((*mistake.path[:1], *mistake.others))
            ]
        if not mistakes:
            return result
    raise Invalid(mistakes)


def _unknown(key: str, known: Iterable[str], noun: str) -> str:
    similar = difflib.get_close_matches(key, known, n=1, cutoff=_LIKENESS)
    if similar:
        return f"is not a known {noun}; did you mean `{similar[0]}`?"
    return f"is not a known {noun}; known here: {', '.join(known)}"
