"""Which file a store is: one file has one name here, whatever it is called in the configuration.

SQLite keeps its log beside the file that a symbolic link leads to. The instance locks have to lie
beside that file, too, whatever name each daemon calls it by.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def resolve(path: Path) -> Path:
    """Return the file that ``path`` leads to through symbolic links, whether it is there or not.

    Raises:
        OSError: the links lead nowhere, or the file has a second name that would be no link: SQLite
            would keep a second log beside that, and neither would know of the other.
    """
    try:
        found = path.resolve()
    except RuntimeError as error:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from error
    if found.is_file() and found.stat().st_nlink > 1:
        raise OSError(
            errno.EMLINK, "The file has a second name (a hard link): remove one", str(path)
        )
    return found
