"""``[[backends.server]]``: one server that generates."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from ai_ticket_daemon.config.values.addresses import url
from ai_ticket_daemon.config.values.rules import boolean, choice, integer, optional, seconds, text
from ai_ticket_daemon.config.values.schema import Mistake, Rule, not_a, setting, wrong
from ai_ticket_daemon.config.values.secret_file import secret_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ai_ticket_daemon.config.values.secret import Secret

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_NAME_KIND = "a string of 1 to 63 letters, digits, - _ or ., the first a letter or digit"


class BackendRole(StrEnum):
    """When a server is used."""

    PRIMARY = "primary"
    """Whenever it is usable."""
    STANDBY = "standby"
    """While no primary is usable."""


class BackendKind(StrEnum):
    """What software a server runs."""

    KOBOLDCPP = "koboldcpp"
    OPENAI = "openai"
    """Any OpenAI-compatible server."""


class Dialect(StrEnum):
    """The API a server is spoken to in."""

    OPENAI_CHAT = "openai-chat"
    OPENAI_COMPLETIONS = "openai-completions"
    KOBOLD = "kobold"


def _read_name(value: object) -> str:
    if not isinstance(value, str):
        raise not_a(_NAME_KIND, value)
    if not _NAME.fullmatch(value):
        raise wrong(f"must be {_NAME_KIND}")
    return value


_name = Rule(_NAME_KIND, _read_name)


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """One server that generates."""

    live: ClassVar[bool] = True
    name: str = field(
        metadata=setting(_name, "What metrics, logs and answers call the server; unique.")
    )
    url: str = field(
        metadata=setting(url, "Base URL, a path prefix allowed, such as `http://127.0.0.1:5001`.")
    )
    role: BackendRole = field(
        default=BackendRole.PRIMARY,
        metadata=setting(
            choice(BackendRole),
            "A `standby` serves while no `primary` is usable; one primary at least is needed.",
        ),
    )
    kind: BackendKind = field(
        default=BackendKind.KOBOLDCPP,
        metadata=setting(
            choice(BackendKind),
            "`openai` is any OpenAI-compatible server other than KoboldCPP.",
        ),
    )
    dialect: Dialect = field(
        default=Dialect.OPENAI_CHAT,
        metadata=setting(
            choice(Dialect),
            'API the server is spoken to in; `kobold` needs `kind = "koboldcpp"`.',
        ),
    )
    use_template: bool = field(
        default=True,
        metadata=setting(
            boolean,
            "Where the dialect takes a text, lay prompts out with the model's chat template, if a "
            "KoboldCPP tells one; `false` sends them as they are.",
        ),
    )
    max_in_flight: int = field(
        default=1,
        metadata=setting(
            integer(1, 1024, "requests"),
            "Generations at a time; KoboldCPP has one slot.",
        ),
    )
    password: Secret | None = field(
        default=None,
        metadata=setting(
            optional(secret_file),
            "File that holds the server's password or API key; blanks around it do not count. "
            "Read at start and reload.",
            key="password_file",
        ),
    )
    model: str | None = field(
        default=None,
        metadata=setting(
            optional(text()),
            "Name of the model the server must serve; with another one it is not used.",
        ),
    )
    context_tokens: int = field(
        default=0,
        metadata=setting(
            integer(0, 100_000_000, "tokens"),
            "Least context the server must have; with less it is not used. `0`: any will do.",
        ),
    )
    connect_timeout_seconds: float = field(
        default=5.0,
        metadata=setting(seconds(0.01, 3600), "Longest time to connect."),
    )
    first_token_timeout_seconds: float = field(
        default=120.0,
        metadata=setting(
            seconds(0.01, 86_400),
            "Longest time from sending the request to the first token.",
        ),
    )
    idle_timeout_seconds: float = field(
        default=60.0,
        metadata=setting(seconds(0.01, 86_400), "Longest time between two tokens."),
    )
    total_timeout_seconds: float = field(
        default=600.0,
        metadata=setting(seconds(0.01, 86_400), "Longest time for one generation."),
    )

    load_timeout_seconds: float = field(
        default=300.0,
        metadata=setting(
            seconds(0.01, 86_400),
            "Longest time for a server that has unloaded its model to load it for a request; "
            "the other times begin after that.",
        ),
    )

    def conflicts(self) -> Iterator[Mistake]:
        """Yield what does not go together."""
        if self.kind is BackendKind.OPENAI and self.dialect is Dialect.KOBOLD:
            yield Mistake(
                ("dialect",),
                'a server of kind "openai" speaks "openai-chat" or "openai-completions" only',
                ("kind",),
            )
        total = self.total_timeout_seconds
        for key, value in (
            ("connect_timeout_seconds", self.connect_timeout_seconds),
            ("first_token_timeout_seconds", self.first_token_timeout_seconds),
            ("idle_timeout_seconds", self.idle_timeout_seconds),
        ):
            if value > total:
                yield Mistake(
                    (key,),
                    f"must not exceed `total_timeout_seconds` ({total:g}), but is {value:g}",
                    ("total_timeout_seconds",),
                )
