from __future__ import annotations

import time

import pytest

from ai_ticket_daemon.telemetry.redact import redact, redact_text


@pytest.mark.parametrize(
    "secret",
    [
        "hunter2-and-more",
        "sk-live-0123456789abcdef",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "AKIAIOSFODNN7EXAMPLE",
        "jane.doe@example.org",
        "4111 1111 1111 1111",
        "+49 151 23456789",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ],
)
@pytest.mark.parametrize(
    "sentence",
    ["my password: {}", 'say "api_key"="{}" twice', "token is {}, thanks", "PASSWORD={}\nnext"],
)
def test_what_is_called_a_secret_goes_whatever_it_looks_like(secret: str, sentence: str) -> None:
    kept = redact_text(sentence.format(secret))
    assert secret.split(maxsplit=1)[0] not in kept
    assert "[redacted" in kept


@pytest.mark.parametrize(
    "text",
    [
        "curl -H 'Authorization: Bearer abcdefgh12345678'",
        "https://user:s3cretpw@host.example/path",
        "write to jane.doe@example.org please",
        "card 4111-1111-1111-1111",
        "call +49 151 23456789",
        "key AKIAIOSFODNN7EXAMPLE there",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKC\n-----END RSA PRIVATE KEY-----",
        "id eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    ],
)
def test_what_looks_like_a_secret_goes_wherever_it_stands(text: str) -> None:
    kept = redact_text(text)
    for gone in ("abcdefgh", "s3cretpw", "jane", "4111", "23456789", "AKIA", "MIIE", "eyJ"):
        assert gone not in kept


@pytest.mark.parametrize(
    "text",
    [
        "The printer on floor 3 prints nothing but stripes since 2026-11-25.",
        "Error 0x8007000e in module render.c:1234, see ticket 48213.",
        "He forgot his password and asks for a new one.",
        "http://printer.example:9100/status",
    ],
)
def test_a_ticket_stays_readable(text: str) -> None:
    assert redact_text(text) == text


def test_values_are_redacted_by_their_key_and_by_their_looks() -> None:
    assert redact(
        {"api_key": ["a", "b"], "note": "mail a@b.example", "n": 1, "list": [None, True, "ok"]}
    ) == {
        "api_key": "[redacted secret]",
        "note": "mail [redacted address]",
        "n": 1,
        "list": [None, True, "ok"],
    }


@pytest.mark.parametrize("piece", ["a", "1 ", "password", "a.b-", "-----BEGIN PRIVATE KEY", "a@"])
def test_no_text_makes_it_take_long(piece: str) -> None:
    began = time.process_time()
    redact_text(piece * (200_000 // len(piece)))
    assert time.process_time() - began < 2


def test_how_many_tokens_are_wanted_is_no_secret() -> None:
    said = {"max_tokens": 4, "tokens": "abc", "auth_token": 7}
    assert redact(said) == {
        "max_tokens": 4,
        "tokens": "[redacted secret]",
        "auth_token": "[redacted secret]",
    }


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("pw: hunter2 please", "[redacted secret] please"),
        ("PW=hunter2", "[redacted secret]"),
        ("Kennwort: Sommer2026!, danke", "[redacted secret], danke"),
        ("mein Passwort lautet Sommer2026", "mein [redacted secret]"),
        ("pin: 0815", "[redacted secret]"),
        ("mot de passe : soleil", "[redacted secret]"),
        ("contraseña: hola", "[redacted secret]"),
        ('password: "correct horse battery staple", he says', "[redacted secret], he says"),
        ("secret = 'two words' there", "[redacted secret] there"),
        (r'token="a \"b\" c" there', "[redacted secret] there"),
        ("Passwort: „zwei Wörter“ hier", "[redacted secret] hier"),
        ('password: "never closed', "[redacted secret]"),
        ("api_key => abcd", "[redacted secret]"),
    ],
)
def test_a_secret_goes_to_its_end_in_whatever_words_it_is_told(text: str, rest: str) -> None:
    assert redact_text(text) == rest


@pytest.mark.parametrize(
    "text", ["Own: yes, spin: 3, shipping is late", "The pwn file, see pinning: no"]
)
def test_a_word_that_only_holds_a_short_one_stays(text: str) -> None:
    assert redact_text(text) == text


@pytest.mark.parametrize("at", [0, 16_000, 16_380, 20_000, 40_000])
def test_a_secret_goes_wherever_a_long_text_is_parted(at: int) -> None:
    text = "word " * (at // 5) + "password: hunter2 " + "word " * 10_000
    kept = redact_text(text)
    assert "hunter2" not in kept
    assert len(kept) == len(text) - len("password: hunter2") + len("[redacted secret]")
    key = "-----BEGIN PRIVATE KEY-----" + "M" * 9_000 + "-----END PRIVATE KEY-----"
    assert "MM" not in redact_text("word " * (at // 5) + key + " word" * 5_000)


def test_what_nests_without_end_is_cut_off() -> None:
    value: object = "pw: hunter2"
    for _ in range(5000):
        value = [value]
    assert "hunter2" not in str(redact(value))
