"""W3C trace context: which trace a request belongs to (https://www.w3.org/TR/trace-context/)."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The longest tracestate that has to be passed on; a longer one may be dropped as a whole.
_MAX_STATE_BYTES = 512
_CLIENT_SPAN = "client_span"
_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<rest>-.*)?"
)
_STATE = re.compile(r"[\x20-\x7e]+")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The trace a request belongs to. ``remote``: the client said so; else it begins here.

    ``client_id``: of a span of ours, the client's span above it.
    """

    trace_id: str
    parent_id: str
    flags: str
    state: str | None
    remote: bool
    client_id: str | None = None

    @property
    def is_sampled(self) -> bool:
        """Whether the trace is recorded."""
        return int(self.flags, 16) % 2 == 1

    def headers(self) -> dict[str, str]:
        """Return the headers that hand this trace on."""
        headers = {"traceparent": f"00-{self.trace_id}-{self.parent_id}-{self.flags}"}
        if self.state is not None:
            headers["tracestate"] = self.state
        return headers

    def kept(self) -> dict[str, str]:
        """Return what is kept with an event: the headers, and the client's span above ours."""
        above = {} if self.client_id is None else {_CLIENT_SPAN: self.client_id}
        return self.headers() | above


def trace_of(headers: Iterable[tuple[bytes, bytes]]) -> TraceContext:
    """Return the trace that a request's ``headers`` name (names in lower case), else a fresh one.

    A malformed ``traceparent``, or more than one, counts as none, as the standard asks.
    """
    parents, states = [], []
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value.decode("latin-1").strip())
        elif name == b"tracestate":
            states.append(value.decode("latin-1").strip())
    match = _TRACEPARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if match is None or not _is_valid(match):
        return new_trace()
    state = ",".join(filter(None, states))
    usable = len(state) <= _MAX_STATE_BYTES and _STATE.fullmatch(state)
    return TraceContext(
        match["trace"], match["parent"], match["flags"], state if usable else None, remote=True
    )


def new_trace() -> TraceContext:
    """Return a trace of its own, marked as sampled: nobody before us decided otherwise."""
    return TraceContext(secrets.token_hex(16), secrets.token_hex(8), "01", None, remote=False)


def kept_trace(kept: Mapping[str, str]) -> TraceContext | None:
    """Return the trace that :meth:`TraceContext.kept` or ``headers`` wrote; None if none was."""
    match = _TRACEPARENT.fullmatch(kept.get("traceparent", ""))
    if match is None:
        return None
    return TraceContext(
        match["trace"],
        match["parent"],
        match["flags"],
        kept.get("tracestate"),
        remote=False,
        client_id=kept.get(_CLIENT_SPAN),
    )


def kept_trace_id(kept: Mapping[str, str]) -> str | None:
    """Return the id of the trace that is kept with an event; None if none is."""
    trace = kept_trace(kept)
    return None if trace is None else trace.trace_id


def _is_valid(match: re.Match[str]) -> bool:
    return (
        match["version"] != "ff"
        # Later versions may add fields; version 00 has none.
        and (match["rest"] is None or match["version"] != "00")
        and match["trace"].strip("0") != ""
        and match["parent"].strip("0") != ""
    )
