"""From what was seen to what is to be done about it: one table, no clock, no network.

The rules are those of `docs/koboldcpp.md`, "Failures and classification". Where a request may go to
another server, it may only until the caller was given a part of the text: after that, no retry can
help, and whatever happens is final.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.failure import BackendError, HealthEvent, RetryRule
from ai_ticket_daemon.backends.finish import FILTERED
from ai_ticket_daemon.backends.observation import BUSY_STATUSES, Aftermath, Observation, Seen
from ai_ticket_daemon.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping

_OVERFLOW_TYPES = frozenset({"exceed_context_size_error", "context_length_exceeded"})
_UNPAID_TYPES = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
)
_FILTER_TYPES = FILTERED | {"content_policy_violation", "ResponsibleAIPolicyViolation"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a kind of failure means. ``sentence`` follows the name of the backend.

    ``health_event`` is what it tells of the health of the backend; None if the request was at
    fault, or nobody.
    """

    code: ErrorCode
    retry: RetryRule
    health_event: HealthEvent | None
    sentence: str


_CONNECTION = ErrorCode.API_CONNECTION_ERROR
_CLIENT = ErrorCode.API_CLIENT_ERROR
_SERVER = ErrorCode.API_SERVER_ERROR
_LOST, _FAILED = HealthEvent.LOST, HealthEvent.FAILED

DIED = Verdict(
    _CONNECTION,
    RetryRule.OVER_ONCE,
    _LOST,
    "died while it worked on this request; one other backend may try it",
)
FROZEN = Verdict(
    _CONNECTION,
    RetryRule.OVER,
    _LOST,
    "broke off and accepts connections without answering; it hangs or has no thread left",
)
UNREADABLE_REQUEST = Verdict(
    _CLIENT,
    RetryRule.FINAL,
    None,
    "closed the connection without an answer and goes on working: it cannot read this request",
)
RESET = Verdict(_CONNECTION, RetryRule.OVER, _FAILED, "reset the connection but goes on working")
STALE = Verdict(
    _CONNECTION,
    RetryRule.SAME,
    None,
    "closed the connection without an answer but is up: try again on a new connection",
)
BROKE_OFF = Verdict(_CONNECTION, RetryRule.OVER, _LOST, "broke the connection off")
CUT_SHORT = Verdict(_CONNECTION, RetryRule.OVER, _FAILED, "ended its answer before it was complete")
BUSY = Verdict(
    ErrorCode.API_RATE_LIMITED, RetryRule.BUSY, None, "is busy with other requests; wait a while"
)
BAD_INPUT = Verdict(_CLIENT, RetryRule.FINAL, None, "refuses this request as malformed")
OVERFLOW = Verdict(
    ErrorCode.CONTEXT_OVERFLOW,
    RetryRule.FINAL,
    None,
    "has too small a context for the prompt and max_tokens; shorten the prompt or ask for less",
)
CREDENTIAL = Verdict(
    ErrorCode.API_AUTHENTICATION_ERROR,
    RetryRule.OVER,
    HealthEvent.CREDENTIAL,
    "does not accept the configured credential; the operator has to correct `password_file`",
)
NOT_THERE = Verdict(
    _CLIENT,
    RetryRule.OVER,
    _FAILED,
    "does not know this path; the operator has to check `url`, `kind` and `dialect`",
)
REDIRECTED = Verdict(
    _CLIENT,
    RetryRule.OVER,
    _FAILED,
    "redirects elsewhere, which is never followed; the operator has to correct `url`",
)
UNPAID = Verdict(
    _CLIENT,
    RetryRule.OVER,
    _FAILED,
    "wants to be paid: the account of the configured credential has no credit left",
)
CONFLICT = Verdict(
    _CLIENT, RetryRule.OVER, _FAILED, "is in a state that this request conflicts with (409)"
)
TAKEN_AWAY = Verdict(
    _CLIENT,
    RetryRule.OVER,
    _FAILED,
    "no longer has this path or model (410); the operator has to check `url` and `model`",
)
MISDIRECTED = Verdict(
    _CLIENT,
    RetryRule.OVER,
    _FAILED,
    "does not answer for the address it was asked at (421); the operator has to check `url`",
)
NOT_SENT_IN_TIME = Verdict(
    ErrorCode.API_TIMEOUT,
    RetryRule.OVER,
    _FAILED,
    "did not get the whole request in time (408): the way to it is slow, or it is overloaded",
)
TOO_BIG = Verdict(
    _CLIENT, RetryRule.FINAL, None, "takes no request of this size (413); shorten the prompt"
)
TROUBLE = Verdict(
    _SERVER, RetryRule.OVER, _FAILED, "cannot serve this request now, by no fault of the request"
)
NO_ANSWER = Verdict(
    _SERVER, RetryRule.OVER, _FAILED, "answered with a status that no completion comes with"
)
SERVER_FAILED = Verdict(_SERVER, RetryRule.OVER, _FAILED, "failed by itself")
WITHHELD = Verdict(
    _CLIENT,
    RetryRule.FINAL,
    None,
    "withheld the completion: its content filter objects to the prompt or to the text",
)

