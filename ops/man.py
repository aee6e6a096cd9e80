#!/usr/bin/env python3
"""The man pages, written from what the documents are made of, so that they cannot disagree.

``python ops/man.py`` brings docs/man up to date: the keys come from the sections of the
configuration, as docs/configuration.md does, the options from the command itself, the signals and
exit codes from docs/signals.md.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_ticket_daemon import __version__
from ai_ticket_daemon.__main__ import command_line
from ai_ticket_daemon.config.backend_server import ServerConfig
from ai_ticket_daemon.config.backends import BackendsConfig
from ai_ticket_daemon.config.read.environment import VARIABLES
from ai_ticket_daemon.config.read.reference import default_of
from ai_ticket_daemon.config.tree import Config
from ai_ticket_daemon.config.values.schema import settings_of
from ai_ticket_daemon.ctl.cli import parser as ctl_parser
from ai_ticket_daemon.ctl.command_tree import each_command
from ai_ticket_daemon.ctl.session import SOCKET_VARIABLE, TOKEN_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "man"

_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_MARKED = re.compile(r"`([^`]*)`|\*\*([^*]*)\*\*|\*([^*]*)\*")


def pages() -> dict[str, str]:
    """Return the text of every page by its file name."""
    return {
        "ai-ticket-daemon.8": "\n".join(_daemon_page()) + "\n",
        "ai-ticket.conf.5": "\n".join(_conf_page()) + "\n",
        "ai-ticketctl.1": "\n".join(_ctl_page()) + "\n",
    }


def _daemon_page() -> Iterator[str]:
    parser = command_line()
    signals = (ROOT / "docs" / "signals.md").read_text()
    yield _title("ai-ticket-daemon", 8)
    yield from _section("NAME", f"ai-ticket-daemon \\- {_line(parser.description or '')}")
    yield ".SH SYNOPSIS"
    for action in _options(parser):
        yield f".B ai\\-ticket\\-daemon\n{_option(action)}\n.br"
    yield from _section("DESCRIPTION", _line(parser.description or ""))
    yield from _paragraph(
        "Installed, it is a systemd service: `ai-ticket.service` with `ai-ticket.socket`, which "
        "holds the listening socket, and `ai-ticket@.service` for further instances."
    )
    yield ".SH OPTIONS"
    for action in _options(parser):
        yield from _term(_option(action), action.help or "")
    yield ".SH SIGNALS"
    for names, what in _rows(signals, "Signal"):
        yield from _term(_line(names), what)
    yield ".SH EXIT STATUS"
    for code, meaning, advice in _rows(signals, "Exit code"):
        yield from _term(_line(code), f"{meaning} {advice}".strip())
    yield ".SH ENVIRONMENT"
    yield from _variables()
    yield ".SH FILES"
    for path, what in _FILES:
        yield from _term(_bold(path), what)
    yield from _section(
        "SEE ALSO",
        ", ".join(
            [
                _bold("ai-ticket.conf") + "(5)",
                _bold("ai-ticketctl") + "(1)",
                _bold("systemctl") + "(1)",
            ]
        ),
    )


def _ctl_page() -> Iterator[str]:
    parser = ctl_parser()
    signals = (ROOT / "docs" / "signals.md").read_text().partition("## Exit codes of")[2]
    yield _title("ai-ticketctl", 1)
    yield from _section("NAME", "ai\\-ticketctl \\- looks at ai\\-ticket\\-daemon and acts on it")
    yield ".SH SYNOPSIS"
    yield ".B ai\\-ticketctl\n[\\fIoptions\\fR] \\fIcommand\\fR [\\fIarguments\\fR]"
    yield from _section("DESCRIPTION", _line(parser.description or ""))
    yield from _paragraph(
        "It talks to the daemon over the control socket, which the daemon's user and group may "
        "open. Whoever may not, and is in the group ai-ticket-view, looks over the view socket, "
        "and cannot act. Every change is in the journal twice: under AI_TICKET_LOG=control_asked "
        "with the user (_UID) who asked, as journald knows it, and under "
        "AI_TICKET_LOG=control_change with its result, as the daemon knows it. The uid in the "
        "latter is 65534 for all but root where the daemon runs as a service."
    )
    yield ".SH OPTIONS"
    yield from _paragraph("They stand before the command or behind it.")
    common = {option for action in _options(parser) for option in action.option_strings}
    for action in _options(parser):
        yield from _term(_option(action), action.help or "")
    yield ".SH COMMANDS"
    for name, command in each_command(parser):
        words = " ".join(_bold(word) for word in name.split())
        places = [_argument(a) for a in command._actions if not a.option_strings]  # noqa: SLF001
        yield from _term(" ".join([words, *places]), command.description or "")
        yield ".RS"
        for action in _options(command):
            if not common.intersection(action.option_strings):
                yield from _term(_option(action), (action.help or "").replace("%%", "%"))
        yield from _examples(command.epilog or "")
        yield ".RE"
    yield ".SH EXIT STATUS"
    for code, meaning, advice in _rows(signals, "Exit code"):
        yield from _term(_line(code), f"{meaning} {advice}".strip())
    yield ".SH ENVIRONMENT"
    yield from _term(_bold(SOCKET_VARIABLE), "The control socket, unless an option names it.")
    yield from _term(_bold(TOKEN_VARIABLE), "The token of a load test over the public address.")
    yield ".SH FILES"
    yield from _term(_bold("/run/ai-ticket/control.sock"), "The control socket.")
    yield from _term(_bold("/run/ai-ticket-view/ai-ticket.sock"), "The view socket.")
    yield from _section("SEE ALSO", _bold("ai-ticket-daemon") + "(8)")


def _argument(action: Any) -> str:
    name = f"\\fI{_escape(str(action.metavar or action.dest))}\\fR"
    return f"[{name}]" if action.nargs == "?" else name


def _examples(epilog: str) -> Iterator[str]:
    yield ".PP\n.nf"
    for line in epilog.splitlines()[1:]:
        yield _escape(line.strip())
    yield ".fi"


def _conf_page() -> Iterator[str]:
    yield _title("ai-ticket.conf", 5)
    yield from _section("NAME", "ai-ticket.conf \\- configuration of ai\\-ticket\\-daemon")
    yield from _section("SYNOPSIS", _bold("/etc/ai-ticket/ai-ticket.conf"))
    yield ".SH DESCRIPTION"
    yield from _paragraph(
        "The file is in TOML syntax (https://toml.io). Durations are in seconds, sizes in bytes, "
        "paths absolute. A value is taken from the command line, else from the environment, else "
        "from this file, else it is the default. Keys that are not known are refused."
    )
    yield from _paragraph(
        "Keys marked *live* take effect at a reload (`systemctl reload ai-ticket`), the others at "
        "a restart. A file with any mistake is refused as a whole; "
        "`ai-ticket-daemon --config FILE --check-config` tells all of them with their lines."
    )
    yield from _paragraph(
        "Where a key names a file, `credential:NAME` is the file of that name in "
        "`/etc/ai-ticket/credentials`, which systemd hands to the service at its start."
    )
    yield from _paragraph("The smallest file that works:")
    yield '.PP\n.nf\n[[backends.server]]\nname = "primary"\nurl = "http://127.0.0.1:5001"\n.fi'
    config = Config()
    for name in settings_of(Config):
        section = type(getattr(config, name))
        yield from _keys(f"[{name}]", section)
        if section is BackendsConfig:
            yield from _keys("[[backends.server]]", ServerConfig)
    yield ".SH ENVIRONMENT"
    yield from _variables()
    yield from _section("SEE ALSO", _bold("ai-ticket-daemon") + "(8)")


def _keys(heading: str, section: type[Any]) -> Iterator[str]:
    yield f'.SH "{_escape(heading)}"'
    yield from _paragraph(section.__doc__ or "")
    for key, (field, setting) in settings_of(section).items():
        if (section, key) == (BackendsConfig, "server"):
            continue  # has a section of its own
        reload = "live" if setting.live else "restart"
        yield from _term(
            _bold(key),
            f"{setting.meaning} It is {setting.rule.kind}. Default: {default_of(field)}; {reload}.",
        )


def _variables() -> Iterator[str]:
    for name, variable in VARIABLES.items():
        yield from _term(_bold(name), f"Overrides {variable.effect}")


_FILES = (
    ("/etc/ai-ticket/ai-ticket.conf", "The configuration."),
    ("/etc/ai-ticket/credentials/", "Passwords and tokens, one file each, for root alone."),
    ("/var/lib/ai-ticket/", "The events."),
    ("/run/ai-ticket/reload.json", "The result of the last reload."),
)


def _options(parser: Any) -> list[Any]:
    return [action for action in parser._actions if action.option_strings]  # noqa: SLF001


def _option(action: Any) -> str:
    words = ", ".join(_bold(option) for option in action.option_strings)
    value = action.metavar or "|".join(action.choices or [])
    return words if action.nargs == 0 else f"{words} \\fI{_escape(value)}\\fR"


def _rows(document: str, first_column: str) -> Iterator[list[str]]:
    """Yield the rows of the table whose first column has that heading."""
    table = document.partition(f"| {first_column} |")[2].partition("\n\n")[0]
    for row in table.splitlines()[2:]:
        yield [cell.strip() for cell in row.strip("|").split(" | ")]


def _title(name: str, section: int) -> str:
    source = f"ai-ticket-daemon {__version__}"
    return f'.TH {name.upper()} {section} "" "{source}" "ai-ticket-daemon"'


def _section(heading: str, text: str) -> Iterator[str]:
    yield f".SH {heading}"
    yield text


def _paragraph(text: str) -> Iterator[str]:
    yield ".PP"
    yield _line(text)


def _term(term: str, text: str) -> Iterator[str]:
    yield f".TP\n{term}"
    yield _line(text)


def _line(text: str) -> str:
    """Return one paragraph of the documents' Markdown as roff."""
    text = _LINK.sub(r"\1", " ".join(text.replace("%(prog)s", "ai-ticket-daemon").split()))
    parts, end = [], 0
    for marked in _MARKED.finditer(text):
        code, strong, stressed = marked.groups()
        parts += [_escape(text[end : marked.start()])]
        parts += [f"\\fI{_escape(stressed)}\\fR" if stressed else _bold(code or strong or "")]
        end = marked.end()
    line = "".join(parts) + _escape(text[end:])
    # A control character in the first place would make the line a request.
    return f"\\&{line}" if line.startswith((".", "'")) else line


def _bold(text: str) -> str:
    return f"\\fB{_escape(text)}\\fR"


def _escape(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file_name, page in pages().items():
        (FOLDER / file_name).write_text(page)
