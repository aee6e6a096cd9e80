"""What a server that is well answers to everything that needs no generation slot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_ticket_daemon.config.backends import BackendKind
from tests.support.hostile_server import Odd
from tests.support.odd_answers import answer

if TYPE_CHECKING:
    from collections.abc import Mapping

CHAT = "/v1/chat/completions"
MODELS, PERF = "/v1/models", "/api/extra/perf"
MODEL, CONTEXT = "/api/v1/model", "/api/extra/true_max_context_length"

WELL: Mapping[str, Odd] = {
    MODELS: Odd(answer({"object": "list", "data": [{"id": "m"}]})),
    PERF: Odd(
        answer(
            {"idle": 1, "queue": 0, "uptime": 1e6, "total_gens": 3}
            | {"stop_reason": 1, "last_token_count": 2}
        )
    ),
    MODEL: Odd(answer({"result": "koboldcpp/m"})),
    CONTEXT: Odd(answer({"value": 100_000})),
    "/api/extra/abort": Odd(answer({"success": True})),
    "/api/extra/generate/check": Odd(answer({"results": [{"text": ""}]})),
    "/api/extra/tokencount": Odd(answer({"value": 3, "ids": [1, 2, 3]})),
}


def probe_path(kind: BackendKind) -> str:
    """Return what is asked for at every probe."""
    return MODELS if kind is BackendKind.OPENAI else PERF


def with_name(kind: BackendKind, name: bytes) -> tuple[str, Odd]:
    """Return where a server tells its model, and an answer that tells this one, in JSON."""
    if kind is BackendKind.OPENAI:
        return MODELS, Odd(answer(b'{"object":"list","data":[{"id":' + name + b"}]}"))
    return MODEL, Odd(answer(b'{"result":' + name + b"}"))
