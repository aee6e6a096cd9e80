"""ai-ticket-daemon: an event in, a completion or a precise error out, in front of KoboldCPP.

Start reading at :mod:`ai_ticket_daemon.app`; ``docs/architecture.md`` holds the walk of one event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ai_ticket_daemon.pipeline.async_pipeline import AsyncInferencePipeline

__all__ = ["AsyncInferencePipeline", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Imported when asked for, so that `--version` and the tools stay light.
    if name == "AsyncInferencePipeline":
        from ai_ticket_daemon.pipeline.async_pipeline import AsyncInferencePipeline  # noqa: PLC0415

        return AsyncInferencePipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
