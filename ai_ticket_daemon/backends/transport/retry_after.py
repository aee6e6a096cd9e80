"""When a server wants to be asked again: its header ``Retry-After``, a number or a date."""

from __future__ import annotations

import math
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_SECONDS = 3600.0
_LONGEST_HEADER = 64
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")


def retry_after_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """Return how long to wait, an hour at the most; None if the server does not say.

    A date counts from the server's own clock, if its answer tells it: clocks differ. One that is
    over means at once.

    Args:
        headers: of the answer.
        now: seconds since the Unix epoch, here.
    """
    value = headers.get("retry-after", "").strip()
    if not value or len(value) > _LONGEST_HEADER:
        return None
    if _SECONDS.fullmatch(value):
        return min(float(value), LONGEST_SECONDS)
    at = _date(value)
    if at is None:
        return None
    here = _date(headers.get("date", "").strip())
    wait = at - (now if here is None else here)
    return min(max(0.0, math.ceil(wait)), LONGEST_SECONDS)


def _date(value: str) -> float | None:
    if not value or len(value) > _LONGEST_HEADER:
        return None
    try:
        date = parsedate_to_datetime(value)
        # A date in the old form has no zone: HTTP knows only one.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
