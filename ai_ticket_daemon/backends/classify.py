"""From what was seen to what is to be done about it: one table, no clock, no network.

The rules are those of `docs/koboldcpp.md`, "Failures and classification". Where a request may go to
another server, it may only until the caller was given a part of the text: after that, no retry can
help, and whatever happens is final.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.observation import Aftermath, Observation, Seen
from ai_ticket_daemon.errors import BackendError, Disposition, ErrorCode, Symptom

if TYPE_CHECKING:
    from collections.abc import Mapping

_OVERFLOW_TYPES = frozenset({"exceed_context_size_error", "context_length_exceeded"})
_BUSY_STATUSES = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a kind of failure means. ``sentence`` follows the name of the backend.

    ``symptom`` is what it says of the health of the backend; None if the request was at fault, or
    nobody.
    """

    code: ErrorCode
    disposition: Disposition
    symptom: Symptom | None
    sentence: str


_CONNECTION = ErrorCode.API_CONNECTION_ERROR
_CLIENT = ErrorCode.API_CLIENT_ERROR
_SERVER = ErrorCode.API_SERVER_ERROR
_LOST, _FAILED = Symptom.LOST, Symptom.FAILED

DIED = Verdict(
    _CONNECTION,
    Disposition.OVER_ONCE,
    _LOST,
    "died while it worked on this request; one other backend may try it",
)
FROZEN = Verdict(
    _CONNECTION,
    Disposition.OVER,
    _LOST,
    "broke off and accepts connections without answering; it hangs or has no thread left",
)
UNREADABLE_REQUEST = Verdict(
    _CLIENT,
    Disposition.FINAL,
    None,
    "closed the connection without an answer and goes on working: it cannot read this request",
)
RESET = Verdict(_CONNECTION, Disposition.OVER, _FAILED, "reset the connection but goes on working")
STALE = Verdict(
    _CONNECTION,
    Disposition.SAME,
    None,
    "closed the connection without an answer but is up: try again on a new connection",
)
BROKE_OFF = Verdict(_CONNECTION, Disposition.OVER, _LOST, "broke the connection off")
CUT_SHORT = Verdict(
    _CONNECTION, Disposition.OVER, _FAILED, "ended its answer before it was complete"
)
BUSY = Verdict(
    ErrorCode.API_RATE_LIMITED, Disposition.BUSY, None, "is busy with other requests; wait a while"
)
BAD_INPUT = Verdict(_CLIENT, Disposition.FINAL, None, "refuses this request as malformed")
OVERFLOW = Verdict(
    ErrorCode.CONTEXT_OVERFLOW,
    Disposition.FINAL,
    None,
    "has too small a context for the prompt and max_tokens; shorten the prompt or ask for less",
)
CREDENTIAL = Verdict(
    ErrorCode.API_AUTHENTICATION_ERROR,
    Disposition.OVER,
    Symptom.CREDENTIAL,
    "does not accept the configured credential; the operator has to correct `password_file`",
)
NOT_THERE = Verdict(
    _CLIENT,
    Disposition.OVER,
    _FAILED,
    "does not know this path; the operator has to check `url`, `kind` and `dialect`",
)
REDIRECTED = Verdict(
    _CLIENT,
    Disposition.OVER,
    _FAILED,
    "redirects elsewhere, which is never followed; the operator has to correct `url`",
)
SERVER_FAILED = Verdict(_SERVER, Disposition.OVER, _FAILED, "failed by itself")

