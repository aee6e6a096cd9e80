from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ai_ticket_daemon.config.auth import AuthConfig
from ai_ticket_daemon.config.http import HttpConfig
from ai_ticket_daemon.config.rate_limit import RateLimitConfig
from ai_ticket_daemon.config.values.tokens import Scope, Tokens, parse_tokens
from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.server.access.access_control import ANYBODY, AccessControl, Caller, Decision
from ai_ticket_daemon.server.access.guesses import GUESSES, Guesses
from ai_ticket_daemon.server.access.refusals import MOST_CLIENTS, TOLD_CLIENTS, Refusals

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
        self.refusals = Refusals()
        self.access = AccessControl(
            auth=lambda: self.auth,
            rate_limit=lambda: self.rate_limit,
            http=lambda: self.http,
            refusals=self.refusals,
        )

    def decide(
        self, *headers: tuple[bytes, bytes], peer: str = "192.0.2.1", scopes: object = SUBMIT
    ) -> Decision:
        assert isinstance(scopes, tuple)
        return self.access.decide(headers, peer, scopes, now=0.0)


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
    decision = Settings().decide(*headers)
    assert decision.refusal is None
    assert decision.caller.name == "bot"
    assert decision.headers == {}


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
    decision = Settings().decide(*headers)
    assert decision.refusal is not None
    assert decision.refusal.code is ErrorCode.UNAUTHORISED
    assert decision.headers == {"www-authenticate": challenge}
    assert decision.caller.name == ""
    assert "nonsense" not in repr(decision)


def test_a_token_without_the_scope_is_refused_by_name_of_the_scope() -> None:
    decision = Settings().decide(bearer(b"reader-token-reader"))
    assert decision.refusal is not None
    assert decision.refusal.code is ErrorCode.FORBIDDEN
    assert decision.refusal.details == {"needed": ["submit"]}
    assert 'scope="submit"' in decision.headers["www-authenticate"]
    both = Settings().decide(bearer(b"reader-token-reader"), scopes=(Scope.READ, Scope.OPERATE))
    assert both.refusal is None


def test_without_a_tokens_file_everybody_may_do_everything() -> None:
    decision = Settings(tokens=None).decide(bearer(b"whatever"))
    assert (decision.caller, decision.refusal) == (ANYBODY, None)
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
    assert settings.decide(BOT).refusal is None
    settings.auth = AuthConfig(dataclasses.replace(TOKENS, tokens=TOKENS.tokens[1:]))
    assert settings.decide(BOT).refusal is not None


def test_requests_are_counted_by_name_whatever_the_address() -> None:
    settings = Settings(requests=2)
    assert settings.decide(BOT, peer="192.0.2.1").headers["ratelimit-remaining"] == "1"
    second = settings.decide(bearer(b"bot-token-to-come"), peer="192.0.2.2")
    assert second.refusal is None
    third = settings.decide(BOT, peer="192.0.2.3")
    assert third.refusal is not None
    assert third.refusal.code is ErrorCode.RATE_LIMITED
    assert third.refusal.retry_after_seconds == pytest.approx(30)
    assert third.refusal.details == {"requests": 2, "window_seconds": 60.0}
    assert third.headers["ratelimit-remaining"] == "0"
    assert settings.decide(bearer(b"ops-token-ops-token"), scopes=(Scope.OPERATE,)).refusal is None


def test_requests_without_tokens_are_counted_by_address() -> None:
    settings = Settings(tokens=None, requests=1)
    assert settings.decide(peer="192.0.2.1").refusal is None
    assert settings.decide(peer="192.0.2.2").refusal is None
    refused = settings.decide(peer="192.0.2.1")
    assert refused.refusal is not None
    assert refused.refusal.code is ErrorCode.RATE_LIMITED


def test_tokens_cannot_be_guessed_faster_than_the_limit_allows() -> None:
    settings = Settings(requests=2)
    codes = []
    for _ in range(4):
        refusal = settings.decide(bearer(b"guess")).refusal
        assert refusal is not None
        codes.append(refusal.code.value)
    assert codes == ["unauthorised", "unauthorised", "rate_limited", "rate_limited"]
    # Whoever has a token is counted by its name, so that a guesser does not shut it out.
    assert settings.decide(BOT).refusal is None


def test_a_limit_of_zero_is_none() -> None:
    settings = Settings(requests=0)
    for _ in range(1000):
        assert settings.decide(BOT).refusal is None


def guess(settings: Settings, token: bytes, now: float, peer: str = "192.0.2.1") -> str:
    refusal = settings.access.decide([bearer(token)], peer, SUBMIT, now).refusal
    return "let in" if refusal is None else refusal.code.value


@pytest.mark.parametrize("requests", [0, 1_000_000])
def test_a_right_token_after_many_wrong_ones_of_an_address_is_not_looked_at(requests: int) -> None:
    settings = Settings(requests=requests)
    codes = [guess(settings, b"guess-%d" % number, 0.0) for number in range(400)]
    assert codes == ["unauthorised"] * GUESSES + ["rate_limited"] * (400 - GUESSES)
    # A right one and a wrong one are answered alike, to the letter.
    right = settings.access.decide([BOT], "192.0.2.1", SUBMIT, 0.0)
    wrong = settings.access.decide([bearer(b"nonsense")], "192.0.2.1", SUBMIT, 0.0)
    assert right.refusal is not None
    assert wrong.refusal is not None
    assert right.refusal.code is ErrorCode.RATE_LIMITED
    assert (right.refusal.message, right.refusal.details, right.headers) == (
        wrong.refusal.message,
        wrong.refusal.details,
        wrong.headers,
    )
    assert right.refusal.retry_after_seconds == wrong.refusal.retry_after_seconds == 6.0
    assert right.caller.name == ""
    # From elsewhere it is; and here, too, when a guess has come back.
    assert guess(settings, b"bot-token-bot-token", 0.0, "192.0.2.2") == "let in"
    assert guess(settings, b"bot-token-bot-token", 6.0) == "let in"


