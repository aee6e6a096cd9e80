"""From what was seen to what is to be done about it: rules without clock and network.

The rules are those of `docs/koboldcpp.md`, "Failures and classification". Where a request may go to
another server, it may only until the caller was given a part of the text: after that, no retry can
help, and whatever happens is final.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ai_ticket_daemon.backends import failure_table as table
from ai_ticket_daemon.backends.failure import BackendError, HealthEvent, RetryRule
from ai_ticket_daemon.backends.finish import FILTERED
from ai_ticket_daemon.backends.observation import Aftermath, Observation, Seen, SlotEnd

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.failure import Failure

_OVERFLOW_TYPES = frozenset({"exceed_context_size_error", "context_length_exceeded"})
_UNPAID_TYPES = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
)
_FILTER_TYPES = FILTERED | {"content_policy_violation", "ResponsibleAIPolicyViolation"}

_STILL_TAKEN = frozenset({SlotEnd.READING, SlotEnd.TAKEN})


def classify(backend: str, observation: Observation) -> BackendError:
    """Return the error that says what went wrong at ``backend`` and how to treat it."""
    failure = _failure(observation)
    sentence = failure.sentence
    wait = observation.retry_after_seconds if failure is table.BUSY else None
    sizes = _sizes(observation) if failure is table.OVERFLOW else ""
    if observation.slot is SlotEnd.TAKEN:
        # Whatever the failure was: a server that does not stop generating is of no use to anyone.
        failure = replace(failure, health_event=HealthEvent.STALLED)
    if observation.passed_on and failure.retry is not RetryRule.FINAL:
        failure = replace(failure, retry=RetryRule.FINAL)
        sentence += "; a part of the text was already delivered"
    if observation.slot is SlotEnd.READING:
        sentence += "; it stops after the prompt is read"
    if observation.words:
        sentence += f'; it says: "{observation.words}"'
    return BackendError(
        failure,
        f"backend {backend} {sentence}{sizes}",
        details=_details(backend, observation),
        retry_after_seconds=wait,
    )


def _sizes(observation: Observation) -> str:
    """Return how large prompt and context are, as far as it is known."""
    prompt, asked = observation.prompt_tokens, observation.max_tokens
    context = observation.context_tokens
    sizes = [
        None if prompt is None else f"the prompt has {prompt} tokens",
        f"up to {margin} more for the server's template"
        if (margin := observation.margin_tokens)
        else None,
        None if asked is None else f"max_tokens is {asked}",
        None if context is None else f"the context holds {context}",
    ]
    known = ", ".join(size for size in sizes if size is not None)
    return f" ({known})" if known else ""


def _failure(observation: Observation) -> Failure:
    match observation.seen:
        case Seen.NO_BYTE | Seen.BROKEN | Seen.CUT:
            return _broken_off(observation)
        case Seen.STATUS:
            return table.RELOADED if observation.reloading else _refused(observation)
        case Seen.HOST_EXHAUSTED:
            lack = "exhausted" if observation.lacking is None else observation.lacking.lack
            return replace(
                table.HOST_EXHAUSTED, sentence=table.HOST_EXHAUSTED.sentence.format(lack=lack)
            )
        case seen:
            return table.BY_SEEN[seen]


def _broken_off(observation: Observation) -> Failure:
    match observation.aftermath:
        case Aftermath.GONE | Aftermath.RESTARTED:
            return table.RELOADED if observation.reloading else table.DIED
        case Aftermath.SILENT:
            return table.FROZEN
        case Aftermath.NOT_ASKED:
            return table.BROKE_OFF
    if observation.seen is Seen.CUT:
        return table.CUT_SHORT
    if observation.aftermath is Aftermath.ANSWERS:
        return table.STALE
    return table.UNREADABLE_REQUEST if observation.seen is Seen.NO_BYTE else table.RESET


def _refused(observation: Observation) -> Failure:
    status, word = observation.status or 0, observation.error_type
    if word in _UNPAID_TYPES:
        return table.UNPAID
    if word in _FILTER_TYPES:
        return table.WITHHELD
    failure = table.BY_STATUS.get(status)
    if failure is not None and failure is not table.TOO_BIG:
        return failure
    if word in _OVERFLOW_TYPES:
        return table.OVERFLOW
    if failure is not None:
        return failure
    if word == "bad_input" or 400 <= status < 500:
        return table.BAD_INPUT
    if 300 <= status < 400:
        return table.REDIRECTED
    return table.SERVER_FAILED if status >= 500 else table.NO_ANSWER


def _details(backend: str, observation: Observation) -> dict[str, str | int]:
    facts: dict[str, str | int | None] = {
        "backend": backend,
        "seen": observation.seen.value,
        "status": observation.status,
        "error_type": observation.error_type,
        "prompt_tokens": observation.prompt_tokens,
        "margin_tokens": observation.margin_tokens or None,
        "context_tokens": observation.context_tokens,
        "max_tokens": observation.max_tokens,
        "slot_freed": False if observation.slot in _STILL_TAKEN else None,
    }
    return {name: fact for name, fact in facts.items() if fact is not None}
