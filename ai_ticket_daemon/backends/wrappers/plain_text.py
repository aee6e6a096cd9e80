"""Lets no text of an event pass for a part of the chat template it is laid out with."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from ai_ticket_daemon.backends.text.template_tokens import escape
from ai_ticket_daemon.backends.wrappers.wrapper import ClientWrapper

if TYPE_CHECKING:
    from collections.abc import Callable

    from ai_ticket_daemon.backends.generation import (
        BackendClient,
        GenerationRequest,
        GenerationResult,
        ProbeResult,
    )
    from ai_ticket_daemon.config.backends import EscapedTexts

_LONG = 16 * 1024
"""Characters that are looked through beside the loop, and not in it."""


class PlainTextClient(ClientWrapper):
    """A client that parts the tokens of chat templates in the texts it is given.

    Args:
        client: what it stands around.
        texts: the ``escape_template_tokens`` in force now.
    """

    def __init__(self, client: BackendClient, texts: Callable[[], EscapedTexts]) -> None:
        super().__init__(client)
        self._texts = texts

    async def generate(
        self, request: GenerationRequest, on_delta: Callable[[str], None] | None = None
    ) -> GenerationResult:
        """See :meth:`BackendClient.generate`."""
        texts = self._texts()
        if sum(len(message.content) for message in request.messages) > _LONG:
            messages = await trio.to_thread.run_sync(
                escape, request.messages, texts, abandon_on_cancel=True
            )
        else:
            messages = escape(request.messages, texts)
        return await self._client.generate(replace(request, messages=messages), on_delta)

    async def probe(self, *, identify: bool = False) -> ProbeResult:
        """See :meth:`BackendClient.probe`."""
        return await self._client.probe(identify=identify)