def test_a_token_that_was_used_from_an_address_goes_on_working_there() -> None:
    settings = Settings()
    assert guess(settings, b"bot-token-bot-token", 0.0) == "let in"
    for number in range(400):
        guess(settings, b"guess-%d" % number, 1.0)
    assert guess(settings, b"bot-token-bot-token", 1.0) == "let in"
    # The name is not enough: its other token was not used from here.
    assert guess(settings, b"bot-token-to-come", 1.0) == "rate_limited"


def test_who_guesses_on_waits_no_longer_than_who_stops() -> None:
    settings = Settings()
    for number in range(GUESSES):
        guess(settings, b"guess-%d" % number, 0.0)
    codes = [guess(settings, b"x", float(second)) for second in range(1, 61)]
    assert codes.count("unauthorised") == GUESSES


def test_who_shows_no_token_guesses_none() -> None:
    settings = Settings()
    for _ in range(100):
        refusal = settings.decide().refusal
        assert refusal is not None
        assert refusal.code is ErrorCode.UNAUTHORISED
    assert settings.decide(BOT).refusal is None


def test_only_so_many_tokens_are_remembered() -> None:
    guesses, token = Guesses(max_familiar=2), TOKENS.tokens[0]
    for address in ("a", "b", "c"):
        assert guesses.wait_seconds(address, token, 0.0) is None
        for _ in range(GUESSES):
            guesses.wait_seconds(address, None, 0.0)
    waits = [guesses.wait_seconds(address, token, 0.0) for address in ("a", "b", "c")]
    assert waits == [pytest.approx(6.0), None, None]


class Charged(Settings):
    def __init__(self, events: int) -> None:
        super().__init__()
        self.rate_limit = RateLimitConfig(0, 60.0, events=events)

    def charge(self, events: int, now: float = 0.0, client: str = "name bot") -> str:
        try:
            self.access.charge(client, events, now)
        except RequestRefused as error:
            waits = error.retry_after_seconds
            return error.code.value + ("" if waits is None else f" {waits:g}")
        return "let in"


def test_a_batch_costs_as_many_events_as_it_holds() -> None:
    settings = Charged(10)
    assert [settings.charge(4) for _ in range(3)] == ["let in", "let in", "rate_limited 12"]
    assert settings.charge(2) == "let in"
    assert settings.charge(1) == "rate_limited 6"
    assert settings.charge(4, client="name other") == "let in"
    assert settings.charge(10, now=59.9) == "rate_limited 0.1"
    assert settings.charge(10, now=60.0) == "let in"


def test_a_batch_that_never_fits_is_told_so_and_not_to_come_back() -> None:
    settings = Charged(10)
    assert settings.charge(11) == "batch_too_large"
    assert settings.charge(10) == "let in"
    settings.rate_limit = RateLimitConfig(0, 60.0, events=0)
    assert settings.charge(1_000_000) == "let in"


def test_a_token_brings_the_best_priority_its_events_may_have() -> None:
    tokens = Tokens(Path("/tokens"), parse_tokens(f"a:{'a' * 16}\nb:{'b' * 16} priority:2"))
    settings = Settings(tokens=tokens)
    assert settings.decide(bearer(b"a" * 16)).caller.best_priority == 5
    assert settings.decide(bearer(b"b" * 16)).caller.best_priority == 2
    assert Settings(tokens=None).decide().caller.best_priority == 0


def test_who_is_refused_is_counted_by_address_and_for_what() -> None:
    settings = Settings()
    for _ in range(3):
        settings.decide(bearer(b"a-token-nobody-knows"), peer="192.0.2.7")
    settings.decide(BOT, peer="192.0.2.8")
    settings.decide(BOT, peer="192.0.2.9", scopes=(Scope.OPERATE,))
    told = [(r.client, r.number, r.error) for r in settings.refusals.most()]
    assert told == [("192.0.2.7", 3, "unauthorised"), ("192.0.2.9", 1, "forbidden")]


def test_no_address_is_kept_where_that_is_not_wanted() -> None:
    settings = Settings()
    settings.http = dataclasses.replace(settings.http, record_client_addresses=False)
    settings.decide(peer="192.0.2.7")
    assert settings.refusals.most() == []
    assert settings.access.client_of([], "192.0.2.7") is None


def test_the_count_of_refused_clients_is_bounded_and_never_misses_who_is_refused_often() -> None:
    refusals = Refusals()
    for number in range(10 * MOST_CLIENTS):
        refusals.note(f"198.51.100.{number}", "unauthorised", float(number))
        if number % 4 == 0:
            refusals.note("192.0.2.7", "rate_limited", float(number))
    told = refusals.most()
    assert len(told) == TOLD_CLIENTS
    assert told[0].client == "192.0.2.7"
    assert told[0].number >= 10 * MOST_CLIENTS / 4
    assert len(refusals._by_client) == MOST_CLIENTS
