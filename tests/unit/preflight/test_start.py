"""The check finds what a start would fail at, and disturbs nobody."""

from __future__ import annotations

import os
import pwd
import socket
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from ai_ticket_daemon.config.open_sockets import HandedOver
from ai_ticket_daemon.config.read.load import load_config
from ai_ticket_daemon.config.values.addresses import TcpBind, parse_bind
from ai_ticket_daemon.preflight import start
from ai_ticket_daemon.preflight.finding import Finding, Weight
from ai_ticket_daemon.preflight.service import Instance, Service
from ai_ticket_daemon.preflight.start import look
from ai_ticket_daemon.preflight.taken import Holder, holder_of, runs_daemon

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NOBODY = "nobody"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="another user's rights take root")


class House:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "ai-ticket.conf"
        self.store = folder / "store" / "events.db"

    def look(
        self,
        *lines: str,
        service: Service | None = None,
        environ: Mapping[str, str] | None = None,
        http: str = "127.0.0.1:0",
        metrics: str = "127.0.0.1:0",
    ) -> list[Finding]:
        settings = (
            f'store.url = "sqlite:///{self.store}"',
            f'http.bind = ["{http}"]',
            f'metrics.bind = "{metrics}"',
            *lines,
            '[[backends.server]]\nname = "primary"\nurl = "http://127.0.0.1:5001"\n',
        )
        self.conf.write_text("\n".join(settings))
        self.conf.chmod(0o644)
        environ = environ or {}
        return look(load_config(self.conf, environ), self.conf, environ, service)


def problems(found: list[Finding]) -> list[str]:
    return [finding.text for finding in found if finding.weight is Weight.PROBLEM]


def told(found: list[Finding], weight: Weight) -> list[str]:
    return [finding.text for finding in found if finding.weight is weight]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture
def open_house(tmp_path_factory: pytest.TempPathFactory) -> House:
    """A folder that every user may look into."""
    folder = tmp_path_factory.mktemp("open")
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    return House(folder)


def test_a_configuration_with_which_a_start_succeeds_has_no_problem(house: House) -> None:
    assert problems(house.look()) == []
    assert not house.store.parent.exists()  # nothing was made


def test_an_address_that_another_program_holds_is_a_problem_with_its_holder(house: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        [http] = problems(house.look(http=address))
        [metrics] = problems(house.look(metrics=address))

    who = f"is taken by the process {os.getpid()}, "
    assert http.startswith(f"http.bind: {address} {who}")
    assert metrics.startswith(f"metrics.bind: {address} {who}")


def test_an_address_that_our_daemon_holds_is_no_problem(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Holder, "is_daemon", property(lambda _: True))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = house.look(http=f"127.0.0.1:{taken.getsockname()[1]}")

    assert problems(found) == []
    assert "is held by a daemon that runs" in "".join(told(found, Weight.NOTE))


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        ("/opt/ai-ticket/venv/bin/ai-ticket-daemon --config a", True),
        ("/opt/v/bin/python /opt/v/bin/ai-ticket-daemon --config a", True),
        ("/usr/bin/python3 -sE -X dev -m ai_ticket_daemon --demo", True),
        ("/root/ai-ticket-daemon/.venv/bin/python -m pytest /root/ai-ticket-daemon", False),
        ("/root/ai-ticket-daemon/.venv/bin/python -m ai_ticket_daemon.testing.kobold", False),
        ("tail -f /var/log/ai-ticket-daemon.log", False),
        ("nginx: worker", False),
        ("", False),
    ],
)
def test_a_daemon_is_known_by_what_runs_and_not_by_the_folder_it_is_in(
    command: str, ours: bool
) -> None:
    assert runs_daemon(command.split(" ")) is ours


def test_a_wildcard_is_seen_to_take_every_address() -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        found = holder_of(TcpBind("127.0.0.1", port))

    assert found == Holder(os.getpid())
    assert holder_of(TcpBind("127.0.0.1", port)) is None


def test_an_address_of_another_host_and_a_path_without_a_directory_are_problems(
    house: House, tmp_path: Path
) -> None:
    [elsewhere] = problems(house.look(http="203.0.113.9:5000"))
    [nowhere] = problems(house.look(http=f"unix:{tmp_path}/none/http"))
    (tmp_path / "file").touch()
    [no_socket] = problems(house.look(http=f"unix:{tmp_path}/file"))

    assert "has to be an address of this host" in elsewhere
    assert nowhere.endswith(f"there is no directory {tmp_path}/none")
    assert no_socket.endswith("a file of this name that is not a socket")


def test_sockets_of_the_socket_unit_are_not_opened_and_judged_instead_of_the_file(
    house: House,
) -> None:
    held = HandedOver((parse_bind("0.0.0.0:5000"),))
    service = Service(user="", handed_over=held, writable=(Path("/"),))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = house.look(http=f"127.0.0.1:{taken.getsockname()[1]}", service=service)

    assert problems(found) == []
    assert told(found, Weight.WARNING)[0].startswith(
        "http.bind is not in force: ai-ticket.socket holds 0.0.0.0:5000"
    )


