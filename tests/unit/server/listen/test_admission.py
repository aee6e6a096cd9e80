from __future__ import annotations

import pytest
import trio
import trio.testing

from ai_ticket_daemon.errors import RequestRefused
from ai_ticket_daemon.server.client_address import counted_address
from ai_ticket_daemon.server.listen.admission import (
    IDLE_SECONDS,
    MAX_WAITING,
    RESERVED,
    Admission,
    Guest,
    Standing,
    is_local,
    longest_idle,
)
from ai_ticket_daemon.server.ports import ConnectionRefusal

FAR = "192.0.2.%d"


class Line:
    def __init__(self, idle_since: float | None) -> None:
        self.idle_since = idle_since
        self.gave_way = False

    def give_way(self) -> None:
        self.idle_since, self.gave_way = None, True


def let_in(admission: Admission, client: str | None, *, local: bool = False) -> Guest:
    guest = admission.admit(client, local=local)
    assert isinstance(guest, Guest)
    return guest


def standings(admission: Admission, count: int, *, local: bool = False) -> list[object]:
    """Return what becomes of so many connections, each from an address of its own."""
    found = [admission.admit(FAR % number, local=local) for number in range(count)]
    return [one.standing if isinstance(one, Guest) else one for one in found]


async def test_places_come_first_then_waiting_then_refusal() -> None:
    assert standings(Admission(3, 0), 3 + MAX_WAITING + 2) == [
        *[Standing.PLACED] * 3,
        *[Standing.WAITING] * MAX_WAITING,
        *[ConnectionRefusal.FULL] * 2,
    ]


async def test_a_few_of_this_host_are_served_beyond_all_others() -> None:
    admission = Admission(3, 0)
    standings(admission, 3 + MAX_WAITING + 2)
    assert standings(admission, RESERVED + 1, local=True) == [
        *[Standing.RESERVED] * RESERVED,
        ConnectionRefusal.FULL,
    ]


async def test_a_silent_one_of_this_host_gives_way_to_the_next_one_of_it() -> None:
    admission = Admission(1, 0)
    let_in(admission, None)
    lines = [Line(0.0 - number) for number in range(RESERVED)]
    for line in lines:
        let_in(admission, None, local=True).line = line
    assert let_in(admission, None, local=True).standing is Standing.RESERVED
    assert [line.gave_way for line in lines] == [False] * (RESERVED - 1) + [True]


async def test_an_address_has_a_bound_of_its_own_which_it_gets_back() -> None:
    admission = Admission(100, 2)
    first = let_in(admission, "a")
    let_in(admission, "a")
    assert admission.admit("a", local=False) is ConnectionRefusal.ADDRESS_FULL
    assert let_in(admission, "b").standing is Standing.PLACED
    admission.leave(first)
    assert let_in(admission, "a").standing is Standing.PLACED
    for _ in range(10):
        assert let_in(admission, None).standing is Standing.PLACED


async def test_what_this_host_has_beyond_its_bound_is_for_probes_only() -> None:
    admission = Admission(100, 1)
    let_in(admission, "127.0.0.1", local=True)
    guest = let_in(admission, "127.0.0.1", local=True)
    assert guest.standing is Standing.RESERVED
    with pytest.raises(RequestRefused, match="as many connections"):
        await admission.place(guest)


async def test_places_are_given_in_the_order_of_coming() -> None:
    admission = Admission(1, 0)
    first, *others = [let_in(admission, FAR % number) for number in range(4)]
    served: list[Guest] = []

    async def wait(guest: Guest) -> None:
        await admission.place(guest)
        served.append(guest)

    async with trio.open_nursery() as nursery:
        for guest in others:
            nursery.start_soon(wait, guest)
        await trio.testing.wait_all_tasks_blocked()
        assert served == []
        for count, guest in enumerate([first, *others[:-1]], start=1):
            admission.leave(guest)
            await trio.testing.wait_all_tasks_blocked()
            assert served == others[:count]


async def test_only_what_is_idle_for_a_while_gives_way_and_the_longest_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    admission = Admission(3, 0)
    busy, lately, long_ago = Line(None), Line(trio.current_time()), Line(trio.current_time() - 5)
    guests = {line: let_in(admission, None) for line in (busy, lately, long_ago)}
    for line, guest in guests.items():
        guest.line = line
    waiting = let_in(admission, "a")
    with trio.move_on_after(IDLE_SECONDS / 2):
        await admission.place(waiting)
    assert (busy.gave_way, lately.gave_way, long_ago.gave_way) == (False, False, True)
    with trio.move_on_after(IDLE_SECONDS * 2):
        await admission.place(waiting)
    assert (busy.gave_way, lately.gave_way) == (False, True)
    admission.leave(guests[lately])
    await admission.place(waiting)
    assert waiting.standing is Standing.PLACED


async def test_one_that_left_while_it_waited_takes_no_place() -> None:
    admission = Admission(1, 0)
    placed, gone, last = [let_in(admission, FAR % number) for number in range(3)]
    admission.leave(gone)
    admission.leave(placed)
    assert last.standing is Standing.PLACED
    admission.leave(last)
    assert not admission.is_full


async def test_at_a_stop_who_waits_is_sent_away() -> None:
    admission = Admission(1, 0)
    let_in(admission, None)
    waiting = let_in(admission, None)
    reserved = let_in(admission, None, local=True)
    admission.close()
    for guest in (waiting, reserved):
        with pytest.raises(RequestRefused, match="are taken"):
            await admission.place(guest)


def test_the_longest_idle_line_is_found() -> None:
    first, second, busy = Line(1.0), Line(2.0), Line(None)
    assert longest_idle([second, None, busy, first], 3.0) is first
    assert longest_idle([second, busy], 1.5) is None
    assert longest_idle([], 1.0) is None


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        (None, True),
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.1", False),
        ("10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("::ffff:192.0.2.1", False),
        ("", False),
    ],
)
def test_this_host_is_told_from_others(peer: str | None, local: bool) -> None:
    assert is_local(peer) is local


def test_ipv6_counts_by_network_and_proxies_do_not_count() -> None:
    from ai_ticket_daemon.config.values.rules import network

    trusted = (network.read("10.0.0.0/8"),)
    assert counted_address("2001:db8::1", trusted) == counted_address("2001:db8::ffff:1", trusted)
    assert counted_address("2001:db8::1", trusted) != counted_address("2001:db8:0:1::1", trusted)
    assert counted_address("::ffff:192.0.2.1", trusted) == "192.0.2.1"
    assert counted_address("192.0.2.1", trusted) == "192.0.2.1"
    assert counted_address("10.1.2.3", trusted) is None
    assert counted_address(None, trusted) is None