BY_STATUS: Mapping[int, Verdict] = MappingProxyType(
    dict.fromkeys(BUSY_STATUSES, BUSY)
    | dict.fromkeys((401, 403), CREDENTIAL)
    | dict.fromkeys((404, 405, 501), NOT_THERE)
    | dict.fromkeys((407, 423, 424, 425, 499), TROUBLE)
    | {
        402: UNPAID,
        408: NOT_SENT_IN_TIME,
        409: CONFLICT,
        410: TAKEN_AWAY,
        413: TOO_BIG,
        421: MISDIRECTED,
    }
)
"""The statuses that mean more than their first digit."""

BY_SEEN: Mapping[Seen, Verdict] = MappingProxyType(
    {
        Seen.UNREACHABLE: Verdict(
            _CONNECTION,
            RetryRule.OVER,
            _LOST,
            "cannot be reached: it is down, still loading its model, or at another address",
        ),
        Seen.CONNECT_TIMEOUT: Verdict(
            _CONNECTION,
            RetryRule.OVER,
            _LOST,
            "did not accept a connection within `connect_timeout_seconds`",
        ),
        Seen.NOT_HTTP: Verdict(
            ErrorCode.API_RESPONSE_FORMAT_ERROR,
            RetryRule.OVER,
            _FAILED,
            "answered something that is not HTTP; check that `url` leads to the right server",
        ),
        Seen.TOO_LARGE: Verdict(
            ErrorCode.API_RESPONSE_FORMAT_ERROR,
            RetryRule.OVER,
            _FAILED,
            "answered more than a completion of this `max_tokens` can hold",
        ),
        Seen.NULL_BODY: Verdict(
            _CLIENT,
            RetryRule.FINAL,
            None,
            "cannot work with a parameter of this request and answered null",
        ),
        Seen.NOT_JSON: Verdict(
            ErrorCode.API_RESPONSE_FORMAT_ERROR,
            RetryRule.OVER,
            _FAILED,
            "answered something that is not JSON",
        ),
        Seen.WRONG_SHAPE: Verdict(
            ErrorCode.API_RESPONSE_STRUCTURE_ERROR,
            RetryRule.OVER,
            _FAILED,
            "answered JSON without a completion in it; check `kind` and `dialect`",
        ),
        Seen.NOT_UTF8: Verdict(
            ErrorCode.API_RESPONSE_FORMAT_ERROR,
            RetryRule.OVER,
            _FAILED,
            "answered text with a byte in it that is not UTF-8",
        ),
        Seen.ENCODED: Verdict(
            ErrorCode.API_RESPONSE_FORMAT_ERROR,
            RetryRule.OVER,
            _FAILED,
            "compressed its answer although it was asked not to; "
            "the operator has to turn that off there, or in the proxy before it",
        ),
        Seen.HALF_ANSWER: Verdict(
            _SERVER,
            RetryRule.OVER,
            _FAILED,
            "gave up in the midst of its completion, as it says itself",
        ),
        Seen.FILTERED: WITHHELD,
        Seen.TOOL_CALL: Verdict(
            ErrorCode.API_RESPONSE_STRUCTURE_ERROR,
            RetryRule.OVER,
            _FAILED,
            "calls a tool that nobody offered; the operator has to turn its tools off",
        ),
        Seen.NO_MODEL: Verdict(
            _SERVER, RetryRule.OVER, HealthEvent.NO_MODEL, "has no model loaded"
        ),
        Seen.OVERFLOW: OVERFLOW,
        Seen.LOST: Verdict(
            _CONNECTION,
            RetryRule.SAME,
            None,
            "has lost the request: it neither generates nor holds anyone in its queue",
        ),
        Seen.SILENT_STREAM: Verdict(
            _CLIENT,
            RetryRule.FINAL,
            None,
            "opened a stream and gave up on it: it cannot work with a parameter of this request",
        ),
        Seen.NO_REPLY: Verdict(
            ErrorCode.API_TIMEOUT,
            RetryRule.OVER,
            _LOST,
            "accepts connections without answering; it hangs or has no thread left",
        ),
        Seen.FIRST_TOKEN_TIMEOUT: Verdict(
            ErrorCode.API_TIMEOUT,
            RetryRule.OVER,
            _FAILED,
            "gave no token within `first_token_timeout_seconds`",
        ),
        Seen.IDLE_TIMEOUT: Verdict(
            ErrorCode.API_STALLED,
            RetryRule.OVER,
            HealthEvent.STALLED,
            "stopped generating: no further token within `idle_timeout_seconds`",
        ),
        # Another backend would need as long: the request is too big for the limit, and sending it
        # round would only spend every server's time.
        Seen.TOTAL_TIMEOUT: Verdict(
            ErrorCode.API_TIMEOUT,
            RetryRule.FINAL,
            None,
            "was still generating after `total_timeout_seconds`; ask for fewer tokens",
        ),
    }
)


