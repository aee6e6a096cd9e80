"""Chapters on what is kept: a file that goes away, events that are lost, a queue that is stuck."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.drills.stage import Rehearse

pytestmark = pytest.mark.system


def write(store: Path, *statements: str) -> None:
    """Change the store's file behind the daemon's back."""
    with closing(sqlite3.connect(store, timeout=60)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


async def test_a_store_that_is_gone_is_put_back(rehearse: Rehearse) -> None:
    async with rehearse("AiTicketStoreFault") as stage:
        assert (await stage.post()).is_success
        away = stage.store.rename(stage.folder / "away")
        await stage.until(lambda s: s["store"]["fault"] is not None)
        await stage.alert_begins("AiTicketStoreFault")
        assert (await stage.post()).json()["error"] == "store_unavailable"

        assert "the file was removed or replaced" in await stage.run("ai-ticketctl status")
        assert "%" in await stage.run("df -h /var/lib/ai-ticket")
        assert "events.db\n" not in await stage.run("ls -l /var/lib/ai-ticket")
        away.rename(stage.store)
        await stage.until(lambda s: s["store"]["fault"] is None)

        await stage.run('ai-ticketctl submit "Hello" --max-tokens 4')
        await stage.run("ai-ticketctl audit")
        await stage.alert_ends("AiTicketStoreFault")
        await stage.succeeded(2)


async def test_lost_events_are_brought_back_from_a_backup(rehearse: Rehearse) -> None:
    async with rehearse("AiTicketEventsLost") as stage:
        for _ in range(3):
            assert (await stage.post()).is_success
        await stage.shell("ai-ticketctl backup --output good.db")
        write(
            stage.store,
            "DELETE FROM event WHERE seq = 2",
            "UPDATE tally SET value = value - 1 WHERE name = 'succeeded'",
        )
        assert await stage.sees("ai_ticket_store_difference{{{instance}}} != 0") == 1
        await stage.alert_begins("AiTicketEventsLost")

        assert "1" in await stage.run("ai-ticketctl audit", code=1)
        await stage.run("ai-ticketctl drain")
        assert (await stage.post()).json()["error"] == "draining"
        await stage.run("ai-ticketctl bundle --output evidence.tar.gz")
        assert await stage.stop() == 0
        await stage.run("cp -a /var/lib/ai-ticket evidence")
        await stage.run("ai-ticketctl restore good.db --to /var/lib/ai-ticket/events.db")
        await stage.start()

        await stage.run("ai-ticketctl audit")
        await stage.alert_ends("AiTicketEventsLost")
        await stage.succeeded(3)


async def test_an_old_queue_is_let_go_and_what_nobody_wants_is_cancelled(
    rehearse: Rehearse,
) -> None:
    async with rehearse("AiTicketQueueOld") as stage:
        await stage.shell("ai-ticketctl pause")
        event_ids = await stage.leave(3, timeout_seconds=600)
        await stage.alert_begins("AiTicketQueueOld")

        assert "paused" in await stage.run("ai-ticketctl status")
        listed = await stage.run("ai-ticketctl events list --state queued --limit 5")
        assert all(event_id in listed for event_id in event_ids)
        await stage.run("ai-ticketctl unpause")
        await stage.succeeded(3)

        # Two more, one of them two days old, in front of a server that does nothing any more.
        stage.primary.faults.stall()
        running, waiting = await stage.leave(2, timeout_seconds=600)
        await stage.until(lambda s: s["queue"]["running"] == 1)
        write(
            stage.store,
            f"UPDATE event SET submitted_at = submitted_at - 172800 WHERE event_id = '{waiting}'",
        )
        counted = await stage.run("ai-ticketctl events cancel --state queued --older-than 1d")
        assert "1" in counted
        assert (await stage.ask("events", "show", waiting))["state"] == "queued"
        await stage.run("ai-ticketctl events cancel --state queued --older-than 1d --yes")
        assert (await stage.ask("events", "show", waiting))["state"] == "cancelled"
        stage.primary.faults.clear()

        await stage.succeeded(4)
        assert "0 queued; 0 running" in await stage.run("ai-ticketctl status")
        await stage.alert_ends("AiTicketQueueOld")
        assert (await stage.ask("events", "show", running))["state"] == "succeeded"


async def test_what_an_operator_forgot_to_take_back_is_noticed(rehearse: Rehearse) -> None:
    async with rehearse("AiTicketHeld") as stage:
        await stage.shell("ai-ticketctl pause")
        (held,) = await stage.leave(1, timeout_seconds=1)
        await stage.shell("ai-ticketctl drain")
        await stage.alert_begins("AiTicketHeld")

        status = await stage.run("ai-ticketctl status")
        assert "paused by an operator since" in status
        assert "draining by an operator since" in status
        await stage.run("ai-ticketctl unpause")
        await stage.run("ai-ticketctl resume")
        await stage.succeeded(1)

        assert "healthy" in await stage.run("ai-ticketctl status")
        assert (await stage.ask("events", "show", held))["state"] == "succeeded"
        await stage.alert_ends("AiTicketHeld")


async def test_events_that_expire_are_noticed_and_what_held_them_up_is_found(
    rehearse: Rehearse,
) -> None:
    async with rehearse("AiTicketEventsExpire") as stage:
        await stage.shell("ai-ticketctl pause")
        answers = [(await stage.post(timeout_seconds=1)).json() for _ in range(3)]
        assert {answer["error"] for answer in answers} == {"deadline_exceeded"}
        await stage.alert_begins("AiTicketEventsExpire")

        listed = await stage.run("ai-ticketctl events list --state expired --newer-than 15m")
        expired = answers[0]["event_id"]
        assert expired in listed
        assert "paused by an operator" in await stage.run("ai-ticketctl why EVENT", EVENT=expired)
        assert "paused" in await stage.run("ai-ticketctl status")
        await stage.run("ai-ticketctl unpause")
        await stage.run("ai-ticketctl failover standby")

        await stage.run('ai-ticketctl submit "Hello" --max-tokens 4')
        await stage.run("ai-ticketctl events list --state expired --newer-than 1m")
        await stage.run("ai-ticketctl auto")
        await stage.succeeded(1)
