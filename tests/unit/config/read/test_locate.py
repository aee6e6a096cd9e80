"""The scanner is held against generated TOML whose lines are known, and against tomllib itself."""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ai_ticket_daemon.config.read.locate import locate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypothesis.strategies import DrawFn

    from ai_ticket_daemon.config.values.schema import KeyPath

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
SCALARS = ["1", "-0.5e3", "0xff", "inf", "true", "1979-05-27 07:32:00", "1979-05-27", "07:32:00.5"]
GAPS = ["", " ", "\n", "\n\n", " # ] } a \"comment' = [\n  ", "\t"]
PIECES = ["a", "\n", "#", "[x]\n", "\nk = 1\n", " = ", "]", "}", ",", "'", '"', "''", '""']
LITERAL_PIECES = [*PIECES, "\\"]
BASIC_PIECES = [*PIECES, "\\\\", '\\"', "\\\n  ", "\\u00e9"]

# Control characters must be escaped in TOML, which json.dumps does, but not for DEL.
printable = st.characters(exclude_categories=["Cs"], exclude_characters="\x7f")
keys = st.one_of(
    st.sampled_from(["a", "b", "c1", "bare-key", "bare_key", "123"]), st.text(printable, max_size=4)
)
# How long an example takes says nothing on a host that is busy with other things.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
unique_keys = st.lists(keys, unique=True, min_size=1, max_size=4)


class Writer:
    """Writes TOML and notes the line of everything it writes."""

    def __init__(self, draw: DrawFn) -> None:
        self.draw = draw
        self.text = ""
        self.lines: dict[KeyPath, int] = {}

    def choose(self, *options: str) -> str:
        return self.draw(st.sampled_from(options))

    def note(self, path: KeyPath) -> None:
        self.lines.setdefault(path, self.text.count("\n") + 1)

    def key(self, key: str) -> None:
        forms = [json.dumps(key, ensure_ascii=False)]
        if key.isprintable() and "'" not in key:
            forms.append(f"'{key}'")
        if BARE_KEY.fullmatch(key):
            forms += [key, key]
        self.text += self.choose(*forms)

    def key_and_value(self, table: KeyPath, key: str, depth: int = 0) -> None:
        self.note((*table, key))
        parts = [key]
        if self.draw(st.booleans()):
            parts.append(self.draw(keys))
            self.note((*table, *parts))
        for index, part in enumerate(parts):
            self.text += self.choose(".", " . ", ".\t") if index else ""
            self.key(part)
        self.text += self.choose("=", " = ")
        self.value((*table, *parts), depth)

    def value(self, path: KeyPath, depth: int) -> None:
        kinds = ["scalar", "basic", "literal", "long basic", "long literal"]
        kind = self.choose(*kinds, *(["array", "array", "table"] if depth < 3 else []))
        match kind:
            case "scalar":
                self.text += self.choose(*SCALARS)
            case "basic":
                self.text += json.dumps(self.draw(st.text(printable)), ensure_ascii=False)
            case "literal":
                content = self.draw(st.text(st.sampled_from('ab "#[]{}=,\\')))
                self.text += f"'{content}'"
            case "long basic":
                content = "".join(self.draw(st.lists(st.sampled_from(BASIC_PIECES))))
                content = content.replace('"""', '""\\"')
                self.text += f'"""{content}"""'
            case "long literal":
                content = "".join(self.draw(st.lists(st.sampled_from(LITERAL_PIECES))))
                content = content.replace("'''", "''.")
                self.text += f"'''{content}'''"
            case "array":
                self.array(path, depth)
            case _:
                self.inline_table(path, depth)

    def array(self, path: KeyPath, depth: int) -> None:
        self.text += "[" + self.choose(*GAPS)
        length = self.draw(st.integers(0, 3))
        for index in range(length):
            self.note((*path, index))
            self.value((*path, index), depth + 1)
            self.text += self.choose(*GAPS)
            if index < length - 1 or self.draw(st.booleans()):
                self.text += "," + self.choose(*GAPS)
        self.text += "]"

    def inline_table(self, path: KeyPath, depth: int) -> None:
        self.text += self.choose("{", "{ ")
        for index, key in enumerate(self.draw(st.one_of(st.just([]), unique_keys))):
            self.text += self.choose(",", ", ") if index else ""
            self.key_and_value(path, key, depth + 1)
            self.text += self.choose("", " ")
        self.text += "}"

    def end_of_line(self) -> None:
        self.text += self.choose("\n", " # [comment] = 'x'\n", '\n\n# "more\n\n', " \t\n")

    def body(self, table: KeyPath, names: list[str]) -> None:
        for key in names:
            self.text += self.choose("", "  ")
            self.key_and_value(table, key)
            self.end_of_line()

    def header(self, opening: str, names: list[str]) -> None:
        self.text += opening
        for index, name in enumerate(names):
            self.text += self.choose(".", " . ") if index else ""
            self.key(name)
        self.text += opening.replace("[", "]")
        self.end_of_line()

    def array_of_tables(self, name: str, others: list[str]) -> None:
        for index in range(self.draw(st.integers(1, 3))):
            self.note((name,))
            self.note((name, index))
            self.header("[[", [name])
            self.body((name, index), others)
            if self.draw(st.booleans()):
                self.note((name, index, "sub table"))
                self.header("[", [name, "sub table"])
                self.body((name, index, "sub table"), others)
            for deep in range(self.draw(st.integers(0, 2))):
                self.note((name, index, "sub array"))
                self.note((name, index, "sub array", deep))
                self.header("[[", [name, "sub array"])
                self.body((name, index, "sub array", deep), others)


