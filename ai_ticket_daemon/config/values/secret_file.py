"""Files that hold one credential: the one rule for what in them belongs to it."""

from __future__ import annotations

from ai_ticket_daemon.config.values.rules import readable_file
from ai_ticket_daemon.config.values.schema import Rule, wrong
from ai_ticket_daemon.config.values.secret import Secret

MAX_BYTES = 4096
_AROUND = " \t\r\n"
"""What editors and shells leave around a line; no header could end with it."""


def parse_secret(content: bytes) -> Secret | None:
    """Return the credential in the bytes of a file; None if they hold none, or something else.

    Blanks and line ends around it are no part of it; blanks inside are.
    """
    try:
        text = content.decode("ascii").strip(_AROUND)
    except UnicodeDecodeError:
        return None
    if len(content) > MAX_BYTES or not text or not text.isprintable():
        return None
    return Secret(text)


def _read(value: object) -> Secret:
    path = readable_file.read(value)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise wrong(f"the file cannot be read: {error.strerror}") from error
    secret = parse_secret(content)
    if secret is None:
        raise wrong(
            "the file must hold the password and nothing else: one line of printable ASCII, "
            f"at most {MAX_BYTES} bytes; blanks and line ends around it do not count"
        )
    return secret


secret_file: Rule[Secret] = Rule("the absolute path of a readable file that holds one line", _read)
