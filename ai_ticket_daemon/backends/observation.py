"""What can be seen of a failed attempt: facts only, no judgement."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ai_ticket_daemon.host.exhaustion import Resource


class Seen(StrEnum):
    """How an attempt ended without a completion."""

    HOST_EXHAUSTED = "host_exhausted"
    """This host had run out of what talking to the server takes; it says nothing of the server."""
    UNREACHABLE = "unreachable"
    """The connection was refused, had no route, no such host, or no common TLS."""
    CONNECT_TIMEOUT = "connect_timeout"
    NO_BYTE = "no_byte"
    """The server closed the connection before the first byte of its answer."""
    BROKEN = "broken"
    """The connection was reset before the first byte of the answer."""
    CUT = "cut"
    """The answer ended before its end: a stream without final event, a body that is too short."""
    NOT_HTTP = "not_http"
    TOO_LARGE = "too_large"
    """The answer exceeds what is read of one."""
    STATUS = "status"
    """An HTTP status other than 200, or its equal inside a stream."""
    NULL_BODY = "null_body"
    """200 with the JSON value null: KoboldCPP's word for a parameter of the wrong type."""
    NOT_JSON = "not_json"
    NOT_UTF8 = "not_utf8"
    ENCODED = "encoded"
    """Compressed, which was not asked for."""
    WRONG_SHAPE = "wrong_shape"
    """JSON, but not what this dialect answers."""
    HALF_ANSWER = "half_answer"
    """A completion that the server itself says is not whole."""
    FILTERED = "filtered"
    """A completion that the server's content filter withheld, wholly or in part."""
    TOOL_CALL = "tool_call"
    """A call of a tool in place of a text; no tool was offered."""
    NO_MODEL = "no_model"
    """200 with empty text from a server that has no model loaded."""
    OVERFLOW = "overflow"
    """Found before sending: the prompt and ``max_tokens`` do not fit into the context."""
    LOST = "lost"
    """No byte yet, and the server neither generates nor has anyone waiting."""
    SILENT_STREAM = "silent_stream"
    """The headers of a stream came, nothing else does, and the server does not generate."""
    NO_REPLY = "no_reply"
    """A short call that needs no generation slot was not answered in time."""
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"  # noqa: S105
    IDLE_TIMEOUT = "idle_timeout"
    TOTAL_TIMEOUT = "total_timeout"


BUSY_STATUSES = frozenset({429, 503, 529})
"""HTTP statuses that say no more than: later."""


class SlotEnd(StrEnum):
    """What became of the server's slot when a generation was given up."""

    FREE = "free"
    """It was seen to be free, or never taken."""
    UNSEEN = "unseen"
    """The connection was closed; this kind of server does not tell whether it stops then."""
    READING = "reading"
    """It stops after the prompt is read, which takes no longer than it should."""
    TAKEN = "taken"
    """The server was told to stop, and did not within reasonable time."""


class Aftermath(StrEnum):
    """What the server was found to be right after it broke off."""

    NOT_ASKED = "not_asked"
    GOES_ON = "goes_on"
    """The same process answers."""
    RESTARTED = "restarted"
    """Another process answers than the one the request was sent to."""
    ANSWERS = "answers"
    """It answers; this kind of server does not tell whether it is the same process."""
    GONE = "gone"
    """Nothing answers at its address."""
    SILENT = "silent"
    """It accepts connections and answers none."""


@dataclass(frozen=True, slots=True)
class Observation:
    """All that is known of a failed attempt.

    ``passed_on``: the caller was already given a part of the text. ``error_type``: the server's
    own short word for the error; ``words`` is what it says of it, cleaned, and None where that
    repeats the prompt or the credential. ``margin_tokens``: as many more than ``prompt_tokens`` the
    markers of an unknown template may take. ``slot``: what became of it. ``reloading``: the
    server is one that unloads or reloads its model under a generation. ``lacking`` is what this
    host had run out of.
    """

    seen: Seen
    status: int | None = None
    error_type: str | None = None
    words: str | None = field(default=None, repr=False)
    retry_after_seconds: float | None = None
    prompt_tokens: int | None = None
    margin_tokens: int = 0
    context_tokens: int | None = None
    max_tokens: int | None = None
    aftermath: Aftermath = Aftermath.NOT_ASKED
    passed_on: bool = False
    slot: SlotEnd = SlotEnd.FREE
    reloading: bool = False
    lacking: Resource | None = None


class AttemptFailed(Exception):
    """Carries an observation from where it was made to where it is judged."""

    def __init__(self, observation: Observation) -> None:
        super().__init__(observation.seen.value)
        self.observation = observation

    @classmethod
    def seen(cls, seen: Seen) -> AttemptFailed:
        """An observation that needs no further words."""
        return cls(Observation(seen))
