from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ai_ticket_daemon.config.auth import AuthConfig
from ai_ticket_daemon.config.http import HttpConfig
from ai_ticket_daemon.config.rate_limit import RateLimitConfig
from ai_ticket_daemon.config.tokens import Scope, Tokens, parse_tokens
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.server.access import ANYBODY, Caller, Gate, Verdict

TOKENS = Tokens(
    Path("/tokens"),
    parse_tokens(
        "bot:bot-token-bot-token\nbot:bot-token-to-come\n"
        "reader:reader-token-reader read\nops:ops-token-ops-token operate"
    ),
)
SUBMIT = (Scope.SUBMIT,)


class Settings:
    def __init__(self, *, tokens: Tokens | None = TOKENS, requests: int = 0) -> None:
        self.auth = AuthConfig(tokens)
        self.rate_limit = RateLimitConfig(requests, 60.0)
        self.http = HttpConfig()
        self.gate = Gate(
            auth=lambda: self.auth, rate_limit=lambda: self.rate_limit, http=lambda: self.http
        )

    def judge(
        self, *headers: tuple[bytes, bytes], peer: str = "192.0.2.1", scopes: object = SUBMIT
    ) -> Verdict:
        assert isinstance(scopes, tuple)
        return self.gate.judge(headers, peer, scopes, now=0.0)


def bearer(token: bytes) -> tuple[bytes, bytes]:
    return (b"authorization", b"Bearer " + token)


BOT = bearer(b"bot-token-bot-token")


@pytest.mark.parametrize(
    "headers",
    [
        [BOT],
        [(b"authorization", b"bearer   bot-token-bot-token ")],
        [bearer(b"bot-token-to-come")],
        [(b"x-api-key", b"bot-token-bot-token")],
        # A proxy's own password does not get in the way of an API key.
        [(b"authorization", b"Basic Zm9vOmJhcg=="), (b"x-api-key", b"bot-token-bot-token")],
        # Of several the first one counts, a bearer token before an API key.
        [(b"x-api-key", b"nonsense"), BOT],
    ],
)
def test_a_token_is_taken_from_either_header(headers: list[tuple[bytes, bytes]]) -> None:
    verdict = Settings().judge(*headers)
    assert verdict.refusal is None
    assert verdict.caller.name == "bot"
    assert verdict.headers == {}


@pytest.mark.parametrize(
    ("headers", "challenge"),
    [
        ([], 'Bearer realm="ai-ticket-daemon"'),
        ([(b"authorization", b"Bearer")], 'Bearer realm="ai-ticket-daemon"'),
        ([(b"authorization", b"Basic Zm9vOmJhcg==")], 'Bearer realm="ai-ticket-daemon"'),
        ([(b"x-api-key", b"")], 'Bearer realm="ai-ticket-daemon"'),
        ([bearer(b"nonsense")], 'Bearer realm="ai-ticket-daemon", error="invalid_token"'),
        ([bearer(b"\xff\xfe")], 'Bearer realm="ai-ticket-daemon", error="invalid_token"'),
        ([bearer(b"bot")], 'Bearer realm="ai-ticket-daemon", error="invalid_token"'),
        (
            [bearer(b"nonsense"), BOT],
            'Bearer realm="ai-ticket-daemon", error="invalid_token"',
        ),
    ],
)
def test_without_a_known_token_nothing_goes_on(
    headers: list[tuple[bytes, bytes]], challenge: str
) -> None:
    verdict = Settings().judge(*headers)
    assert verdict.refusal is not None
    assert verdict.refusal.code is ErrorCode.UNAUTHORISED
    assert verdict.headers == {"www-authenticate": challenge}
    assert verdict.caller.name == ""
    assert "nonsense" not in repr(verdict)


def test_a_token_without_the_scope_is_refused_by_name_of_the_scope() -> None:
    verdict = Settings().judge(bearer(b"reader-token-reader"))
    assert verdict.refusal is not None
    assert verdict.refusal.code is ErrorCode.FORBIDDEN
    assert verdict.refusal.details == {"needed": ["submit"]}
    assert 'scope="submit"' in verdict.headers["www-authenticate"]
    both = Settings().judge(bearer(b"reader-token-reader"), scopes=(Scope.READ, Scope.OPERATE))
    assert both.refusal is None


def test_without_a_tokens_file_everybody_may_do_everything() -> None:
    verdict = Settings(tokens=None).judge(bearer(b"whatever"))
    assert (verdict.caller, verdict.refusal) == (ANYBODY, None)
    assert ANYBODY.may_touch("")
    assert ANYBODY.may_touch("bot")


def test_events_are_touched_by_their_owner_and_by_operators() -> None:
    bot = Caller("bot", frozenset({Scope.SUBMIT, Scope.READ}))
    assert bot.may_touch("bot")
    assert not bot.may_touch("other")
    assert not bot.may_touch("")
    assert Caller("ops", frozenset({Scope.OPERATE})).may_touch("bot")


def test_a_changed_tokens_file_counts_with_the_next_request() -> None:
    settings = Settings()
    assert settings.judge(BOT).refusal is None
    settings.auth = AuthConfig(dataclasses.replace(TOKENS, tokens=TOKENS.tokens[1:]))
    assert settings.judge(BOT).refusal is not None


def test_requests_are_counted_by_name_whatever_the_address() -> None:
    settings = Settings(requests=2)
    assert settings.judge(BOT, peer="192.0.2.1").headers["ratelimit-remaining"] == "1"
    second = settings.judge(bearer(b"bot-token-to-come"), peer="192.0.2.2")
    assert second.refusal is None
    third = settings.judge(BOT, peer="192.0.2.3")
    assert third.refusal is not None
    assert third.refusal.code is ErrorCode.RATE_LIMITED
    assert third.refusal.retry_after_seconds == pytest.approx(30)
    assert third.refusal.details == {"requests": 2, "window_seconds": 60.0}
    assert third.headers["ratelimit-remaining"] == "0"
    assert settings.judge(bearer(b"ops-token-ops-token"), scopes=(Scope.OPERATE,)).refusal is None


def test_requests_without_tokens_are_counted_by_address() -> None:
    settings = Settings(tokens=None, requests=1)
    assert settings.judge(peer="192.0.2.1").refusal is None
    assert settings.judge(peer="192.0.2.2").refusal is None
    refused = settings.judge(peer="192.0.2.1")
    assert refused.refusal is not None
    assert refused.refusal.code is ErrorCode.RATE_LIMITED


def test_tokens_cannot_be_guessed_faster_than_the_limit_allows() -> None:
    settings = Settings(requests=2)
    codes = []
    for _ in range(4):
        refusal = settings.judge(bearer(b"guess")).refusal
        assert refusal is not None
        codes.append(refusal.code.value)
    assert codes == ["unauthorised", "unauthorised", "rate_limited", "rate_limited"]
    # Whoever has a token is counted by its name, so that a guesser does not shut it out.
    assert settings.judge(BOT).refusal is None


def test_a_limit_of_zero_is_none() -> None:
    settings = Settings(requests=0)
    for _ in range(1000):
        assert settings.judge(BOT).refusal is None
