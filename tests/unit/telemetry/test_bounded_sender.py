"""The queue between what tells and what is told: bounded, in order, never in the way."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from ai_ticket_daemon.telemetry.bounded_sender import BoundedSender
from ai_ticket_daemon.telemetry.logs.logs import Tally
from tests.support.lacks import REAL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Receiver:
    """Takes batches once it is let."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.begun = threading.Event()
        self.got: list[list[int]] = []
        self.answers = iter(())  # type: Iterator[bool]
        self.complete = threading.Event()
        self.wanted = 0

    def send(self, batch: Sequence[int]) -> bool:
        self.begun.set()
        self.may.wait(REAL_SECONDS)
        if not next(self.answers, True):
            return False
        self.got.append(list(batch))
        if sum(map(len, self.got)) >= self.wanted:
            self.complete.set()
        return True

    @property
    def items(self) -> list[int]:
        return [item for batch in self.got for item in batch]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.may.set()


def open_sender(receiver: Receiver, lost: Tally, **settings: Any) -> BoundedSender[int]:
    return BoundedSender("test", receiver.send, dropped=lost.add, **{"bound": 4, **settings})


def test_what_does_not_fit_is_dropped_and_counted_and_the_rest_goes_out_in_order(
    receiver: Receiver,
) -> None:
    lost, receiver.wanted = Tally(), 4
    sender = open_sender(receiver, lost)
    for item in range(10):
        sender.put(item)
    assert lost.take() == 6
    receiver.may.set()
    assert receiver.complete.wait(REAL_SECONDS)
    sender.close(REAL_SECONDS)
    assert receiver.items == [0, 1, 2, 3]
    assert lost.take() == 0


def test_items_go_in_batches(receiver: Receiver) -> None:
    lost = Tally()
    sender = open_sender(receiver, lost, bound=100, batch_size=3, delay_seconds=int(REAL_SECONDS))
    for item in range(7):
        sender.put(item)
    receiver.may.set()
    sender.close(REAL_SECONDS)
    assert receiver.got == [[0, 1, 2], [3, 4, 5], [6]]
    assert lost.take() == 0


def test_what_is_not_taken_is_tried_again(receiver: Receiver) -> None:
    lost = Tally()
    receiver.answers = iter([False, False])
    receiver.may.set()
    sender = open_sender(receiver, lost)
    sender.put(1)
    sender.put(2)
    sender.close(REAL_SECONDS)
    assert (receiver.items, lost.take()) == ([1, 2], 0)


def test_an_item_that_can_be_sent_at_once_starts_no_thread_and_overtakes_nothing(
    receiver: Receiver,
) -> None:
    sent: list[int] = []
    room = [True]

    def send_now(item: int) -> bool:
        if room[0]:
            sent.append(item)
        return room[0]

    lost = Tally()
    sender = BoundedSender("test", receiver.send, dropped=lost.add, bound=4, send_now=send_now)
    sender.put(1)
    assert (sent, sender.is_running, sender.is_idle) == ([1], False, True)
    room[0] = False
    sender.put(2)
    assert receiver.begun.wait(REAL_SECONDS)
    room[0] = True
    sender.put(3)
    receiver.may.set()
    sender.close(REAL_SECONDS)
    assert (sent, receiver.items) == ([1], [2, 3])


def test_closing_before_a_stuck_receiver_is_bounded_and_counts_what_is_lost_once(
    receiver: Receiver,
) -> None:
    lost = Tally()
    sender = open_sender(receiver, lost)
    for item in range(3):
        sender.put(item)
    assert receiver.begun.wait(REAL_SECONDS)
    sender.close(0.0)
    assert lost.take() == 3
    sender.put(4)
    assert lost.take() == 1
    receiver.may.set()
    assert sender._thread is not None
    sender._thread.join(REAL_SECONDS)
    assert lost.take() == 0


def test_one_item_may_be_heavier_than_the_bound(receiver: Receiver) -> None:
    lost = Tally()
    sender = BoundedSender("test", receiver.send, dropped=lost.add, bound=4, weigh=lambda n: n)
    sender.put(9)
    sender.put(1)
    assert lost.take() == 1
    receiver.may.set()
    sender.close(REAL_SECONDS)
    assert receiver.items == [9]
