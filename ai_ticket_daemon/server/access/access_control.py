"""Who a request comes from, and whether it may go on: tokens, scopes, the limits of requests."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.values.tokens import Scope
from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.events.limits import PRIORITY
from ai_ticket_daemon.server.access.guesses import Guesses
from ai_ticket_daemon.server.access.rate_limiter import RateLimiter
from ai_ticket_daemon.server.client_address import client_of
from ai_ticket_daemon.server.headers import values_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ai_ticket_daemon.config.auth import AuthConfig
    from ai_ticket_daemon.config.http import HttpConfig
    from ai_ticket_daemon.config.rate_limit import RateLimitConfig
    from ai_ticket_daemon.config.values.tokens import Token, Tokens
    from ai_ticket_daemon.server.access.refusals import Refusals

    RawHeaders = Sequence[tuple[bytes, bytes]]

_REALM = 'Bearer realm="ai-ticket-daemon"'


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request. ``name`` is the token's, and "" where no tokens are asked for.

    ``best_priority`` is the lowest number its events may have.
    """

    name: str
    scopes: frozenset[Scope]
    best_priority: int = PRIORITY.default

    @property
    def may_read(self) -> bool:
        """Whether completions may be fetched later, and not only waited for."""
        return not self.scopes.isdisjoint((Scope.READ, Scope.OPERATE))

    def may_touch(self, owner: str) -> bool:
        """Tell whether events of ``owner`` may be looked at, or cancelled."""
        return self.name == owner or Scope.OPERATE in self.scopes


ANYBODY = Caller("", frozenset(Scope), best_priority=0)
"""Whoever connects to a daemon without a tokens file."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request may go on: ``refusal`` is None if so. ``headers`` go with any answer.

    ``client`` is whom it counts for.
    """

    caller: Caller
    refusal: RequestRefused | None
    headers: Mapping[str, str]
    client: str


class AccessControl:
    """Decides on each request before anything else of it is read. Owns the counts of all clients.

    Args:
        auth: returns the ``[auth]`` settings in force now.
        rate_limit: returns the ``[rate_limit]`` settings in force now.
        http: returns the ``[http]`` settings in force now.
        refusals: counts who is refused.
    """

    def __init__(
        self,
        *,
        auth: Callable[[], AuthConfig],
        rate_limit: Callable[[], RateLimitConfig],
        http: Callable[[], HttpConfig],
        refusals: Refusals,
    ) -> None:
        self._auth = auth
        self._rate_limit = rate_limit
        self._http = http
        self._refusals = refusals
        self._requests = RateLimiter()
        self._events = RateLimiter()
        self._guesses = Guesses()

    def client_of(self, headers: RawHeaders, peer: str | None) -> str | None:
        """Return the address of a request's client; None if it is not to be recorded."""
        http = self._http()
        if not http.record_client_addresses:
            return None
        return client_of(headers, peer, http.trusted_proxies)

    def decide(
        self, headers: RawHeaders, peer: str | None, needed: Sequence[Scope], now: float
    ) -> Decision:
        """Judge one request, and count it; a refusal is counted for its address, too.

        A request with an unknown token counts for its address. After a few of them no token of
        that address is looked at for a while; see :mod:`guesses`.

        Args:
            headers: those of the request, names in lower case.
            peer: the address at the other end of the connection; None on a Unix socket.
            needed: the scopes of which the caller must have one.
            now: seconds on a clock that never goes back.
        """
        decision = self._decide(headers, peer, needed, now)
        if decision.refusal is not None:
            client = self.client_of(headers, peer)
            if client is not None:
                self._refusals.note(client, decision.refusal.code.value, time.time())
        return decision

    def _decide(
        self, headers: RawHeaders, peer: str | None, needed: Sequence[Scope], now: float
    ) -> Decision:
        tokens = self._auth().tokens
        presented = None if tokens is None else _presented(headers)
        token = None if tokens is None or presented is None else tokens.find(presented)
        caller, refusal = identify(tokens, presented, token)
        address = client_of(headers, peer, self._http().trusted_proxies)
        client = f"name {caller.name}" if caller.name else f"address {address}"
        answered: dict[str, str] = {}
        if presented is not None:
            wait_seconds = self._guesses.wait_seconds(address, token, now)
            if wait_seconds is not None:
                return Decision(_NOBODY, _guessed(wait_seconds), answered, client)
        limit = self._rate_limit()
        if limit.requests:
            allowance = self._requests.take(
                client, requests=limit.requests, window_seconds=limit.window_seconds, now=now
            )
            answered |= allowance.headers()
            if allowance.retry_after_seconds is not None:
                return Decision(
                    caller,
                    RequestRefused(
                        ErrorCode.RATE_LIMITED,
                        f"More than {limit.requests} requests within {limit.window_seconds:g} "
                        "seconds; wait as long as Retry-After says.",
                        details={
                            "requests": limit.requests,
                            "window_seconds": limit.window_seconds,
                        },
                        retry_after_seconds=allowance.retry_after_seconds,
                    ),
                    answered,
                    client,
                )
        if refusal is None and caller.scopes.isdisjoint(needed):
            refusal = _lacks(needed)
        if refusal is not None:
            answered["www-authenticate"] = _challenge(refusal)
        return Decision(caller, refusal, answered, client)

    def charge(self, client: str, events: int, now: float) -> None:
        """Count ``events`` that a client hands over in one request.

        Raises:
            RequestRefused: ``rate_limited``, or ``batch_too_large``: it may never hand over so
                many at once.
        """
        limit = self._rate_limit()
        if not limit.events:
            return
        if events > limit.events:
            raise RequestRefused(
                ErrorCode.BATCH_TOO_LARGE,
                f"The batch holds {events} events, more than the {limit.events} that one client "
                f"may hand over within {limit.window_seconds:g} seconds; send it in parts or have "
                "rate_limit.events raised.",
                details={"max_batch": limit.events, "actual": events},
            )
        allowance = self._events.take(
            client,
            requests=limit.events,
            window_seconds=limit.window_seconds,
            now=now,
            cost=events,
        )
        if allowance.retry_after_seconds is not None:
            raise RequestRefused(
                ErrorCode.RATE_LIMITED,
                f"More than {limit.events} events within {limit.window_seconds:g} seconds; wait "
                "as long as Retry-After says.",
                details={
                    "events": limit.events,
                    "remaining": allowance.remaining,
                    "window_seconds": limit.window_seconds,
                },
                retry_after_seconds=allowance.retry_after_seconds,
            )


