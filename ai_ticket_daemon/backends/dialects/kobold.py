"""KoboldCPP's own API: ``POST /api/v1/generate`` and ``/api/extra/generate/stream``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.backends.dialects.dialect import (
    Piece,
    WireDialect,
    make_piece,
    read_usage,
    reject_null_and_error,
    sampling_fields,
)
from ai_ticket_daemon.backends.dialects.openai_completions import end, prompt, stops
from ai_ticket_daemon.backends.finish import read_reason
from ai_ticket_daemon.backends.observation import AttemptFailed, Seen
from ai_ticket_daemon.backends.transport.replies import refuse_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ai_ticket_daemon.backends.generation import GenerationRequest

PATH = "/api/v1/generate"
STREAM_PATH = "/api/extra/generate/stream"
PLACEHOLDERS_STAY: Mapping[str, bool] = {"replace_instruct_placeholders": False}
"""Goes with every text, in all dialects: else ``{{[OUTPUT]}}`` in one begins the model's turn."""


def body(request: GenerationRequest) -> dict[str, Any]:
    """Return the JSON body for a request.

    Stop strings are left in the text by the server and cut off here, since their presence is what
    tells them from the token limit.
    """
    sampling = request.sampling
    fields = {
        "prompt": prompt(request),
        "max_length": sampling.max_tokens,
        **sampling_fields(request),
        "trim_stop": False,
    }
    if ends := stops(request):
        fields["stop_sequence"] = list(ends)
    if sampling.seed is not None:
        fields["sampler_seed"] = sampling.seed
    return fields


def read_answer(value: Any) -> Piece:
    """Return the completion in an answer."""
    reject_null_and_error(value)
    try:
        result = value["results"][0]
        reason = read_reason(result.get("finish_reason"))
        return make_piece(result["text"], reason, read_usage(result))
    except (TypeError, KeyError, IndexError, AttributeError):
        raise AttemptFailed.seen(Seen.WRONG_SHAPE) from None


def read_event(value: Any) -> Piece:
    """Return the piece of text in an event of a stream."""
    refuse_error(value)
    if value is None:
        return Piece("")
    if not isinstance(value, dict):
        raise AttemptFailed.seen(Seen.WRONG_SHAPE)
    reason = read_reason(value.get("finish_reason"))
    return make_piece(value.get("token"), reason)


DIALECT = WireDialect(
    path=PATH,
    stream_path=STREAM_PATH,
    body=body,
    prompt=prompt,
    end=end,
    stops=stops,
    read_answer=read_answer,
    read_event=read_event,
)
