"""The example conf and the reference say what the code does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ai_ticket_daemon.config import Config, ServerConfig, load_config
from ai_ticket_daemon.config.backends import BackendsConfig
from ai_ticket_daemon.config.read.locate import locate
from ai_ticket_daemon.config.read.reference import reference
from ai_ticket_daemon.config.values.schema import settings_of
from tests.support.project import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from ai_ticket_daemon.config.values.schema import KeyPath

EXAMPLE = ROOT / "ai-ticket.conf"
COMMENTED_KEY = re.compile(r"^# (?=[a-z_]+ = )", re.MULTILINE)
AS_SHIPPED = Config(
    backends=BackendsConfig(servers=(ServerConfig(name="primary", url="http://127.0.0.1:5001"),))
)


def uncommented() -> str:
    return COMMENTED_KEY.sub("", EXAMPLE.read_text())


def test_the_example_works_as_it_is_shipped() -> None:
    assert load_config(EXAMPLE, {}) == AS_SHIPPED


def test_the_defaults_in_the_example_are_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "ai-ticket.conf"
    path.write_text(uncommented())
    assert load_config(path, {}) == AS_SHIPPED


def test_the_example_has_every_key_of_every_section() -> None:
    expected: set[KeyPath] = {
        (section, key)
        for section in settings_of(Config)
        for key in settings_of(type(getattr(Config(), section)))
    }
    expected |= {("backends", "server", 0, key) for key in settings_of(ServerConfig)}
    assert {path for path in locate(uncommented()) if isinstance(path[-1], str)} >= expected


def test_every_key_of_the_example_says_whether_a_reload_applies_it() -> None:
    """The comment above a key, or above the keys it stands with, ends with it."""
    lines = uncommented().splitlines()
    located = locate("\n".join(lines))
    for section in settings_of(Config):
        owner = type(getattr(Config(), section))
        for key, (_, setting) in settings_of(owner).items():
            if (section, key) == ("backends", "server"):
                continue
            above = located[section, key] - 1
            while not lines[above - 1].startswith("#"):
                above -= 1
            comment = []
            while lines[above - 1].startswith("#"):
                comment.append(lines[above - 1])
                above -= 1
            words = re.findall(r"\b(Live|Restart)\.", " ".join(reversed(comment)))
            assert words == ["Live" if setting.live else "Restart"], (section, key)


def test_the_standby_in_the_example_works(tmp_path: Path) -> None:
    text = EXAMPLE.read_text()
    standby = "\n".join(re.findall(r"^#     (.*)$", text, re.MULTILINE))
    path = tmp_path / "ai-ticket.conf"
    path.write_text(f"{text}\n{standby}\n")
    assert [server.name for server in load_config(path, {}).backends.servers] == [
        "primary",
        "standby",
    ]


def test_the_reference_is_up_to_date() -> None:
    path = ROOT / "docs" / "configuration.md"
    assert path.read_text() == reference(), (
        "run: python -m ai_ticket_daemon.config.read.reference > docs/configuration.md"
    )
