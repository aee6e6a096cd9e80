"""The one table of failures: the error code, the retry rule, the health event and the sentence."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from ai_ticket_daemon.backends.failure import Failure, HealthEvent, RetryRule
from ai_ticket_daemon.backends.observation import BUSY_STATUSES, Seen
from ai_ticket_daemon.errors import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONNECTION = ErrorCode.API_CONNECTION_ERROR
_CLIENT = ErrorCode.API_CLIENT_ERROR
_SERVER = ErrorCode.API_SERVER_ERROR
_FORMAT = ErrorCode.API_RESPONSE_FORMAT_ERROR
_STRUCTURE = ErrorCode.API_RESPONSE_STRUCTURE_ERROR
_TIMEOUT = ErrorCode.API_TIMEOUT
_SAME, _OVER, _OVER_ONCE = RetryRule.SAME, RetryRule.OVER, RetryRule.OVER_ONCE
_FINAL = RetryRule.FINAL
_LOST, _STALLED, _FAILED = HealthEvent.LOST, HealthEvent.STALLED, HealthEvent.FAILED

DIED = Failure(
    _CONNECTION,
    _OVER_ONCE,
    _LOST,
    "died while it worked on this request; one other backend may try it",
)
RELOADED = Failure(
    _CONNECTION,
    _OVER,
    HealthEvent.RELOADING,
    "unloaded or reloaded its model under this request, or died; that is not the request's fault",
)
FROZEN = Failure(
    _CONNECTION,
    _OVER,
    _LOST,
    "broke off and accepts connections without answering; it hangs or has no thread left",
)
UNREADABLE_REQUEST = Failure(
    _CLIENT,
    _FINAL,
    None,
    "closed the connection without an answer and goes on working: it cannot read this request",
)
RESET = Failure(_CONNECTION, _OVER, _FAILED, "reset the connection but goes on working")
STALE = Failure(
    _CONNECTION,
    _SAME,
    None,
    "closed the connection without an answer but is up: try again on a new connection",
)
BROKE_OFF = Failure(_CONNECTION, _OVER, _LOST, "broke the connection off")
CUT_SHORT = Failure(_CONNECTION, _OVER, _FAILED, "ended its answer before it was complete")
BUSY = Failure(
    ErrorCode.API_RATE_LIMITED, RetryRule.BUSY, None, "is busy with other requests; wait a while"
)
BAD_INPUT = Failure(_CLIENT, _FINAL, None, "refuses this request as malformed")
OVERFLOW = Failure(
    ErrorCode.CONTEXT_OVERFLOW,
    _FINAL,
    None,
    "has too small a context for the prompt and max_tokens; shorten the prompt or ask for less",
)
CREDENTIAL = Failure(
    ErrorCode.API_AUTHENTICATION_ERROR,
    _OVER,
    HealthEvent.CREDENTIAL,
    "does not accept the configured credential; the operator has to correct `password_file`",
)
NOT_THERE = Failure(
    _CLIENT,
    _OVER,
    _FAILED,
    "does not know this path; the operator has to check `url`, `kind` and `dialect`",
)
REDIRECTED = Failure(
    _CLIENT,
    _OVER,
    _FAILED,
    "redirects elsewhere, which is never followed; the operator has to correct `url`",
)
UNPAID = Failure(
    _CLIENT,
    _OVER,
    _FAILED,
    "wants to be paid: the account of the configured credential has no credit left",
)
CONFLICT = Failure(_CLIENT, _OVER, _FAILED, "is in a state that this request conflicts with (409)")
TAKEN_AWAY = Failure(
    _CLIENT,
    _OVER,
    _FAILED,
    "no longer has this path or model (410); the operator has to check `url` and `model`",
)
MISDIRECTED = Failure(
    _CLIENT,
    _OVER,
    _FAILED,
    "does not answer for the address it was asked at (421); the operator has to check `url`",
)
NOT_SENT_IN_TIME = Failure(
    _TIMEOUT,
    _OVER,
    _FAILED,
    "did not get the whole request in time (408): the way to it is slow, or it is overloaded",
)
TOO_BIG = Failure(_CLIENT, _FINAL, None, "takes no request of this size (413); shorten the prompt")
TROUBLE = Failure(
    _SERVER, _OVER, _FAILED, "cannot serve this request now, by no fault of the request"
)
NO_ANSWER = Failure(_SERVER, _OVER, _FAILED, "answered with a status that no completion comes with")
SERVER_FAILED = Failure(_SERVER, _OVER, _FAILED, "failed by itself")
WITHHELD = Failure(
    _CLIENT,
    _FINAL,
    None,
    "withheld the completion: its content filter objects to the prompt or to the text",
)

HOST_EXHAUSTED = Failure(_CONNECTION, RetryRule.HOST, None, "was not asked: this host is {lack}")

BY_STATUS: Mapping[int, Failure] = MappingProxyType(
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

BY_SEEN: Mapping[Seen, Failure] = MappingProxyType(
    {
        Seen.UNREACHABLE: Failure(
            _CONNECTION,
            _OVER,
            _LOST,
            "cannot be reached: it is down, still loading its model, or at another address",
        ),
        Seen.CONNECT_TIMEOUT: Failure(
            _CONNECTION,
            _OVER,
            _LOST,
            "did not accept a connection within `connect_timeout_seconds`",
        ),
        Seen.NOT_HTTP: Failure(
            _FORMAT,
            _OVER,
            _FAILED,
            "answered something that is not HTTP; check that `url` leads to the right server",
        ),
        Seen.TOO_LARGE: Failure(
            _FORMAT, _OVER, _FAILED, "answered more than a completion of this `max_tokens` can hold"
        ),
        Seen.NULL_BODY: Failure(
            _CLIENT, _FINAL, None, "cannot work with a parameter of this request and answered null"
        ),
        Seen.NOT_JSON: Failure(_FORMAT, _OVER, _FAILED, "answered something that is not JSON"),
        Seen.WRONG_SHAPE: Failure(
            _STRUCTURE,
            _OVER,
            _FAILED,
            "answered JSON without a completion in it; check `kind` and `dialect`",
        ),
        Seen.NOT_UTF8: Failure(
            _FORMAT, _OVER, _FAILED, "answered text with a byte in it that is not UTF-8"
        ),
        Seen.ENCODED: Failure(
            _FORMAT,
            _OVER,
            _FAILED,
            "compressed its answer although it was asked not to; "
            "the operator has to turn that off there, or in the proxy before it",
        ),
        Seen.HALF_ANSWER: Failure(
            _SERVER, _OVER, _FAILED, "gave up in the midst of its completion, as it says itself"
        ),
        Seen.FILTERED: WITHHELD,
        Seen.TOOL_CALL: Failure(
            _STRUCTURE,
            _OVER,
            _FAILED,
            "calls a tool that nobody offered; the operator has to turn its tools off",
        ),
        Seen.NO_MODEL: Failure(_SERVER, _OVER, HealthEvent.NO_MODEL, "has no model loaded"),
        Seen.OVERFLOW: OVERFLOW,
        Seen.LOST: Failure(
            _CONNECTION,
            _SAME,
            None,
            "has lost the request: it neither generates nor holds anyone in its queue",
        ),
        Seen.SILENT_STREAM: Failure(
            _CLIENT,
            _FINAL,
            None,
            "opened a stream and gave up on it: it cannot work with a parameter of this request",
        ),
        Seen.NO_REPLY: Failure(
            _TIMEOUT,
            _OVER,
            _LOST,
            "accepts connections without answering; it hangs or has no thread left",
        ),
        Seen.FIRST_TOKEN_TIMEOUT: Failure(
            _TIMEOUT, _OVER, _FAILED, "gave no token within `first_token_timeout_seconds`"
        ),
        Seen.IDLE_TIMEOUT: Failure(
            ErrorCode.API_STALLED,
            _OVER,
            _STALLED,
            "stopped generating: no further token within `idle_timeout_seconds`",
        ),
        # Another backend would need as long: the request is too big for the limit, and sending it
        # round would only spend every server's time.
        Seen.TOTAL_TIMEOUT: Failure(
            _TIMEOUT,
            _FINAL,
            None,
            "was still generating after `total_timeout_seconds`; ask for fewer tokens",
        ),
    }
)
