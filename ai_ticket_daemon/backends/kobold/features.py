"""What a KoboldCPP can do, and how that is recognised: the one table that behaviour follows.

Nobody else compares versions. Who does something else for one server than for another asks
``client.features`` whether it has a feature; an unknown server has none, which is always safe.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.backends.software import Software
from ai_ticket_daemon.backends.text.reasoning import MARKS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Version = tuple[int, ...]

NEWEST_KNOWN: Version = (1, 117)
"""The newest version whose behaviour was compared with this table."""
_RECORDED: Version = (1, 115)
"""The oldest version that was recorded with the newer behaviour. One in between is not trusted."""
_NEWEST_WITHOUT: Version = (1, 76)
"""The newest version that was recorded without it."""
_THINKING = (*(m.opening for m in MARKS), "<|channel|>", "reasoning_content", "enable_thinking")
"""What the template of a model says that thinks, or can."""
_VERSION = re.compile(r"\d{1,6}(\.\d{1,6}){0,3}")


class Feature(StrEnum):
    """What some servers can do and others cannot."""

    COUNTS_MESSAGES = "counts_messages"
    KEEPS_PLACEHOLDERS = "keeps_placeholders"
    TRUE_USAGE = "true_usage"
    REASONING = "reasoning"
    THINKS = "thinks"
    PARALLEL = "parallel"
    TEMPLATE = "template"
    JINJA = "jinja"
    SCHEMA = "schema"
    ADMIN = "admin"
    ROUTER = "router"


@dataclass(frozen=True, slots=True)
class Told:
    """What a server tells of itself: its answers to ``/api/extra/version`` and ``/props``.

    Both are empty where the server does not know the path.
    """

    about: Mapping[str, Any] = field(default_factory=dict)
    props: Mapping[str, Any] = field(default_factory=dict)

    @property
    def version(self) -> Version | None:
        """The version in numbers; None if it tells none, or something else."""
        text = self.about.get("version")
        if not isinstance(text, str) or not _VERSION.fullmatch(text):
            return None
        return tuple(int(part) for part in text.split("."))

    @property
    def template(self) -> str:
        """The template of its model; empty if that has none."""
        template = self.props.get("chat_template")
        return template if isinstance(template, str) else ""

    @property
    def chat_template(self) -> str | None:
        """The template of its model, if that has one."""
        return self.template or None


@dataclass(frozen=True, slots=True)
class Row:
    """A feature, how it is recognised, and what it changes here."""

    feature: Feature
    recognised: Callable[[Told], bool]
    by: str
    changes: str


def _recorded(told: Told) -> bool:
    return told.version is not None and told.version >= _RECORDED


def _flag(name: str) -> Callable[[Told], bool]:
    def set_there(told: Told) -> bool:
        return bool(told.about.get(name))

    return set_there


TABLE = (
    Row(
        Feature.COUNTS_MESSAGES,
        _recorded,
        "version 1.115 or newer",
        "Conversations are counted as they are, by the server and with its template.",
    ),
    Row(
        Feature.KEEPS_PLACEHOLDERS,
        _recorded,
        "version 1.115 or newer",
        "`replace_instruct_placeholders` is off, so a placeholder in a text stays text.",
    ),
    Row(
        Feature.TRUE_USAGE,
        _recorded,
        "version 1.115 or newer",
        "The server's `usage` is taken; a stream asks for it with `stream_options`.",
    ),
    Row(
        Feature.REASONING,
        _recorded,
        "version 1.115 or newer",
        "Thinking comes apart from the text, as `reasoning_content`.",
    ),
    Row(
        Feature.THINKS,
        lambda told: _recorded(told) and any(word in told.template for word in _THINKING),
        "version 1.115 or newer, and `chat_template` of `/props` has words for thinking",
        "A chat is always asked for as a stream, which tells unfinished thinking from an answer.",
    ),
    Row(
        Feature.PARALLEL,
        _recorded,
        "version 1.115 or newer",
        "With `max_in_flight` above 1, generations may share a batch: then only closing a "
        "stream frees a slot, and abort, check and counters are not believed.",
    ),
    Row(
        Feature.TEMPLATE,
        lambda told: told.chat_template is not None,
        "`chat_template` of `/props`",
        "Where the dialect takes a text, prompts are laid out with the template; `openai-chat` is "
        "the right dialect.",
    ),
    Row(
        Feature.JINJA,
        _flag("jinja"),
        "`jinja` of `/api/extra/version`",
        "The server lays conversations out with the model's own template.",
    ),
    Row(
        Feature.SCHEMA,
        _recorded,
        "version 1.115 or newer",
        "`response_format` and `json_schema` hold an answer to a schema.",
    ),
    Row(
        Feature.ADMIN,
        _flag("admin"),
        "`admin` of `/api/extra/version`",
        "The server may unload or reload its model, also by itself when it is idle.",
    ),
    Row(
        Feature.ROUTER,
        _flag("router"),
        "`router` of `/api/extra/version`",
        "A request that names a `model` loads it again after it was unloaded.",
    ),
)


@dataclass(frozen=True, slots=True)
class Features:
    """What one server can do: ``Feature.X in features``."""

    known: frozenset[Feature] = frozenset()
    version: str | None = None
    newer: bool = False
    default_layout: bool = False
    """Whether it lays every conversation out in its own way, whatever the model."""
    chat_template: str | None = field(default=None, repr=False)

    def __contains__(self, feature: Feature) -> bool:
        return feature in self.known

    @property
    def software(self) -> Software:
        """The same in the words of every kind of server."""
        names = tuple(feature.value for feature in Feature if feature in self.known)
        return Software(self.version, names, self.newer)


OLDEST = Features()
"""Of a server that has not been looked at, or tells nothing: nothing is taken for granted."""


def features_of(told: Told) -> Features:
    """Return what a server can do, by what it tells."""
    version = told.version
    return Features(
        known=frozenset(row.feature for row in TABLE if row.recognised(told)),
        version=None if version is None else ".".join(map(str, version)),
        newer=version is not None and version[: len(NEWEST_KNOWN)] > NEWEST_KNOWN,
        default_layout=version is not None and version[:2] <= _NEWEST_WITHOUT,
        chat_template=told.chat_template,
    )
