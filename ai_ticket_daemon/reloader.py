"""The reloader: check everything, then swap, then tell. A refused file changes nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.diff import diff
from ai_ticket_daemon.config.read.errors import ConfigError
from ai_ticket_daemon.host.exhaustion import Exhaustion, exhausted_by_name
from ai_ticket_daemon.systemd.reload_result import ReloadResult

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from structlog.typing import FilteringBoundLogger

    from ai_ticket_daemon.config.diff import Change
    from ai_ticket_daemon.config.tree import Config
    from ai_ticket_daemon.systemd.notify import Notifier
    from ai_ticket_daemon.telemetry.metrics import Metrics


WHERE = "reload"


class LiveConfig:
    """The configuration in force. Everybody reads it when needed; only a reload replaces it."""

    def __init__(self, config: Config) -> None:
        self._current = config

    @property
    def current(self) -> Config:
        """The configuration in force."""
        return self._current

    def replace(self, config: Config) -> None:
        """Put ``config`` in force; for the reloader alone."""
        self._current = config


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a reload would do.

    Args:
        changes: what would change.
        problems: why it would be refused; empty if it would not.
        warnings: what deserves a word although it is valid.
    """

    changes: tuple[Change, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Reloader:
    """Replaces the configuration in force by what the file says now.

    Args:
        live: the configuration to replace.
        load: reads the configuration anew, with the sources of the start.
        apply: told the new configuration, once it is in force.
        log: told of the outcome.
        metrics: told of the outcome.
        notifier: told when a reload begins and ends.
        result_path: where the result is left for whoever asked for the reload; None: nowhere.
        warnings: says what deserves a word in a configuration that is valid.
        in_effect: returns a configuration with what an operator overrides until the next reload.
        exhaustion: told of what the host lacks.
    """

    def __init__(
        self,
        live: LiveConfig,
        *,
        load: Callable[[], Config],
        apply: Callable[[Config], None],
        log: FilteringBoundLogger,
        metrics: Metrics,
        notifier: Notifier,
        result_path: Path | None,
        warnings: Callable[[Config], Sequence[str]] = lambda _: (),
        in_effect: Callable[[Config], Config] = lambda config: config,
        exhaustion: Exhaustion | None = None,
    ) -> None:
        self._live = live
        self._load = load
        self._apply = apply
        self._log = log
        self._metrics = metrics
        self._notifier = notifier
        self._result_path = result_path
        self._warnings = warnings
        self._in_effect = in_effect
        self._exhaustion = exhaustion or Exhaustion()
        self._reloads = 0
        self.problems: tuple[str, ...] = ()
        """Why the last reload was refused; empty if it was applied, or there was none."""
        self._succeeded()

    def reload(self) -> None:
        """Read, check and apply; on any mistake keep everything as it is and say so."""
        self._notifier.reloading()
        try:
            self.problems = self._try_or_wait()
            if self.problems:
                # At once, for whoever looks right after `systemctl reload` has failed.
                self._notifier.status(f"LAST RELOAD REFUSED: {self.problems[0]}")
        finally:
            # Whatever came of it, it is over, and whoever waits for it goes on.
            self._notifier.ready()
        self._reloads += 1
        self.leave_result()

    def plan(self) -> Plan:
        """Return what a reload would do; change nothing."""
        try:
            new = self._load()
        except ConfigError as error:
            return Plan(problems=tuple(str(problem) for problem in error.problems))
        changes = tuple(diff(self._in_effect(self._live.current), new))
        return Plan(changes=changes, warnings=tuple(self._warnings(new)))

    def leave_result(self) -> None:
        """Write down what became of the last reload; before the first one, that there was none."""
        if self._result_path is None:
            return
        try:
            ReloadResult(os.getpid(), self._reloads, self.problems).write(self._result_path)
        except (OSError, MemoryError) as error:
            lacking = self._exhaustion.meets(error, WHERE)
            reason = str(error) if lacking is None else lacking.lack
            self._log.error("verdict_not_written", detail=reason)

    def _try_or_wait(self) -> tuple[str, ...]:
        """Reload; one that this host has no means for now is refused like any other."""
        try:
            return self._try()
        except Exception as error:
            # A file that cannot be opened for want of a descriptor is no mistake in it.
            lacking = exhausted_by_name(error)
            if lacking is not None:
                self._exhaustion.met(lacking, WHERE)
                return self._refused(
                    f"this host is {lacking.lack}: reload again when there is more"
                )
            if isinstance(error, ConfigError):
                return self._refused(*map(str, error.problems))
            raise

    def _refused(self, *problems: str) -> tuple[str, ...]:
        self._metrics.config_reloads.labels("refused").inc()
        self._metrics.config_last_reload_successful.set(0)
        self._log.error("reload_refused", problems=list(problems))
        return problems

    def _try(self) -> tuple[str, ...]:
        """Reload; return why that was refused, nothing if it was applied."""
        new = self._load()
        old = self._live.current
        changes = diff(self._in_effect(old), new)
        self._live.replace(new)
        try:
            self._apply(new)
        except BaseException:
            self._live.replace(old)
            raise
        self._metrics.config_reloads.labels("applied").inc()
        self._succeeded()
        self._log.info(
            "reload_applied",
            changes=[str(change) for change in changes if change.live],
            needs_restart=[change.path for change in changes if not change.live],
        )
        return ()

    def _succeeded(self) -> None:
        self._metrics.config_last_reload_successful.set(1)
        self._metrics.config_last_reload_success_timestamp.set_to_current_time()
