"""A clock that can be set under a running process: libfaketime, for the calendar alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.system.debian_packages import need_packages

LIBRARY = "*/faketime/libfaketimeMT.so.1"
CACHED_SECONDS = 1


def need_faketime() -> str:
    """Return the library; skip the test, telling why, without it; in CI that is a failure."""
    need_packages("clocks")
    return str(next(Path("/usr/lib").glob(LIBRARY)))


@dataclass
class SetClock:
    """The clock of the processes that are started with :attr:`environment`."""

    file: Path
    library: str

    def __post_init__(self) -> None:
        """Begin with the time of the host."""
        self.set(0)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": self.library,
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            # Read anew for each look at a clock, it would take a processor for itself.
            "FAKETIME_CACHE_DURATION": str(CACHED_SECONDS),
            # A clock is set; the time since the start of the host goes on as it does.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: float) -> None:
        """Set it so many seconds ahead of the host's: nobody reads half of it.

        A process that runs sees it after :data:`CACHED_SECONDS`.
        """
        draft = self.file.with_suffix(".draft")
        draft.write_text(f"{seconds:+g}")
        draft.rename(self.file)
