"""One way to a :class:`Config`: file, environment, command line; at start, reload and check."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.read import otel_variables
from ai_ticket_daemon.config.read.credentials import resolve_credentials
from ai_ticket_daemon.config.read.document import Document, Origin, read_document
from ai_ticket_daemon.config.read.environment import apply_environment
from ai_ticket_daemon.config.read.errors import ConfigError
from ai_ticket_daemon.config.tree import Config
from ai_ticket_daemon.config.values.schema import Invalid, Mistake, settings_of, table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ai_ticket_daemon.config.read.errors import Problem

_COMMAND_LINE = Origin("command line")
_NOTHING: Mapping[str, object] = MappingProxyType({})


def load_config(
    path: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, object] = _NOTHING,
) -> Config:
    """Read the configuration from all its sources.

    It reads files (the conf file, passwords, certificates) and changes nothing.

    Args:
        path: the conf file; None if there is none.
        environ: the environment; overrides the file.
        overrides: what the command line says, by ``section.key``, as TOML values; overrides both.

    Raises:
        ConfigError: with every mistake found.
    """
    document = Document(Origin("configuration")) if path is None else read_document(path)
    problems = [*apply_environment(document, environ), *otel_variables.problems(environ)]
    for key, value in overrides.items():
        document.set(tuple(key.split(".")), value, _COMMAND_LINE)
    first = [*resolve_credentials(document, environ)]
    # What is refused anyway is not told twice.
    refused = {mistake.path for mistake in first}
    try:
        # Without any [backends] the section is still read: it is the one that must not be empty.
        config = table(Config, noun="section").read({"backends": {}} | document.raw)
    except Invalid as error:
        mistakes = [
            _with_section(mistake) for mistake in error.mistakes if mistake.path not in refused
        ]
    else:
        if not problems and not first:
            return config
        mistakes = []
    problems += [document.problem(mistake) for mistake in (*mistakes, *first)]
    raise ConfigError(sorted(problems, key=_place))


def _place(problem: Problem) -> tuple[bool, int]:
    return (problem.line is None, problem.line or 0)


def _with_section(mistake: Mistake) -> Mistake:
    """Return the mistake; if it is a key of another section, with that section's name."""
    if not mistake.unknown or len(mistake.path) != 2:
        return mistake
    key, config = mistake.path[1], Config()
    there = [
        f"`{name}.{key}`"
        for name in settings_of(Config)
        if key in settings_of(type(getattr(config, name)))
    ]
    if not there:
        return mistake
    message = f"is not a known key of this section; did you mean {' or '.join(there)}?"
    return replace(mistake, message=message)
