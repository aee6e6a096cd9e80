from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.config import Config, ConfigError, Secret, ServerConfig, diff, load_config

if TYPE_CHECKING:
    from pathlib import Path

HIDDEN = "hunter2-correct-horse"


def test_a_secret_shows_itself_only_when_asked() -> None:
    secret = Secret(HIDDEN)
    assert secret.reveal() == HIDDEN
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>30}", "%s" % secret, f"{secret!r}"]  # noqa: UP031
    assert all("***" in text and HIDDEN not in text for text in shown)


def test_secrets_compare_by_their_text_and_with_secrets_only() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("ä") == Secret("ä")
    assert Secret("a") != "a"
    assert hash(Secret("a")) == hash(Secret("a"))


def test_a_secret_survives_copying_and_refuses_to_be_serialised() -> None:
    secret = Secret(HIDDEN)
    assert copy.copy(secret) is secret
    assert copy.deepcopy(secret) is secret
    with pytest.raises(TypeError, match="not to be pickled"):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        json.dumps({"password": secret})


def with_password(folder: Path, password: str) -> Config:
    (folder / "password").write_text(f"{password}\n")
    conf = folder / "ai-ticket.conf"
    conf.write_text(
        '[[backends.server]]\nname = "primary"\nurl = "http://127.0.0.1:5001"\n'
        f'password_file = "{folder}/password"\n'
    )
    return load_config(conf, {})


def test_no_view_of_the_configuration_shows_a_password(tmp_path: Path) -> None:
    config = with_password(tmp_path, HIDDEN)
    password = config.backends.servers[0].password
    assert password is not None
    assert password.reveal() == HIDDEN
    assert HIDDEN not in repr(config)
    assert HIDDEN not in str(dataclasses.asdict(config))


def test_a_changed_password_is_a_change_that_shows_neither(tmp_path: Path) -> None:
    (change,) = diff(with_password(tmp_path, HIDDEN), with_password(tmp_path, "hunter3"))
    assert change.path == "backends.server[primary].password_file"
    assert change.live
    assert "hunter" not in repr(change) + str(change)
    assert (change.old, change.new) == ('"***"', '"***"')


@pytest.mark.parametrize(
    "line",
    [
        f'password = "{HIDDEN}"',
        f'password_file = "{HIDDEN}"',
        f'password_file = "/{HIDDEN}"',
        f'password_file = ["{HIDDEN}"]',
        f'url = "http://user:{HIDDEN}@127.0.0.1"',
        f'url = "{HIDDEN}"',
        f'url = "http://127.0.0.1/?key={HIDDEN}"',
        f'model = "{HIDDEN}\\n"',
        f'model = {{ password = "{HIDDEN}" }}',
        f"password_file = {HIDDEN}",
        f'password_file = "{HIDDEN}',
    ],
)
def test_no_error_quotes_text_that_may_be_a_password(tmp_path: Path, line: str) -> None:
    conf = tmp_path / "ai-ticket.conf"
    url = "" if line.startswith("url") else 'url = "http://127.0.0.1:5001"\n'
    conf.write_text(f'[[backends.server]]\nname = "primary"\n{url}{line}\n')
    with pytest.raises(ConfigError) as caught:
        load_config(conf, {})
    assert HIDDEN not in str(caught.value)
    assert HIDDEN not in repr(caught.value)


def test_no_error_quotes_a_password_file_that_is_not_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        with_password(tmp_path, f"{HIDDEN}é")
    error: BaseException | None = caught.value
    while error is not None:
        assert HIDDEN not in repr(error)
        error = error.__cause__ or error.__context__


def test_a_password_in_a_variable_is_refused_unquoted() -> None:
    with pytest.raises(ConfigError, match="must not hold a user name") as caught:
        load_config(None, {"KOBOLDCPP_API_URL": f"http://user:{HIDDEN}@127.0.0.1"})
    assert HIDDEN not in str(caught.value)


def test_a_server_shows_that_it_has_a_password() -> None:
    server = ServerConfig(name="a", url="http://a", password=Secret(HIDDEN))
    assert "password=Secret(***)" in repr(server)
