"""What a server is known to have read last, slot by slot."""

from __future__ import annotations

from ai_ticket_daemon.config.backends import ServerConfig
from ai_ticket_daemon.pool.backend import Backend, Slot
from ai_ticket_daemon.pool.health import Health
from ai_ticket_daemon.testing.fakes import FakeClient


def backend(slots: int = 1) -> Backend:
    config = ServerConfig(name="p", url="http://p:5001", max_in_flight=slots)
    return Backend(config, FakeClient(config), Health())


def slot(server: Backend) -> Slot:
    return Slot(server, None, lambda _: None)


def read(server: Backend, beginning: bytes | None) -> bool:
    """Have a prompt read from its beginning to the end of its turn."""
    taken = slot(server)
    was_read = taken.read(beginning)
    taken.release()
    return was_read


def test_a_server_with_one_slot_knows_the_prompt_before_and_no_other() -> None:
    server = backend()
    assert [read(server, b) for b in (b"a", b"a", b"b", b"a", b"a")] == [
        False,
        True,
        False,
        False,
        True,
    ]
    assert not read(server, None)
    assert not read(server, b"a")


def test_a_prompt_that_is_being_read_is_known_by_no_free_slot() -> None:
    server = backend(slots=2)
    read(server, b"a")
    busy = slot(server)
    assert busy.read(b"a")
    assert list(server.read_last) == []
    busy.release()
    assert list(server.read_last) == [b"a"]


def test_a_prompt_goes_to_the_free_slot_that_knows_it_or_to_the_one_unused_longest() -> None:
    server = backend(slots=2)
    one, other = slot(server), slot(server)
    one.read(b"a")
    other.read(b"b")
    one.release()
    other.release()
    assert read(server, b"a")
    assert list(server.read_last) == [b"b", b"a"]
    read(server, b"c")
    assert list(server.read_last) == [b"a", b"c"]


def test_a_slot_that_was_taken_for_no_prompt_yet_keeps_what_it_has_read() -> None:
    server = backend(slots=2)
    one, other = slot(server), slot(server)
    one.read(b"a")
    other.read(b"b")
    one.release()
    next_one = slot(server)  # its event is being claimed
    other.release()
    assert list(server.read_last) == [b"a", b"b"]
    assert next_one.read(b"a")
    assert list(server.read_last) == [b"b"]


def test_a_slot_that_was_given_back_unused_has_read_nothing() -> None:
    server = backend()
    read(server, b"a")
    slot(server).give_back()
    assert list(server.read_last) == [b"a"]


def test_of_a_prompt_whose_attempt_failed_nothing_is_known() -> None:
    server = backend()
    failed = slot(server)
    failed.read(b"a")
    failed.read(None)
    failed.release()
    assert not read(server, b"a")
