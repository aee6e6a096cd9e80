"""``docs/configuration.md``, written from the sections so that it cannot disagree with them.

``python -m ai_ticket_daemon.config.read.reference > docs/configuration.md`` brings it up to date.
"""

from __future__ import annotations

import sys
from dataclasses import MISSING, Field
from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.config.backend_server import ServerConfig
from ai_ticket_daemon.config.backends import BackendsConfig
from ai_ticket_daemon.config.diff import as_toml
from ai_ticket_daemon.config.read.environment import VARIABLES
from ai_ticket_daemon.config.tree import Config
from ai_ticket_daemon.config.values.schema import is_required, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_INTRODUCTION = """\
# Configuration

<!-- Written by `python -m ai_ticket_daemon.config.read.reference`; change the sections in
     `ai_ticket_daemon/config/` and run it again. -->

The daemon reads one file, `ai-ticket.conf`, in [TOML](https://toml.io) syntax; installed, it is
`/etc/ai-ticket/ai-ticket.conf`. The copy at the top of the source tree holds every key with its
default. The smallest file that works names one server:

```toml
[[backends.server]]
name = "primary"
url = "http://127.0.0.1:5001"
```

## What counts

A value is taken from the first place that has it:

1. the command line,
2. the environment (the table below; a variable that is empty counts as not set),
3. the file,
4. the default.

Durations are in seconds and may have a fraction (`0.5`); sizes are in bytes. Where "or empty for
none" is allowed, an empty string is the same as leaving the key out. File paths are absolute.
Passwords stand in files of their own (`password_file`), never in the conf file, and are shown as
`***` wherever the configuration is shown. Where a key names a file, `credential:NAME` names the
[credential](systemd.md#passwords-and-tokens) that systemd hands to the service; outside of it, such
as in `--check-config`, that is `/etc/ai-ticket/credentials/NAME`, which root may read.

## Checking a file

```sh
ai-ticket-daemon --config /etc/ai-ticket/ai-ticket.conf --check-config
```

reads the file with the daemon's own loader, in the environment of the shell, and starts nothing.
Every mistake is told at once, each with file, line, key and what is allowed; servers are counted
from 0:

```text
/etc/ai-ticket/ai-ticket.conf:7: pipeline.max_concurency: is not a known key; did you mean \
`max_concurrency`?
/etc/ai-ticket/ai-ticket.conf:15: backends.server[1].url: has no scheme; it must be a URL such as \
"http://127.0.0.1:5001"
environment variable PORT: http.bind: the port must be a whole number from 0 to 65535
```

A mistake in the configuration ends the daemon with exit code 78. Keys that are not known are
refused, so that a misspelt one cannot be overlooked.

## Reload

On `SIGHUP` the file and the environment are read again. If anything is wrong, the running
configuration stays as it is. Otherwise the keys marked *live* below take effect at once; a changed
key that is not live is reported as "needs a restart", and the rest is applied.

## Environment
"""


def reference() -> str:
    """Return the text of ``docs/configuration.md``."""
    lines = [_INTRODUCTION, "| Variable | Overrides |", "|---|---|"]
    lines += [f"| `{name}` | {variable.effect} |" for name, variable in VARIABLES.items()]
    config = Config()
    for name in settings_of(Config):
        section = type(getattr(config, name))
        lines += _section(f"[{name}]", name, section)
        if section is BackendsConfig:
            lines += _section("[[backends.server]]", "backends.server", ServerConfig)
    return "\n".join(lines) + "\n"


def _section(heading: str, name: str, section: type[Any]) -> Iterator[str]:
    yield f"\n## `{heading}`\n"
    yield f"{section.__doc__}\n"
    yield "| Key | Allowed | Default | Reload | Meaning |"
    yield "|---|---|---|---|---|"
    for key, (field, setting) in settings_of(section).items():
        if (name, key) == ("backends", "server"):
            continue  # has a section of its own
        reload = "live" if setting.live else "restart"
        cells = (f"`{key}`", setting.rule.kind, default_of(field), reload, setting.meaning)
        yield f"| {' | '.join(cells)} |"


def default_of(field: Field[Any]) -> str:
    """Return the default of a key as the documents show it."""
    if is_required(field):
        return "required"
    if field.default is MISSING or field.default is None:
        return "none"
    return f"`{as_toml(field.default)}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
