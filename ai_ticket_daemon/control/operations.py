"""What an operator can ask the running daemon for: the one table of it, and what each does."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from prometheus_client import generate_latest

from ai_ticket_daemon.config.backends import BackendRole
from ai_ticket_daemon.config.diff import as_toml
from ai_ticket_daemon.config.values.schema import settings_of
from ai_ticket_daemon.control.arguments import (
    Bulk,
    ByEvent,
    ByName,
    Captures,
    Isolated,
    Level,
    Listing,
    Nothing,
    Scope,
)
from ai_ticket_daemon.control.control_app import Access, Answer, Operation
from ai_ticket_daemon.control.orders import Name
from ai_ticket_daemon.control.report import Reporter
from ai_ticket_daemon.control.why import explain
from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events.outcome import Failed
from ai_ticket_daemon.events.state import FINAL_STATES, EventState
from ai_ticket_daemon.pool.failover import switches_left
from ai_ticket_daemon.store.port import EventFilter
from ai_ticket_daemon.store.sqlite.audit import audit_file
from ai_ticket_daemon.task_tree import task_tree
from ai_ticket_daemon.telemetry.redact import redact, redact_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ai_ticket_daemon.config.tree import Config
    from ai_ticket_daemon.control.report import Parts
    from ai_ticket_daemon.control.why import Line
    from ai_ticket_daemon.events.outcome import Attempt
    from ai_ticket_daemon.pool.failover import ActiveRole
    from ai_ticket_daemon.store.port import Change, EventRecord, EventSummary

    Timed = EventSummary | Attempt | Change | Line

BACKUP_SECONDS = 600.0
_FITTING = {
    # action: the states of the events it can be applied to
    "retry": frozenset({EventState.FAILED}),
    "cancel": frozenset({EventState.QUEUED, EventState.RUNNING}),
    "purge": FINAL_STATES,
}


class Operations:
    """Carries out what is asked, on the parts of the daemon."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._backups = count(1)
        # A recount reads the whole store; several at once would take the threads of others.
        self._recounts = trio.CapacityLimiter(1)
        self.reporter = Reporter(parts)

    def table(self) -> Mapping[str, Operation]:
        """Return every operation by its name."""
        operations = (
            Operation("status", Access.LOOK, Nothing, self._status),
            Operation("backends", Access.LOOK, Nothing, self._backends),
            Operation("events", Access.LOOK, Listing, self._events),
            Operation("event", Access.LOOK, ByEvent, self._event),
            Operation("why", Access.LOOK, ByEvent, self._why),
            Operation("reload-plan", Access.LOOK, Nothing, self._reload_plan),
            Operation("audit", Access.LOOK, Nothing, self._audit),
            Operation("bundle", Access.LOOK, Nothing, self._bundle),
            Operation("retry", Access.ACT, ByEvent, self._retry),
            Operation("cancel", Access.ACT, ByEvent, self._cancel),
            Operation("bulk", Access.ACT, Bulk, self._bulk),
            Operation("failover", Access.ACT, ByName, self._failover),
            Operation("failback", Access.ACT, Scope, self._failback),
            Operation("auto", Access.ACT, Scope, self._auto),
            Operation("sever", Access.ACT, Isolated, self._isolate),
            Operation("mend", Access.ACT, Nothing, self._rejoin),
            Operation("pause", Access.ACT, Scope, self._pause),
            Operation("unpause", Access.ACT, Scope, self._unpause),
            Operation("drain", Access.ACT, Scope, self._drain),
            Operation("resume", Access.ACT, Scope, self._resume),
            Operation("reload", Access.ACT, Nothing, self._reload),
            Operation("log-level", Access.ACT, Level, self._log_level),
            Operation("capture", Access.ACT, Captures, self._capture),
            Operation("backup", Access.ACT, Nothing, self._backup, seconds=BACKUP_SECONDS),
        )
        return {operation.name: operation for operation in operations}

    # Looking.

    async def _status(self, _: Nothing) -> object:
        return await self.reporter.report()

    async def _backends(self, _: Nothing) -> object:
        return {
            "serving": _active(self._parts.pool.active),
            "backends": self.reporter.backends(),
        }

    async def _events(self, wanted: Listing) -> object:
        page = await self._parts.store.page(
            self._filter(wanted), below=wanted.below, limit=wanted.limit
        )
        return {"events": [self._shown(event) for event in page.events], "below": page.below}

    async def _event(self, wanted: ByEvent) -> object:
        record, summary = await self._find(wanted.event_id)
        return _whole(record, summary, self._shown)

    async def _why(self, wanted: ByEvent) -> object:
        record, summary = await self._find(wanted.event_id)
        now = self._parts.clock.now()
        meanwhile = await self._parts.history.between(
            record.event.submitted_at, summary.ended_at or now
        )
        lines = explain(record, summary, meanwhile, now, self._parts.pipeline.admission.why_held)
        return {
            "event_id": record.event.event_id,
            "state": record.state.value,
            "lines": [self._shown(line) for line in lines],
        }

    async def _reload_plan(self, _: Nothing) -> object:
        plan = self._parts.reloader.plan()
        return {
            "valid": not plan.problems,
            "problems": list(plan.problems),
            "live": [str(change) for change in plan.changes if change.live],
            "needs_restart": [str(change) for change in plan.changes if not change.live],
            "warnings": list(plan.warnings),
        }

    async def _audit(self, _: Nothing) -> object:
        path = self._parts.live.current.store.path
        if path is None:
            counts = await self._parts.store.counts()
            found = {"accepted": counts.accepted, "difference": counts.difference}
            return found | {"states": dict(counts.states), "problems": []}
        audit = await trio.to_thread.run_sync(audit_file, path, limiter=self._recounts)
        return asdict(audit) | {"difference": audit.difference}

    async def _bundle(self, _: Nothing) -> object:
        root = trio.lowlevel.current_root_task()
        return {
            "status": await self.reporter.report(),
            "config": redact(_settings(self._parts.live.current)),
            "tasks": "" if root is None else task_tree(root),
            "metrics": generate_latest(self._parts.metrics.registry).decode(),
            "logs": [redact_line(line) for line in self._parts.logs.recent()],
            "history": [
                self._shown(change)
                for change in await self._parts.history.between(0, self._parts.clock.now())
            ],
        }

    def _filter(self, wanted: Listing) -> EventFilter:
        try:
            return wanted.filter(self._parts.clock.now())
        except ValueError as error:
            raise RequestRefused(
                ErrorCode.INVALID_PARAMETER, f"state: {error}; there are {', '.join(EventState)}."
            ) from error

    def _shown(self, what: Timed) -> dict[str, Any]:
        """Return the fields of something, with its times as the calendar has them now."""
        ahead = self._parts.clock.ahead
        return {
            name: value + ahead if value and (name == "at" or name.endswith("_at")) else value
            for name, value in asdict(what).items()
        }

    # Events.

    async def _retry(self, wanted: ByEvent) -> object:
        await self._find(wanted.event_id)
        changed = await self._change("retry", [wanted.event_id])
        return Answer(await self._event(wanted), "done" if changed else "unchanged")

    async def _cancel(self, wanted: ByEvent) -> object:
        await self._find(wanted.event_id)
        changed = await self._change("cancel", [wanted.event_id])
        return Answer(await self._event(wanted), "done" if changed else "unchanged")

    async def _bulk(self, wanted: Bulk) -> object:
        asked = self._filter(wanted)
        fitting = _FITTING[wanted.action]
        states = asked.states & fitting if asked.states else fitting
        if not states:
            raise RequestRefused(
                ErrorCode.INVALID_PARAMETER,
                f"{wanted.action} is for events that are {' or '.join(sorted(fitting))}.",
            )
        page = await self._parts.store.page(
            replace(asked, states=states), below=wanted.below, limit=wanted.limit
        )
        event_ids = [event.event_id for event in page.events]
        changed = await self._change(wanted.action, event_ids) if wanted.apply else 0
        told = {"event_ids": event_ids, "changed": changed, "below": page.below}
        if not wanted.apply:
            return Answer(told, "counted")
        return Answer(told, "done" if changed == len(event_ids) else "partly")

    async def _change(self, action: str, event_ids: list[str]) -> int:
        """Do it to all of them at once, so that they share their writes to the disk."""
        if action == "purge":
            return await self._parts.store.forget(event_ids)
        pipeline = self._parts.pipeline
        call = pipeline.retry if action == "retry" else pipeline.cancel
        reached = EventState.QUEUED if action == "retry" else EventState.CANCELLED
        changed = 0

        async def change(event_id: str) -> None:
            nonlocal changed
            status = await call(event_id)
            changed += status is not None and status.state is reached

        async with trio.open_nursery() as nursery:
            for event_id in event_ids:
                nursery.start_soon(change, event_id)
        return changed

    async def _find(self, event_id: str) -> tuple[EventRecord, EventSummary]:
        record = await self._parts.store.get(event_id)
        page = await self._parts.store.page(EventFilter(event_id=event_id), below=None, limit=1)
        if record is None or not page.events:
            raise RequestRefused(ErrorCode.EVENT_NOT_FOUND, f"No event {event_id} is known.")
        return record, page.events[0]

    # Backends.

    async def _failover(self, wanted: ByName) -> object:
        names = [backend.name for backend in self._parts.pool]
        if wanted.name not in names:
            raise RequestRefused(
                ErrorCode.NOT_FOUND,
                f"There is no server {wanted.name}; there are {', '.join(names)}.",
            )
        return await self._order(Name.PINNED, wanted.name, wanted)

    async def _failback(self, wanted: Scope) -> object:
        pool = self._parts.pool
        if not pool.failback():
            why = (
                f"{pool.active.pinned} is pinned: ask for auto first"
                if pool.active.pinned is not None
                else "no primary is usable"
            )
            raise RequestRefused(ErrorCode.NO_BACKEND_AVAILABLE, f"There is no way back: {why}.")
        return await self._order(Name.FAILBACK, "asked", wanted)

    async def _auto(self, wanted: Scope) -> object:
        return await self._order(Name.PINNED, "", wanted)

    async def _order(self, name: Name, value: str, wanted: Scope) -> dict[str, object]:
        """Give an order about the servers; return who serves then, and whom it reached."""
        reached = await self._parts.orders.give(name, value, here=wanted.here)
        return _active(self._parts.pool.active) | reached

    async def _isolate(self, wanted: Isolated) -> object:
        """Isolate the primaries for a drill; whoever asks for it does not have to come back."""
        pool, pipeline = self._parts.pool, self._parts.pipeline
        primaries = [b.name for b in pool if b.config.role is BackendRole.PRIMARY]
        reasons = {
            "servers are isolated already": bool(self._parts.fault_injection.names),
            "a server is pinned": pool.active.pinned is not None,
            "the primaries do not serve": pool.active.role is not BackendRole.PRIMARY,
            "the role has changed so often within the last minute that it would not": (
                not switches_left(pool.active, trio.current_time())
            ),
            "no standby is usable": not any(
                b.health.usable for b in pool if b.name not in primaries
            ),
            "the daemon is paused, drains or stops": (
                pipeline.paused or pipeline.draining or self._parts.stopping()
            ),
        }
        against = [reason for reason, holds in reasons.items() if holds]
        if against:
            raise RequestRefused(ErrorCode.INVALID_REQUEST, f"No drill now: {'; '.join(against)}.")
        self._parts.fault_injection.isolate(primaries, wanted.seconds)
        return {"severed": primaries, "seconds": wanted.seconds}

    async def _rejoin(self, _: Nothing) -> object:
        self._parts.fault_injection.rejoin("an operator asked for it")
        return {"severed": []}

    # The daemon.

    async def _pause(self, wanted: Scope) -> object:
        reached = await self._parts.orders.give(Name.PAUSED, "yes", here=wanted.here)
        return {"paused": True, "in_flight": self._parts.pipeline.in_flight} | reached

    async def _unpause(self, wanted: Scope) -> object:
        reached = await self._parts.orders.give(Name.PAUSED, "", here=wanted.here)
        return {"paused": False} | reached

    async def _drain(self, wanted: Scope) -> object:
        reached = await self._parts.orders.give(Name.DRAINING, "yes", here=wanted.here)
        return {"draining": True, "in_flight": self._parts.pipeline.in_flight} | reached

    async def _resume(self, wanted: Scope) -> object:
        if self._parts.stopping():
            raise RequestRefused(ErrorCode.DRAINING, "The daemon is stopping; start it anew.")
        reached = await self._parts.orders.give(Name.DRAINING, "", here=wanted.here)
        return {"draining": False} | reached

    async def _reload(self, _: Nothing) -> object:
        plan = await self._reload_plan(_)
        self._parts.reloader.reload()
        problems = list(self._parts.reloader.problems)
        assert isinstance(plan, dict)  # noqa: S101 - made above
        told = plan | {"applied": not problems, "problems": problems}
        return Answer(told, "refused" if problems else "done")

    async def _log_level(self, wanted: Level) -> object:
        self._parts.logs.level = wanted.level
        return {"log_level": wanted.level.value, "until": "the next reload or restart"}

    async def _capture(self, wanted: Captures) -> object:
        live = self._parts.live
        log = replace(live.current.log, capture_payloads=wanted.payloads)
        live.current = replace(live.current, log=log)
        return {
            "capture_payloads": wanted.payloads,
            "directory": str(log.capture_directory),
            "until": "the next reload or restart",
        }

    async def _backup(self, _: Nothing) -> object:
        path = self._parts.live.current.store.path or Path("backup")
        target = path.with_name(f"{path.name}.backup-{os.getpid()}-{next(self._backups)}")
        await self._parts.store.backup(target)
        return target


