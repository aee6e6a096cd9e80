"""The observer of a store that has to work for the length of a measurement."""

from __future__ import annotations

import sys


class StrictObserver:
    """Ends the process when the store fails; else says nothing."""

    def store_failed(self, reason: str) -> None:
        sys.exit(reason)

    def store_recovered(self, after_seconds: float) -> None:
        pass

    def events_recovered(self, event_ids: object) -> None:
        pass

    def requests_cut_off(self, requests: object) -> None:
        pass
