from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.config import ConfigError, diff, load_config, warnings
from ai_ticket_daemon.config.values.schema import Invalid
from ai_ticket_daemon.config.values.tokens import (
    DEFAULT_SCOPES,
    MAX_TOKENS,
    Scope,
    Token,
    Tokens,
    parse_tokens,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ai_ticket_daemon.config import Config

SECRET = "correct-horse-battery"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()


def conf_with(folder: Path, tokens: str | bytes, mode: int = 0o600) -> Path:
    file = folder / "tokens"
    file.write_bytes(tokens if isinstance(tokens, bytes) else tokens.encode())
    file.chmod(mode)
    conf = folder / "ai-ticket.conf"
    conf.write_text(
        f'[auth]\ntokens_file = "{file}"\n'
        '[[backends.server]]\nname = "primary"\nurl = "http://127.0.0.1:5001"\n'
    )
    return conf


def load(folder: Path, tokens: str, mode: int = 0o600) -> Config:
    return load_config(conf_with(folder, tokens, mode), {})


def tokens_of(config: Config) -> Tokens:
    assert config.auth.tokens is not None
    return config.auth.tokens


def test_a_line_is_a_name_and_a_token_and_scopes_if_any() -> None:
    text = f"""
    # who may do what
    bot:{SECRET}
    hashed:sha256:{DIGEST[:-1]}0   submit
    ops:{SECRET}+/~._-== read,operate
    """
    bot, hashed, ops = parse_tokens(text)
    assert bot == Token("bot", bytes.fromhex(DIGEST), DEFAULT_SCOPES)
    assert (hashed.name, hashed.scopes) == ("hashed", frozenset({Scope.SUBMIT}))
    assert (ops.name, ops.scopes) == ("ops", frozenset({Scope.READ, Scope.OPERATE}))


def test_a_token_is_found_by_itself_and_by_nothing_else(tmp_path: Path) -> None:
    tokens = Tokens(
        tmp_path, parse_tokens(f"a:{SECRET}\nb:sha256:{hashlib.sha256(b'x' * 16).hexdigest()}")
    )
    assert (tokens.find(SECRET) or tokens.tokens[1]).name == "a"
    assert (tokens.find("x" * 16) or tokens.tokens[0]).name == "b"
    for wrong in ("", DIGEST, f"sha256:{DIGEST}", SECRET[:-1], SECRET.upper(), "\ud800", "a"):
        assert tokens.find(wrong) is None


def test_two_tokens_may_have_one_name_so_that_one_can_replace_the_other(tmp_path: Path) -> None:
    tokens = tokens_of(load(tmp_path, f"bot:{SECRET}\nbot:{SECRET}-new submit"))
    for secret, scopes in ((SECRET, DEFAULT_SCOPES), (f"{SECRET}-new", {Scope.SUBMIT})):
        found = tokens.find(secret)
        assert found is not None
        assert (found.name, found.scopes) == ("bot", scopes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (SECRET, "must be `name:token` or `name:sha256:DIGEST`, then scopes if any"),
        (f":{SECRET}", "the name must be 1 to 64 letters, digits, dots, dashes and underscores"),
        (f"a b:{SECRET}", "the name must be 1 to 64"),
        (f"{'a' * 65}:{SECRET}", "the name must be 1 to 64"),
        ("bot:", "the token must consist of letters, digits and - . _ ~ + /"),
        ("bot:pass,word-pass,word", "the token must consist of"),
        (f"bot:{SECRET}:submit", "the token must consist of"),
        ("bot:short", "the token must have at least 16 characters; make one with `openssl rand"),
        (f"bot:sha256:{DIGEST}00", "behind `sha256:` there must be 64 hexadecimal digits"),
        ("bot:sha256:", "behind `sha256:` there must be 64 hexadecimal digits"),
        (f"bot:{SECRET} write", "the scopes must be some of submit,read,operate,priority,"),
        (f"bot:{SECRET} read submit", "the scopes must be some of"),
        (f"bot:{SECRET} read,", "the scopes must be some of"),
        (f"bot:{SECRET} # mine", "the scopes must be some of"),
        (f"one:{SECRET}", "is the same token as in line 2"),
        (f"one:sha256:{DIGEST}", "is the same token as in line 2"),
    ],
)
def test_each_mistake_is_told_with_its_line_and_without_the_token(
    line: str, message: str, tmp_path: Path
) -> None:
    conf = conf_with(tmp_path, f"# tokens\nfirst:{SECRET}\n\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(conf, {})
    (problem,) = caught.value.problems
    assert (problem.line, problem.path) == (2, "auth.tokens_file")
    assert problem.message.startswith("line 4 of the file: ")
    assert message in problem.message
    assert "horse" not in str(caught.value)
    assert DIGEST not in str(caught.value)


def test_all_mistakes_are_told_at_once_but_not_without_end() -> None:
    with pytest.raises(Invalid) as caught:
        parse_tokens("a\nb\n")
    assert len(caught.value.mistakes) == 2
    with pytest.raises(Invalid) as caught:
        parse_tokens("a\n" * 100)
    assert len(caught.value.mistakes) == 21
    assert caught.value.mistakes[-1].message == "80 more lines of the file are wrong"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file holds no token"),
        (b"# nothing\n", "the file holds no token"),
        (f"a:{SECRET}\nb:p\u00e4sswort-p\u00e4sswort\n".encode(), "line 2 of the file: holds some"),
        (b"#" * 2_000_000, "must not be longer than 1048576 bytes"),
        (
            "\n".join(f"a:{number:020}" for number in range(MAX_TOKENS + 1)).encode(),
            f"holds {MAX_TOKENS + 1} tokens, more than {MAX_TOKENS}",
        ),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_refused(
    content: bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(conf_with(tmp_path, content), {})
    assert "horse" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    conf = conf_with(tmp_path, "")
    (tmp_path / "tokens").unlink()
    with pytest.raises(ConfigError, match=r"auth.tokens_file: the file cannot be read: No such"):
        load_config(conf, {})


def test_a_changed_file_is_a_change_that_a_reload_applies_and_shows_no_token(
    tmp_path: Path,
) -> None:
    old = load(tmp_path, f"bot:{SECRET}")
    assert diff(old, load(tmp_path, f"bot:{SECRET}\n")) == []
    (change,) = diff(old, load(tmp_path, f"bot:{SECRET}\nbot:{SECRET}-new"))
    assert change.live
    assert str(change) == (
        f'auth.tokens_file: "{tmp_path}/tokens (1 tokens, 1 names)" -> '
        f'"{tmp_path}/tokens (2 tokens, 1 names)"'
    )


def test_no_view_of_the_configuration_shows_a_token(tmp_path: Path) -> None:
    config = load(tmp_path, f"bot:{SECRET}")
    for shown in (repr(config), str(dataclasses.asdict(config)), str(tokens_of(config))):
        assert SECRET not in shown
    assert DIGEST not in repr(config)


def test_a_daemon_open_to_all_is_warned_of_and_one_with_tokens_is_not(tmp_path: Path) -> None:
    assert not any("access token" in line for line in warnings(load(tmp_path, f"bot:{SECRET}")))
    (tmp_path / "ai-ticket.conf").write_text(
        'http.bind = ["0.0.0.0:5000"]\n'
        '[[backends.server]]\nname = "primary"\nurl = "http://127.0.0.1:5001"\n'
    )
    without = load_config(tmp_path / "ai-ticket.conf", {})
    assert any("no access token is asked for" in line for line in warnings(without))


def test_a_file_that_everybody_can_read_is_warned_of(tmp_path: Path) -> None:
    told = f"auth.tokens_file: everybody on this host can read {tmp_path}/tokens; chmod o-r"
    assert told in warnings(load(tmp_path, f"bot:{SECRET}", 0o644))
    assert told not in warnings(load(tmp_path, f"bot:{SECRET}", 0o640))


@pytest.mark.parametrize(
    ("words", "scopes", "best"),
    [
        ("", {"submit", "read"}, 5),
        (" priority", {"submit", "read"}, 0),
        (" priority:3", {"submit", "read"}, 3),
        (" operate,priority:0", {"operate"}, 0),
        (" submit, priority:9", {"submit"}, 9),
    ],
)
def test_a_line_says_which_priority_is_the_best(words: str, scopes: set[str], best: int) -> None:
    (token,) = parse_tokens(f"bot:{'a' * 16}{words}")
    assert ({scope.value for scope in token.scopes}, token.best_priority) == (scopes, best)


@pytest.mark.parametrize(
    "word", ["priority:", "priority:10", "priority:-1", "priority=1", "Priority"]
)
def test_a_priority_that_is_none_is_told(word: str) -> None:
    with pytest.raises(Invalid, match="priority:0 to priority:9"):
        parse_tokens(f"bot:{'a' * 16} {word}")
