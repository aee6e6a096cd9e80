"""The store on a host that is out of something: it says so, and goes on by itself."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import apsw
import pytest
import trio

from ai_ticket_daemon.errors import StoreUnavailable
from ai_ticket_daemon.host.exhaustion import Resource, exhausted
from ai_ticket_daemon.store.sqlite.connection import Connection
from ai_ticket_daemon.store.sqlite.threads import KeptThread
from tests.support.lacks import REAL_SECONDS, TIMES, Lack
from tests.support.pipeline_house import event
from tests.support.store.store_support import opened

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_kept_thread_tells_of_what_it_meets_and_goes_on(
    lack: Lack, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = KeptThread("store")
    thread.start()
    for _ in range(TIMES):
        lack.raised(1)
        with pytest.raises(type(lack.error)) as caught, trio.fail_after(REAL_SECONDS):
            await thread.run(lack.before(len), "abc")
        assert exhausted(caught.value) is lack.resource
        with trio.fail_after(REAL_SECONDS):
            assert await thread.run(len, "abc") == 3
    thread.end()


async def test_a_kept_thread_that_has_no_memory_for_an_answer_gives_it_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lack = Lack(Resource.MEMORY)
    thread = KeptThread("store")
    thread.start()
    monkeypatch.setattr("ai_ticket_daemon.store.sqlite.threads.AGAIN_SECONDS", 0.01)
    token = trio.lowlevel.current_trio_token()
    monkeypatch.setattr(
        "trio.lowlevel.current_trio_token",
        lambda: type("Token", (), {"run_sync_soon": lack.before(token.run_sync_soon)}),
    )
    lack.raised()
    with trio.fail_after(REAL_SECONDS):
        assert await thread.run(len, "abc") == 3
    assert lack.left == 0
    monkeypatch.setattr("outcome.capture", lack.before(lambda do: do()))
    lack.raised(1)
    with pytest.raises(MemoryError), trio.fail_after(REAL_SECONDS):
        await thread.run(len, "abc")
    thread.end()


async def test_a_store_that_cannot_have_its_threads_says_what_is_lacking(
    lack: Lack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading.Thread, "start", lack.before(threading.Thread.start))
    lack.raised(1)
    with pytest.raises((StoreUnavailable, MemoryError, OSError, ExceptionGroup)) as caught:
        async with opened(tmp_path / "events.db"):
            raise AssertionError("it was opened")
    assert exhausted(caught.value) is lack.resource
    async with opened(tmp_path / "events.db") as store:
        assert (await store.submit([event()], owned=False))[0].refusal is None


async def test_a_question_to_the_store_is_answered_once_its_connection_can_be_had(
    lack: Lack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "open", lack.before(Connection.open))
    async with opened(tmp_path / "events.db") as store:
        await store.submit([event()], owned=False)
        lack.raised()
        for _ in range(TIMES):
            with pytest.raises(StoreUnavailable) as caught:
                await store.get("id-hello")
            assert caught.value.message == lack.resource.lack
        assert await store.get("id-hello") is not None


async def test_a_commit_without_memory_is_refused_and_the_next_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path / "events.db") as store:
        with monkeypatch.context() as without:
            without.setattr("ai_ticket_daemon.store.sqlite.database.Totals.save", _no_memory)
            with pytest.raises(StoreUnavailable) as caught:
                await store.submit([event("a")], owned=False)
            assert caught.value.message == Resource.MEMORY.lack
        assert (await store.submit([event("b")], owned=False))[0].refusal is None
        assert await store.get("id-a") is None


def _no_memory(*_: object) -> None:
    raise apsw.NoMemError