def _active(active: ActiveRole) -> dict[str, Any]:
    role: BackendRole = active.role
    return {
        "role": role.value,
        "pinned": active.pinned,
        "reason": active.reason.value,
        "detail": active.detail,
    }


def _whole(
    record: EventRecord, summary: EventSummary, shown: Callable[[Timed], dict[str, Any]]
) -> dict[str, Any]:
    """Return what is known of an event, but not what it is about: that is its client's business."""
    event, outcome = record.event, record.outcome
    failure = None
    if isinstance(outcome, Failed):
        failure = {"error": outcome.code, "message": outcome.message, "details": outcome.details}
    return shown(summary) | {
        "position": record.position,
        "client": event.client,
        "stream": event.stream,
        "max_tokens": event.sampling.max_tokens,
        "idempotency_key": event.idempotency_key is not None,
        "trace_context": dict(event.trace_context),
        "attempts": [shown(attempt) for attempt in record.attempts],
        "failure": failure,
        "usage": None if outcome is None or failure else asdict(outcome)["usage"],
    }


def _settings(config: Config) -> dict[str, dict[str, Any]]:
    """Return every setting as the file would have it; secrets are masked."""
    found: dict[str, dict[str, Any]] = {}
    for name in settings_of(type(config)):
        section = getattr(config, name)
        found[name] = {
            key: as_toml(getattr(section, field.name))
            for key, (field, _) in settings_of(type(section)).items()
            if (name, key) != ("backends", "server")
        }
    found["servers"] = {
        server.name: {
            key: as_toml(getattr(server, field.name))
            for key, (field, _) in settings_of(type(server)).items()
        }
        for server in config.backends.servers
    }
    return found