_HOST_EXHAUSTED = Verdict(_CONNECTION, RetryRule.HOST, None, "was not asked: this host is {lack}")


def classify(backend: str, observation: Observation) -> BackendError:
    """Return the error that says what went wrong at ``backend`` and how to treat it."""
    verdict = _verdict(observation)
    retry = verdict.retry
    sentence = verdict.sentence
    # Whatever the failure was: a server that does not stop generating is of no use to anyone.
    health_event = verdict.health_event if observation.slot_freed else HealthEvent.STALLED
    if observation.passed_on and retry is not RetryRule.FINAL:
        retry = RetryRule.FINAL
        sentence += "; a part of the text was already delivered"
    if observation.words:
        sentence += f'; it says: "{observation.words}"'
    sentence += _sizes(observation) if verdict is OVERFLOW else ""
    return BackendError(
        verdict.code,
        f"backend {backend} {sentence}",
        retry=retry,
        backend_fault=health_event is not None,
        details=_details(backend, observation),
        retry_after_seconds=observation.retry_after_seconds if verdict is BUSY else None,
        health_event=health_event,
    )


def _sizes(observation: Observation) -> str:
    """Return how large prompt and context are, as far as it is known."""
    prompt, asked = observation.prompt_tokens, observation.max_tokens
    context = observation.context_tokens
    sizes = [
        None if prompt is None else f"the prompt has {prompt} tokens",
        None if asked is None else f"max_tokens is {asked}",
        None if context is None else f"the context holds {context}",
    ]
    known = ", ".join(size for size in sizes if size is not None)
    return f" ({known})" if known else ""


def _verdict(observation: Observation) -> Verdict:
    match observation.seen:
        case Seen.NO_BYTE | Seen.BROKEN | Seen.CUT:
            return _broken_off(observation)
        case Seen.STATUS:
            return _refused(observation)
        case Seen.HOST_EXHAUSTED:
            lack = "exhausted" if observation.lacking is None else observation.lacking.lack
            return replace(_HOST_EXHAUSTED, sentence=_HOST_EXHAUSTED.sentence.format(lack=lack))
        case seen:
            return BY_SEEN[seen]


def _broken_off(observation: Observation) -> Verdict:
    match observation.aftermath:
        case Aftermath.GONE | Aftermath.RESTARTED:
            return DIED
        case Aftermath.SILENT:
            return FROZEN
        case Aftermath.NOT_ASKED:
            return BROKE_OFF
    if observation.seen is Seen.CUT:
        return CUT_SHORT
    if observation.aftermath is Aftermath.ANSWERS:
        return STALE
    return UNREADABLE_REQUEST if observation.seen is Seen.NO_BYTE else RESET


def _refused(observation: Observation) -> Verdict:
    status, word = observation.status or 0, observation.error_type
    if word in _UNPAID_TYPES:
        return UNPAID
    if word in _FILTER_TYPES:
        return WITHHELD
    verdict = BY_STATUS.get(status)
    if verdict is not None and verdict is not TOO_BIG:
        return verdict
    if word in _OVERFLOW_TYPES:
        return OVERFLOW
    if verdict is not None:
        return verdict
    if word == "bad_input" or 400 <= status < 500:
        return BAD_INPUT
    if 300 <= status < 400:
        return REDIRECTED
    return SERVER_FAILED if status >= 500 else NO_ANSWER


def _details(backend: str, observation: Observation) -> dict[str, str | int]:
    facts: dict[str, str | int | None] = {
        "backend": backend,
        "seen": observation.seen.value,
        "status": observation.status,
        "error_type": observation.error_type,
        "prompt_tokens": observation.prompt_tokens,
        "context_tokens": observation.context_tokens,
        "max_tokens": observation.max_tokens,
        "slot_freed": None if observation.slot_freed else False,
    }
    return {name: fact for name, fact in facts.items() if fact is not None}
