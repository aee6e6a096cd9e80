"""Makes ended spans into those of the SDK and exports them, from a thread of its own, in batches.

OpenTelemetry's own batch processor waits as long as its exporter likes when it is flushed or shut
down, and logs each span it drops. This one stops in bounded time, and a collector that is away
costs one warning and a counter. It takes the standard ``OTEL_BSP_*`` variables.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from enum import StrEnum
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace.export import SpanExportResult

from ai_ticket_daemon.host.exhaustion import exhausted
from ai_ticket_daemon.telemetry.bounded_sender import BoundedSender

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.sdk.trace.export import SpanExporter
    from structlog.typing import FilteringBoundLogger

    from ai_ticket_daemon.telemetry.traces.span_maker import SpanMaker
    from ai_ticket_daemon.telemetry.traces.spans import Span

CLOSE_SECONDS = 2.0
"""How long the last spans may take at a stop."""
_ABORT_SECONDS = 0.5
"""How long an exporter that was told to shut down may take to let go."""


class DropReason(StrEnum):
    """Why a span never reached the collector."""

    QUEUE_FULL = "queue_full"
    EXPORT_FAILED = "export_failed"
    STOPPED = "stopped"


class SpanSender:
    """Queues spans and exports them in batches.

    Args:
        maker: makes of them what the exporter takes.
        exporter: takes the spans; may block and may fail.
        log: told once when the collector is away, and once when it is back.
        dropped: counts spans that are lost; called from any thread.
        max_queue_size: how many spans may wait; further ones are dropped.
        max_batch_size: how many go at once.
        delay_seconds: how long a span waits at the most before it goes.
    """

    def __init__(
        self,
        maker: SpanMaker,
        exporter: SpanExporter,
        *,
        log: FilteringBoundLogger,
        dropped: Callable[[DropReason, int], None],
        max_queue_size: int = 2048,
        max_batch_size: int = 512,
        delay_seconds: float = 1.0,
    ) -> None:
        self._maker = maker
        self._exporter = exporter
        self._log = log
        self._count_dropped = dropped
        self._lost_since_failure: int | None = None
        self._last_words = _LastWords()
        self._sender: BoundedSender[Span] = BoundedSender(
            "spans",
            self._send,
            dropped=self._drop,
            bound=max_queue_size,
            batch_size=min(max_batch_size, max_queue_size),
            delay_seconds=delay_seconds,
        )

    def put(self, span: Span) -> None:
        """Queue an ended span; never blocks."""
        self._sender.put(span)

    def close(self, timeout_seconds: float = CLOSE_SECONDS) -> None:
        """Send what is left, and stop; takes ``timeout_seconds`` and little more at the most."""
        self._sender.finish(timeout_seconds)
        # If no thread is to be had, the end of the process does it.
        with suppress(RuntimeError, MemoryError):
            shutdown = threading.Thread(target=self._exporter.shutdown, daemon=True)
            shutdown.start()
            shutdown.join(_ABORT_SECONDS)
        self._sender.abandon(_ABORT_SECONDS)

    def _send(self, batch: Sequence[Span]) -> bool:
        """Export one batch; it is done with then, also if it is lost."""
        reason = self._export(batch)
        if self._sender.is_abandoned:
            return True
        if reason is not None:
            self._lose(DropReason.EXPORT_FAILED, len(batch))
            if self._lost_since_failure is None:
                self._lost_since_failure = len(batch)
                self._log.warning("collector_unreachable", reason=reason)
        elif self._lost_since_failure is not None:
            lost, self._lost_since_failure = self._lost_since_failure, None
            self._log.info("collector_reachable", dropped=lost)
        return True

    def _drop(self, number: int) -> None:
        closing = self._sender.is_closing
        self._lose(DropReason.STOPPED if closing else DropReason.QUEUE_FULL, number)

    def _export(self, batch: Sequence[Span]) -> str | None:
        """Export one batch; return why it failed, None if it did not."""
        self._last_words.text = ""
        logger = logging.getLogger("opentelemetry")
        logger.addHandler(self._last_words)
        try:
            result = self._exporter.export([self._maker.make(span) for span in batch])
        # The edge of a foreign part: whatever it raises, the thread lives on.
        except Exception as error:  # noqa: BLE001
            lacking = exhausted(error)
            if lacking is not None:
                return f"this host is {lacking.lack}"
            return f"{type(error).__name__}: {error}"
        finally:
            logger.removeHandler(self._last_words)
        if result is SpanExportResult.SUCCESS:
            return None
        return self._last_words.text or "it refused them"

    def _lose(self, reason: DropReason, number: int) -> None:
        self._count_dropped(reason, number)
        if self._lost_since_failure is not None:
            self._lost_since_failure += number


class _LastWords(logging.Handler):
    """Keeps what an exporter logged last, instead of letting it write to standard error."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


def batch_settings(environ: Mapping[str, str]) -> dict[str, float]:
    """Return what ``OTEL_BSP_*`` say, as arguments of :class:`SpanSender`; nonsense is ignored."""
    names = {
        "OTEL_BSP_MAX_QUEUE_SIZE": "max_queue_size",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "max_batch_size",
        "OTEL_BSP_SCHEDULE_DELAY": "delay_seconds",
    }
    found: dict[str, float] = {}
    for variable, argument in names.items():
        text = environ.get(variable, "")
        if text.isascii() and text.isdecimal() and int(text) > 0:
            milliseconds = argument == "delay_seconds"
            found[argument] = int(text) / 1000 if milliseconds else int(text)
    return found
