"""What is kept of the settings of an HTTP/2 client: a bounded part, whatever it sends.

A client may set the size of the table that our headers are compressed with to 4 GiB, change it with
each frame, and send 65,536 settings that nobody knows. It may ask for all of that; it does not
get it (RFC 7541 section 4.2 lets the sender of headers use less of the table than it is given).
"""

from __future__ import annotations

import h2.settings
from hpack import Encoder

MAX_TABLE_BYTES = 4096
"""The default of RFC 9113, which is enough for the few headers of our answers."""

_KNOWN = frozenset(h2.settings.SettingCodes)


class BoundedEncoder(Encoder):
    """Compresses headers with a table of at most ``MAX_TABLE_BYTES``."""

    @property
    def header_table_size(self) -> int:
        """How large the table may become."""
        return int(self.header_table.maxsize)

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        size = min(value, MAX_TABLE_BYTES)
        if size == self.header_table.maxsize:
            return
        self.header_table.maxsize = size
        # Of all changes since the last headers, the client needs the smallest and the last one.
        self.table_size_changes = sorted({min([*self.table_size_changes, size]), size})


class RemoteSettings(h2.settings.Settings):
    """The settings of a client, without those that mean nothing here."""

    def __init__(self) -> None:
        super().__init__(client=True)

    def __setitem__(self, key: int, value: int) -> None:
        if key in _KNOWN:
            super().__setitem__(key, value)
