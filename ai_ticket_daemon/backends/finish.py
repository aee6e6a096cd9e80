"""Why a completion ended, in the words of servers: whole, cut at its length, or not whole at all.

stop, a stop string, the end of a turn        whole
length, max_tokens                            whole as far as was asked
content_filter and its like                   withheld by a filter: an error, and final
error, abort and their like                   a half answer: an error, another server may try
tool_calls, function_call                     whole if there is text; else a call of a tool
anything else                                 whole if there is text; else a half answer
"""

from __future__ import annotations

from ai_ticket_daemon.backends.observation import AttemptFailed, Observation, Seen
from ai_ticket_daemon.backends.text.cleaning import clean_name

STOP = "stop"
LENGTH = "length"
_NOT_YET = frozenset({"", "null", "none"})
_LENGTH = frozenset({"length", "max_tokens", "max_length", "model_length"})
FILTERED = frozenset(
    {"content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii"}
    | {"refusal", "sensitive"}
)
_HALF = frozenset(
    {"error", "abort", "aborted", "cancel", "cancelled", "canceled", "interrupted", "failed"}
    | {"timeout", "server_error", "engine_error", "network_error", "overloaded", "unavailable"}
    | {"insufficient_system_resource", "malformed_response", "malformed_function_call"}
)
_TOOLS = frozenset({"tool_calls", "tool_use", "function_call"})


def read_reason(reason: object) -> str | None:
    """Return what a server says of the end of its text; None while more follows.

    KoboldCPP writes the word "null" where others write null.

    Raises:
        AttemptFailed: it says that the text is not whole, or says it in no word.
    """
    if reason is None:
        return None
    if not isinstance(reason, str):
        raise AttemptFailed.seen(Seen.WRONG_SHAPE)
    word = reason[:64].casefold()
    if word in _NOT_YET:
        return None
    if word in FILTERED:
        raise AttemptFailed(Observation(Seen.FILTERED, error_type=word))
    if word in _HALF:
        raise AttemptFailed(Observation(Seen.HALF_ANSWER, error_type=word))
    return LENGTH if word in _LENGTH else clean_name(word)


def settle_reason(reason: str, *, has_text: bool) -> str:
    """Return ``stop`` or ``length``, now that the whole text is known.

    Raises:
        AttemptFailed: there is no text, and the reason does not say that there should be none.
    """
    if reason in (STOP, LENGTH):
        return reason
    if has_text:
        return STOP
    if reason in _TOOLS:
        raise AttemptFailed(Observation(Seen.TOOL_CALL, error_type=reason))
    if reason in _ENDS:
        return STOP
    raise AttemptFailed(Observation(Seen.HALF_ANSWER, error_type=reason))


_ENDS = frozenset({"eos", "eos_token", "end_turn", "stop_sequence", "end", "complete", "completed"})
