from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.config import ConfigError, load_config
from ai_ticket_daemon.config.read.credentials import resolve_credentials
from ai_ticket_daemon.config.read.document import read_document

if TYPE_CHECKING:
    from pathlib import Path

SERVER = '[[backends.server]]\nname = "primary"\nurl = "http://127.0.0.1:5001"\n'


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "ai-ticket.conf"
    path.write_text(SERVER + 'password_file = "credential:kobold"\n')
    return path


@pytest.mark.parametrize("name", ["kobold", "ai-ticket_kobold"])
def test_a_credential_is_what_systemd_handed_over_alone_or_out_of_the_directory(
    conf: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("correct horse\n")

    config = load_config(conf, {"CREDENTIALS_DIRECTORY": str(tmp_path)})

    (server,) = config.backends.servers
    assert server.password is not None
    assert server.password.reveal() == "correct horse"


def test_one_of_its_own_goes_before_one_out_of_the_directory(conf: Path, tmp_path: Path) -> None:
    (tmp_path / "ai-ticket_kobold").write_text("from the directory\n")
    (tmp_path / "kobold").write_text("of its own\n")

    (server,) = load_config(conf, {"CREDENTIALS_DIRECTORY": str(tmp_path)}).backends.servers

    assert server.password is not None
    assert server.password.reveal() == "of its own"


def test_outside_of_the_service_it_is_what_the_copy_would_be_made_of(
    conf: Path, tmp_path: Path
) -> None:
    (tmp_path / "kobold").write_text("correct horse\n")
    document = read_document(conf)

    assert list(resolve_credentials(document, {}, source=tmp_path)) == []
    assert document.get(("backends", "server", 0, "password_file")) == str(tmp_path / "kobold")


def test_a_missing_credential_is_told_once_with_its_line_and_what_to_do(
    conf: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(conf, {"CREDENTIALS_DIRECTORY": str(tmp_path)})

    (problem,) = caught.value.problems
    assert str(problem).startswith(f"{conf}:4: backends.server[0].password_file: ")
    assert "no credential `kobold`" in problem.message
    assert "/etc/ai-ticket/credentials" in problem.message


@pytest.mark.parametrize("name", ["", "../shadow", "a/b", ".hidden"])
def test_a_name_cannot_lead_elsewhere(tmp_path: Path, name: str) -> None:
    path = tmp_path / "ai-ticket.conf"
    path.write_text(SERVER + f'password_file = "credential:{name}"\n')

    with pytest.raises(ConfigError, match=r"after .credential:. comes a name"):
        load_config(path, {"CREDENTIALS_DIRECTORY": str(tmp_path)})


def test_only_keys_that_name_files_are_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "ai-ticket.conf"
    path.write_text(SERVER + 'model = "credential:model"\n')

    (server,) = load_config(path, {}).backends.servers

    assert server.model == "credential:model"
