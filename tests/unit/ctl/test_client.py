"""What the command says of a daemon that does not answer as it should."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.ctl.cli import parser
from ai_ticket_daemon.ctl.client import Client, Refused, Unreachable
from ai_ticket_daemon.ctl.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def answering(answer: bytes | None) -> Iterator[Client]:
    """A socket that answers so, whatever it is asked, and closes; None: says nothing at all."""
    folder = Path(tempfile.mkdtemp(prefix="ait"))
    stop = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                if answer is None:
                    stop.wait(10)
                else:
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):  # the rest of what was asked
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield Client(folder / "s", 0.3)
        stop.set()
        thread.join()
    shutil.rmtree(folder)


def http(status: str, body: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return (head + body).encode()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "does not answer in time"),
        (b"", "broke off"),
        (b"nonsense\r\n\r\n", "broke off"),
        (http("200 OK", '{"a": 1}')[:-4], "broke off"),
        (http("200 OK", "<h1>no"), "is not this daemon"),
    ],
)
def test_an_answer_that_is_none_is_told_in_clear_words(answer: bytes | None, said: str) -> None:
    with answering(answer) as client, pytest.raises(Unreachable, match=said):
        client.look("status")


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (http("404 X", '{"error": "event_not_found", "message": "No."}'), "event_not_found", "No."),
        (http("500 X", "oh dear"), "internal_error", "status 500"),
        (http("500 X", "[]"), "internal_error", "status 500"),
    ],
)
def test_an_error_comes_out_with_its_code(answer: bytes, code: str, said: str) -> None:
    with answering(answer) as client, pytest.raises(Refused, match=said) as refused:
        client.change("pause")
    assert refused.value.code == code


def test_what_goes_wrong_here_is_not_said_of_the_daemon() -> None:
    """A full disk, for one, while a backup is written."""
    with (
        answering(http("200 OK", "{}")) as client,
        pytest.raises(OSError, match="No space left"),
        client.open("GET", "/"),
    ):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("at_the_view_socket", "said"),
    [
        (FileNotFoundError(), "may not be opened by this user"),
        (PermissionError(), "may not be opened by this user"),
        (ConnectionRefusedError(), "the daemon has died"),
        (TimeoutError(), "does not answer in time"),
    ],
)
def test_who_may_only_look_is_told_what_is_wrong_with_the_socket_that_they_may_open(
    monkeypatch: pytest.MonkeyPatch, at_the_view_socket: OSError, said: str
) -> None:
    tried = []

    def connected(path: Path) -> socket.socket:
        tried.append(path.name)
        raise PermissionError if path.name == "control" else at_the_view_socket

    monkeypatch.setattr("ai_ticket_daemon.ctl.client._connected", connected)
    client = Client(Path("/nowhere/control"), 1, view=Path("/nowhere/view"))
    with pytest.raises(Unreachable, match=said):
        client.look("status")
    assert tried == ["control", "view"]


def test_a_socket_that_was_named_is_not_replaced_by_another_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def connected(path: Path) -> socket.socket:
        assert path == Path("/named")
        raise PermissionError

    monkeypatch.setattr("ai_ticket_daemon.ctl.client._connected", connected)
    monkeypatch.setenv("AI_TICKET_SOCKET", "/named")
    session = Session(parser().parse_args(["status"]))
    with pytest.raises(Unreachable, match="use sudo, or join the group"):
        session.client.look("status")
