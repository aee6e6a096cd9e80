"""Credentials: files that the conf file names without saying where they are.

``credential:NAME`` stands for a file that systemd hands to the service (``LoadCredential=``,
systemd.exec(5)). Outside of a service, such as in ``--check-config``, it is the file that the copy
would be made of.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.values.schema import Mistake

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ai_ticket_daemon.config.read.document import Document
    from ai_ticket_daemon.config.values.schema import KeyPath

PREFIX = "credential:"
SOURCE = Path("/etc/ai-ticket/credentials")
"""Where the credentials of the service are made from; root's alone."""
SET_ID = "ai-ticket"
"""What the unit calls the directory: systemd puts this and ``_`` before the name of each file."""
FILE_KEYS = frozenset({"password_file", "tokens_file", "tls_cert", "tls_key"})

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def resolve_credentials(
    document: Document, environ: Mapping[str, str], source: Path = SOURCE
) -> Iterator[Mistake]:
    """Put paths in place of credentials; yield what is wrong with their names."""
    given = environ.get("CREDENTIALS_DIRECTORY", "")
    for path, value in list(_credentials(document.raw, ())):
        name = value.removeprefix(PREFIX)
        if not _NAME.fullmatch(name):
            yield Mistake(path, f'after "{PREFIX}" comes a name of letters, digits, - _ or .')
            continue
        places = [Path(given, name), Path(given, f"{SET_ID}_{name}")] if given else [source / name]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            yield Mistake(
                path,
                f"there is no credential `{name}`; put it into {source}, readable for root alone, "
                "and restart the service",
            )
        else:
            document.set(path, str(found), document.origin(path))


def _credentials(value: object, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yield every credential in the document, with its place."""
    match value:
        case dict():
            for key, inner in value.items():
                yield from _credentials(inner, (*path, key))
        case list():
            for index, inner in enumerate(value):
                yield from _credentials(inner, (*path, index))
        case str() if value.startswith(PREFIX) and path and path[-1] in FILE_KEYS:
            yield path, value
