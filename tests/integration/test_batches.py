"""A KoboldCPP that makes several generations at once: ``--parallelrequests``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from ai_ticket_daemon.backends.factory import open_client
from ai_ticket_daemon.backends.generation import GenerationRequest
from ai_ticket_daemon.backends.observation import SlotEnd
from ai_ticket_daemon.config.backends import Dialect, ServerConfig
from ai_ticket_daemon.events.event import Message, Role, Sampling
from ai_ticket_daemon.testing.kobold import KoboldSettings, SimulatedKobold, open_simulated_kobold

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.generation import BackendClient
    from ai_ticket_daemon.backends.kobold.abort import AbortEnd, AbortReason

GUARD_SECONDS = 60
BATCH = replace(
    KoboldSettings(version="1.115", parallel=4).scaled(0.1), tokens_per_second=400, overtake=False
)


class House:
    def __init__(self, simulated: SimulatedKobold, **settings: Any) -> None:
        self.simulated = simulated
        self.aborts: list[tuple[AbortReason, AbortEnd]] = []
        config = ServerConfig(name="p", url=simulated.url, max_in_flight=4, **settings)
        self.client: BackendClient = open_client(
            config,
            stall_seconds=lambda: 60.0,
            on_abort=lambda reason, end: self.aborts.append((reason, end)),
        )

    async def ask(self, content: str, max_tokens: int = 20) -> tuple[str, int, bool]:
        request = GenerationRequest((Message(Role.USER, content),), Sampling(max_tokens=max_tokens))
        result = await self.client.generate(request)
        return result.text, result.usage.completion_tokens, result.usage.estimated


@pytest.mark.parametrize("dialect", Dialect)
async def test_plain_requests_share_a_batch_and_each_gets_its_own_text_and_bill(
    dialect: Dialect,
) -> None:
    with trio.fail_after(GUARD_SECONDS):
        async with open_simulated_kobold(BATCH) as simulated:
            house = House(simulated, dialect=dialect)
            await house.client.probe(identify=True)
            found: dict[str, tuple[str, int, bool]] = {}

            async def ask(content: str) -> None:
                found[content] = await house.ask(content)

            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(ask, f"ticket {number}")
            assert simulated.observations.max_running > 1
            assert all(record.stream for record in simulated.log)
            if dialect is Dialect.OPENAI_CHAT:
                for content, (text, tokens, estimated) in found.items():
                    assert text == simulated.expected_completion(content, max_tokens=20)
                    assert (tokens, estimated) == (20, False)


async def test_a_cancelled_request_frees_its_slot_by_closing_its_stream_and_by_nothing_else() -> (
    None
):
    with trio.fail_after(GUARD_SECONDS):
        async with open_simulated_kobold(BATCH) as simulated:
            house = House(simulated)
            await house.client.probe(identify=True)
            async with trio.open_nursery() as others:
                others.start_soon(house.ask, "goes on", 300)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(house.ask, "unwanted", 1000)
                    await simulated.wait_for(lambda s: s.running == 2 and s.tokens_written > 10)
                    calls = simulated.observations.connections_total
                    nursery.cancel_scope.cancel()
                await simulated.wait_for(lambda s: s.running == 1)
                assert simulated.observations.connections_total == calls
            [(_, end)] = house.aborts
            assert end.slot is SlotEnd.UNSEEN
            assert {record.outcome for record in simulated.log} == {"aborted", "completed"}