@st.composite
def documents(draw: DrawFn) -> tuple[str, dict[KeyPath, int]]:
    """A TOML text, and the line of every path in it."""
    writer = Writer(draw)
    first, *sections = draw(st.lists(keys, unique=True, min_size=1, max_size=5))
    writer.text += writer.choose("", "\n", "# a comment\n\n")
    writer.body((), [first])
    for name in sections:
        if writer.choose("table", "array") == "array":
            writer.array_of_tables(name, draw(unique_keys))
            continue
        deeper = [name, *draw(st.lists(keys, max_size=2))]
        for depth in range(1, len(deeper) + 1):
            writer.note(tuple(deeper[:depth]))
        writer.header("[", deeper)
        writer.body(tuple(deeper), draw(unique_keys))
    if draw(st.booleans()):
        writer.text = writer.text.rstrip("\n \t")
    return writer.text, writer.lines


def paths(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path of everything tomllib has read."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield (*path, key)
        yield from paths(inner, (*path, key))


@unhurried
@given(documents())
def test_every_path_is_found_on_the_line_where_it_was_written(
    document: tuple[str, dict[KeyPath, int]],
) -> None:
    text, lines = document
    found = locate(text)
    assert found == lines
    assert set(found) == set(paths(tomllib.loads(text)))


@unhurried
@given(documents())
def test_line_ends_of_windows_make_no_difference(
    document: tuple[str, dict[KeyPath, int]],
) -> None:
    text, lines = document
    assert locate(text.replace("\n", "\r\n")) == lines


def test_the_items_of_an_array_of_tables_are_counted_through_the_file() -> None:
    text = '[[a.b]]\nx = 1\n[[a.b]]\n[a.b.c]\ny = [\n  1,\n  "]",\n]\n[[a.b]]\n'
    assert locate(text) == {
        ("a",): 1,
        ("a", "b"): 1,
        ("a", "b", 0): 1,
        ("a", "b", 0, "x"): 2,
        ("a", "b", 1): 3,
        ("a", "b", 1, "c"): 4,
        ("a", "b", 1, "c", "y"): 5,
        ("a", "b", 1, "c", "y", 0): 6,
        ("a", "b", 1, "c", "y", 1): 7,
        ("a", "b", 2): 9,
    }