BY_SEEN: Mapping[Seen, Verdict] = MappingProxyType(
    {
        Seen.UNREACHABLE: Verdict(
            _CONNECTION,
            Disposition.OVER,
            _LOST,
            "cannot be reached: it is down, still loading its model, or at another address",
        ),
        Seen.CONNECT_TIMEOUT: Verdict(
            _CONNECTION,
            Disposition.OVER,
            _LOST,
            "did not accept a connection within `connect_timeout_seconds`",
        ),
        Seen.NOT_HTTP: Verdict(
            ErrorCode.API_RESPONSE_FORMAT_ERROR,
            Disposition.OVER,
            _FAILED,
            "answered something that is not HTTP; check that `url` leads to the right server",
        ),
        Seen.TOO_LARGE: Verdict(
            ErrorCode.API_RESPONSE_FORMAT_ERROR,
            Disposition.OVER,
            _FAILED,
            "answered more than any completion can hold",
        ),
        Seen.NULL_BODY: Verdict(
            _CLIENT,
            Disposition.FINAL,
            None,
            "cannot work with a parameter of this request and answered null",
        ),
        Seen.NOT_JSON: Verdict(
            ErrorCode.API_RESPONSE_FORMAT_ERROR,
            Disposition.OVER,
            _FAILED,
            "answered something that is not JSON",
        ),
        Seen.WRONG_SHAPE: Verdict(
            ErrorCode.API_RESPONSE_STRUCTURE_ERROR,
            Disposition.OVER,
            _FAILED,
            "answered JSON without a completion in it; check `kind` and `dialect`",
        ),
        Seen.NO_MODEL: Verdict(_SERVER, Disposition.OVER, Symptom.NO_MODEL, "has no model loaded"),
        Seen.OVERFLOW: OVERFLOW,
        Seen.LOST: Verdict(
            _CONNECTION,
            Disposition.SAME,
            None,
            "has lost the request: it neither generates nor holds anyone in its queue",
        ),
        Seen.SILENT_STREAM: Verdict(
            _CLIENT,
            Disposition.FINAL,
            None,
            "opened a stream and gave up on it: it cannot work with a parameter of this request",
        ),
        Seen.NO_REPLY: Verdict(
            ErrorCode.API_TIMEOUT,
            Disposition.OVER,
            _LOST,
            "accepts connections without answering; it hangs or has no thread left",
        ),
        Seen.FIRST_TOKEN_TIMEOUT: Verdict(
            ErrorCode.API_TIMEOUT,
            Disposition.OVER,
            _FAILED,
            "gave no token within `first_token_timeout_seconds`",
        ),
        Seen.IDLE_TIMEOUT: Verdict(
            ErrorCode.API_STALLED,
            Disposition.OVER,
            Symptom.STALLED,
            "stopped generating: no further token within `idle_timeout_seconds`",
        ),
        # Another backend would need as long: the request is too big for the limit, and sending it
        # round would only spend every server's time.
        Seen.TOTAL_TIMEOUT: Verdict(
            ErrorCode.API_TIMEOUT,
            Disposition.FINAL,
            None,
            "was still generating after `total_timeout_seconds`; ask for fewer tokens",
        ),
    }
)


def classify(backend: str, observation: Observation) -> BackendError:
    """Return the error that says what went wrong at ``backend`` and how to treat it."""
    verdict = _verdict(observation)
    disposition = verdict.disposition
    sentence = verdict.sentence
    # Whatever the failure was: a server that does not stop generating is of no use to anyone.
    symptom = verdict.symptom if observation.slot_freed else Symptom.STALLED
    if observation.passed_on and disposition is not Disposition.FINAL:
        disposition = Disposition.FINAL
        sentence += "; a part of the text was already delivered"
    return BackendError(
        verdict.code,
        f"backend {backend} {sentence}",
        disposition=disposition,
        backend_fault=symptom is not None,
        details=_details(backend, observation),
        retry_after_seconds=observation.retry_after_seconds if verdict is BUSY else None,
        symptom=symptom,
    )


def _verdict(observation: Observation) -> Verdict:
    match observation.seen:
        case Seen.NO_BYTE | Seen.BROKEN | Seen.CUT:
            return _broken_off(observation)
        case Seen.STATUS:
            return _refused(observation)
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
    status = observation.status or 0
    if status in _BUSY_STATUSES:
        return BUSY
    if status in (401, 403):
        return CREDENTIAL
    if status in (404, 405, 501):
        return NOT_THERE
    if observation.error_type in _OVERFLOW_TYPES:
        return OVERFLOW
    if observation.error_type == "bad_input" or 400 <= status < 500:
        return BAD_INPUT
    if 300 <= status < 400:
        return REDIRECTED
    return SERVER_FAILED


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