def test_a_metrics_page_that_others_reach_is_named(house: House) -> None:
    notes = told(house.look(metrics="0.0.0.0:0"), Weight.NOTE)

    assert any("the page only tells, and takes no work" in note for note in notes)


def test_a_store_of_a_newer_version_or_of_another_program_is_a_problem(house: House) -> None:
    house.store.parent.mkdir()
    file = sqlite3.connect(house.store, isolation_level=None)
    file.execute("CREATE TABLE theirs (x)")
    assert "a database of another program" in problems(house.look())[0]

    file.execute("PRAGMA user_version = 99")
    file.close()
    assert "the store was written by a newer version" in problems(house.look())[0]

    house.store.write_bytes(b"no database at all, but long enough to be one" * 100)
    assert str(house.store) in problems(house.look())[0]


def test_a_store_that_another_program_has_locked_is_a_problem(house: House) -> None:
    house.store.parent.mkdir()
    # In a process of its own: a process never meets its own locks.
    script = (
        "import sqlite3, sys\n"
        "file = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "file.execute('BEGIN IMMEDIATE')\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, house.store],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        [locked] = problems(house.look())
        other.kill()

    assert "is locked by another program" in locked


@as_root
def test_files_and_folders_are_seen_through_the_eyes_of_the_service(open_house: House) -> None:
    house = open_house
    tokens = house.folder / "tokens"
    tokens.write_text("alice:0123456789abcdef0123456789abcdef\n")
    tokens.chmod(0o600)
    house.store.parent.mkdir(mode=0o700)
    service = Service(user=NOBODY, writable=(house.folder,))

    found = problems(house.look(f'auth.tokens_file = "{tokens}"', service=service))

    assert found == [
        (
            f"auth.tokens_file: the user {NOBODY} cannot read {tokens}: Permission denied; make it "
            'readable for that user, or a credential ("credential:NAME")'
        ),
        f"store.url: {house.store.parent} may not be written to",
    ]
    uid = pwd.getpwnam(NOBODY).pw_uid
    os.chown(tokens, uid, -1)
    os.chown(house.store.parent, uid, -1)
    assert problems(house.look(f'auth.tokens_file = "{tokens}"', service=service)) == []
    assert os.geteuid() == 0


def test_a_store_where_the_sandbox_lets_nobody_write_is_a_problem(house: House) -> None:
    service = Service(user="root", writable=(Path("/var/lib/ai-ticket"),))

    [found] = problems(house.look(service=service)) if os.geteuid() == 0 else [""]

    assert not found or "only below /var/lib/ai-ticket" in found


def test_a_certificate_that_ends_soon_deserves_a_word(house: House) -> None:
    leaf = trustme.CA().issue_cert("x", not_after=datetime.now(UTC) + timedelta(days=3))
    certificate, key = house.folder / "c.pem", house.folder / "k.pem"
    certificate.write_bytes(leaf.cert_chain_pems[0].bytes())
    key.write_bytes(leaf.private_key_pem.bytes())

    found = house.look(f'http.tls_cert = "{certificate}"', f'http.tls_key = "{key}"')

    assert any("the certificate expires in 2 days" in text for text in told(found, Weight.WARNING))


def test_a_variable_that_the_service_does_not_have_is_told(house: House) -> None:
    service = Service(user="root", environment={"LOG_LEVEL": "debug"}, writable=(Path("/"),))

    found = house.look(service=service, environ={"PORT": "0"})

    warned = told(found, Weight.WARNING)
    assert any("PORT is set here and not for the service" in text for text in warned)
    assert any("LOG_LEVEL is not set here as it is for the service" in text for text in warned)


def test_the_metrics_page_of_an_instance_is_looked_at_too(house: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        instance = Instance("ai-ticket@2.service", metrics_port=port)
        service = Service(user="root", writable=(Path("/"),), instances=(instance,))

        [told] = problems(house.look(service=service))

    assert told.startswith(f"metrics.bind of ai-ticket@2.service: 127.0.0.1:{port} is taken by ")


@as_root
def test_the_copies_of_running_daemons_are_compared(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[tuple[str, str]], tuple[str, ...]]] = []

    def compare(named: Iterable[tuple[str, str]], running: tuple[str, ...]) -> list[Finding]:
        asked.append((list(named), running))
        return [Finding(Weight.WARNING, "an older copy")]

    monkeypatch.setattr(start, "stale_copies", compare)
    tokens = house.folder / "tokens"
    tokens.write_text("bot:" + "a" * 40)
    instance = Instance("ai-ticket@2.service", main_pid=2)
    service = Service(user="root", main_pid=1, writable=(Path("/"),), instances=(instance,))

    found = house.look(f'auth.tokens_file = "{tokens}"', service=service)

    assert "an older copy" in told(found, Weight.WARNING)
    running = ("ai-ticket.service", "ai-ticket@2.service")
    assert asked == [([("auth.tokens_file", str(tokens))], running)]
