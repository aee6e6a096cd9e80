"""Whoever looks on never costs more than the look: what it raises is logged, counted, and over.

:func:`guarded` wraps an observer; none of its methods raises then. :class:`Failures` is told of
what they would have raised, and is used alone where there is no observer to wrap.
"""

from __future__ import annotations

import functools
import math
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from structlog.typing import FilteringBoundLogger

PARTS = ("capture", "http", "pipeline", "pool", "sampler", "store")
"""Who looks on."""

SAY_SECONDS = 60.0
"""Between two lines about the failures of one observer, however many there are."""

T = TypeVar("T")


class Failures:
    """Logs and counts what went wrong where somebody looked on.

    Args:
        part: which observer it is.
        log: told of a failure, once in ``SAY_SECONDS``.
        count: called with ``part`` for each failure.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        part: str,
        log: FilteringBoundLogger,
        count: Callable[[str], None] = lambda _part: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._part = part
        self._log = log
        self._count = count
        self._clock = clock
        self._said_at = -math.inf
        self._unsaid = 0

    def note(self, what: str, error: Exception) -> None:
        """Log and count that ``what`` failed; never raises."""
        self._unsaid += 1
        try:
            self._count(self._part)
            now = self._clock()
            if now - self._said_at >= SAY_SECONDS:
                failures, self._unsaid, self._said_at = self._unsaid, 0, now
                self._log.error(
                    "observer_failed", part=self._part, at=what, failures=failures, exc_info=error
                )
        except Exception:  # noqa: BLE001, S110 - the log itself is what failed; nobody is left to tell
            pass


def guarded(observer: T, failures: Failures) -> T:
    """Return ``observer`` so that calling it raises nothing.

    Where a method fails, None takes the place of what it would have returned, and around a block
    nothing is done. What is raised inside of such a block goes on as if nobody looked.
    """
    return cast("T", _Guarded(observer, failures))


class _Guarded:
    def __init__(self, observer: object, failures: Failures) -> None:
        self._observer = observer
        self._failures = failures

    def __getattr__(self, name: str) -> object:
        value = getattr(self._observer, name)
        if callable(value):
            value = _quiet(value, name, self._failures)
            vars(self)[name] = value  # found at once the next time
        return value


def _quiet(method: Callable[..., Any], name: str, failures: Failures) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: object, **named: object) -> object:
        try:
            value = method(*args, **named)
        except Exception as error:  # noqa: BLE001 - the edge of an observer
            failures.note(name, error)
            return None
        return _Around(value, name, failures) if isinstance(value, _Block) else value

    return call


_Block = AbstractContextManager


class _Around(AbstractContextManager[None]):
    """Enters and leaves another context; what fails at that is not the block's."""

    def __init__(self, inner: AbstractContextManager[Any], name: str, failures: Failures) -> None:
        self._inner: AbstractContextManager[Any] | None = inner
        self._name = name
        self._failures = failures

    def __enter__(self) -> None:
        try:
            if self._inner is not None:
                self._inner.__enter__()
        except Exception as error:  # noqa: BLE001 - the edge of an observer
            self._inner = None
            self._failures.note(self._name, error)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._inner is None:
            return
        try:
            self._inner.__exit__(kind, raised, traceback)
        except Exception as error:  # noqa: BLE001 - the edge of an observer
            if error is not raised:
                self._failures.note(self._name, error)