def identify(
    tokens: Tokens | None, presented: str | None, token: Token | None
) -> tuple[Caller, RequestRefused | None]:
    """Return who makes a request, and why it is refused if it is.

    Args:
        tokens: those there are; None if none are asked for.
        presented: what the client showed as one; None if nothing.
        token: which of them that is; None if none.
    """
    if tokens is None:
        return ANYBODY, None
    if presented is None:
        return _NOBODY, RequestRefused(
            ErrorCode.UNAUTHORISED,
            "An access token is needed; send it as 'authorization: Bearer TOKEN' or "
            "'x-api-key: TOKEN'.",
            details={"reason": "missing_token"},
        )
    if token is None:
        return _NOBODY, RequestRefused(
            ErrorCode.UNAUTHORISED,
            "This access token is not known; ask the operator for one that is.",
            details={"reason": "unknown_token"},
        )
    return Caller(token.name, token.scopes, token.best_priority), None


def _presented(headers: RawHeaders) -> str | None:
    """Return the token a request comes with; of several the first one counts."""
    for value in values_of(headers, b"authorization"):
        scheme, _, credentials = value.partition(" ")
        if scheme.lower() == "bearer" and credentials.strip():
            return credentials.strip()
    return next(filter(None, values_of(headers, b"x-api-key")), None)


def _guessed(wait_seconds: float) -> RequestRefused:
    return RequestRefused(
        ErrorCode.RATE_LIMITED,
        "Too many unknown access tokens came from this address, so none is looked at for a while; "
        "wait as long as Retry-After says.",
        details={"reason": "unknown_tokens"},
        retry_after_seconds=wait_seconds,
    )


def _lacks(needed: Sequence[Scope]) -> RequestRefused:
    names = " or ".join(f'"{scope}"' for scope in needed)
    return RequestRefused(
        ErrorCode.FORBIDDEN,
        f"This access token lacks the scope {names}; ask the operator for one that has it.",
        details={"needed": [scope.value for scope in needed]},
    )


def _challenge(refusal: RequestRefused) -> str:
    """Return ``WWW-Authenticate`` as RFC 6750 section 3 has it."""
    details = refusal.details or {}
    if refusal.code is ErrorCode.FORBIDDEN:
        return f'{_REALM}, error="insufficient_scope", scope="{" ".join(details["needed"])}"'
    if details.get("reason") == "unknown_token":
        return f'{_REALM}, error="invalid_token"'
    return _REALM


_NOBODY = Caller("", frozenset())
