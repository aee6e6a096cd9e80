from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.backends.failure import BackendError, RetryRule
from ai_ticket_daemon.backends.generation import GenerationRequest
from ai_ticket_daemon.backends.wrappers import host_lacks
from ai_ticket_daemon.backends.wrappers.host_lacks import HostAwareClient
from ai_ticket_daemon.config.backends import ServerConfig
from ai_ticket_daemon.events.event import Message, Role, Sampling
from ai_ticket_daemon.testing.fakes import FakeClient

if TYPE_CHECKING:
    from trio.testing import MockClock

    from tests.support.lacks import Lack


@pytest.mark.parametrize("passed_on", [False, True])
async def test_a_client_of_a_server_that_meets_a_lack_does_not_blame_the_server(
    lack: Lack, passed_on: bool, autojump_clock: MockClock
) -> None:
    inner = FakeClient(ServerConfig(name="primary", url="http://primary:1"))
    client = HostAwareClient(inner, lack.exhaustion())
    inner.answers = [lack.error]
    messages = (Message(Role.USER, "one two"),)
    request = GenerationRequest(messages, Sampling(), stream=passed_on)
    with pytest.raises(BackendError) as caught:
        await client.generate(request, (lambda _text: None) if passed_on else None)
    assert caught.value.failure.health_event is None
    expected = RetryRule.FINAL if passed_on else RetryRule.HOST
    assert caught.value.failure.retry is expected
    inner.probe_error = lack.error
    with pytest.raises(BackendError) as caught:
        await client.probe()
    assert caught.value.failure.retry is RetryRule.HOST
    assert set(lack.met) == {host_lacks.WHERE}
    inner.probe_error = None
    assert (await client.probe()).model == "fake"
