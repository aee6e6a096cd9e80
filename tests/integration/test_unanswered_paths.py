"""Servers that are well and leave unanswered what others tell of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from ai_ticket_daemon.backends.kobold.probe import MODELS_PATH, PROPS_PATH, VERSION_PATH
from ai_ticket_daemon.config.backends import Dialect
from tests.support.hostile_server import Odd, Then, open_hostile_server
from tests.support.odd_answers import answer
from tests.support.recorded_server import client_of, open_recorded_server, recorded
from tests.support.well_server import MODEL, WELL

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.generation import BackendClient, ProbeResult

GUARD_SECONDS = 60
HANGS = Odd(then=Then.HANG)
SILENT = [
    pytest.param(HANGS, id="hangs"),
    pytest.param(Odd(), id="gives no byte"),
    pytest.param(Odd(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"), id="breaks off"),
    pytest.param(Odd(b"HTTP/1.1 200 OK\r\nContent-Le", Then.HANG), id="hangs in the head"),
    pytest.param(Odd(b"no HTTP at all"), id="does not speak HTTP"),
]


@pytest.fixture(autouse=True)
def _short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ai_ticket_daemon.backends.kobold.probe._MAY_BE_MISSING_SECONDS", 0.2)


async def identified(client: BackendClient, *unanswered: str, version: str | None) -> ProbeResult:
    """Look at a server until it shows just that; a look at a busy host may come too late."""
    while True:
        found = await client.probe(identify=True)
        if found.software.unanswered == unanswered and found.software.version == version:
            return found


@pytest.mark.parametrize("silent", SILENT)
async def test_a_server_that_does_not_answer_what_it_need_not_is_well(silent: Odd) -> None:
    with trio.fail_after(GUARD_SECONDS):
        async with open_recorded_server("chat_plain", props=silent) as server:
            client = client_of(server.url, Dialect.OPENAI_CHAT)
            found = await identified(client, PROPS_PATH, version="1.115.1")
            assert found.model == "koboldcpp/m"
            assert "template" not in found.software.features
            server.odd[VERSION_PATH] = silent
            await identified(client, VERSION_PATH, PROPS_PATH, version="1.115.1")
            server.odd |= {VERSION_PATH: recorded("extra_version"), PROPS_PATH: recorded("props")}
            found = await identified(client, version="1.115.1")
            assert "template" in found.software.features, "it is asked again"
            await client.aclose()


async def test_a_server_that_answers_nothing_that_it_need_not_is_the_oldest() -> None:
    silent = {VERSION_PATH: HANGS, PROPS_PATH: HANGS, MODELS_PATH: HANGS}
    masked = {MODEL: Odd(answer({"result": "koboldcpp/protected-model"}))}
    with trio.fail_after(GUARD_SECONDS):
        async with open_hostile_server({**WELL, **silent, **masked}) as server:
            client = client_of(server.url, Dialect.OPENAI_CHAT)
            unanswered = (VERSION_PATH, PROPS_PATH, MODELS_PATH)
            found = await identified(client, *sorted(unanswered), version=None)
            assert found.has_model
            assert not found.credential_accepted
            assert found.software.features == ()
            await client.aclose()
