"""Who gets a slot, where, and what becomes of it; on fake clients and a clock moved by hand."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from ai_ticket_daemon.backends.failure import BackendError, Failure, HealthEvent, RetryRule
from ai_ticket_daemon.backends.generation import ProbeResult
from ai_ticket_daemon.backends.software import Software
from ai_ticket_daemon.config.backends import BackendRole, BackendsConfig, Failback, ServerConfig
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.pool.backend import Backend, GuestReason, PoolObserver
from ai_ticket_daemon.pool.health import Health, HealthState
from ai_ticket_daemon.pool.health_events import GenerationFailed, ProbeSilent
from ai_ticket_daemon.pool.pool import BackendPool, Slot
from ai_ticket_daemon.testing.fakes import FakeClient

if TYPE_CHECKING:
    from ai_ticket_daemon.pool.failover import ActiveRole

P, S = BackendRole.PRIMARY, BackendRole.STANDBY


def server(name: str, role: BackendRole = P, **more: Any) -> ServerConfig:
    return ServerConfig(name=name, url=f"http://{name}:5001", role=role, **more)


BUSY = BackendError(Failure(ErrorCode.API_RATE_LIMITED, RetryRule.BUSY), "busy")


@dataclass
class House(PoolObserver):
    """A pool, its settings, its time, and what it told."""

    settings: BackendsConfig
    now: float = 0.0
    told: list[str] = field(default_factory=list)
    pool: BackendPool = field(init=False)

    def __post_init__(self) -> None:
        self.pool = BackendPool(
            lambda: self.settings,
            open_client=FakeClient,
            observer=self,
            clock=lambda: self.now,
            jitter=lambda: 1.0,
        )

    def health_changed(self, backend: Backend, before: Health) -> None:
        self.told.append(f"{backend.name} {backend.health.state}")

    def identified(self, backend: Backend) -> None:
        self.told.append(f"{backend.name} runs {backend.health.software.version}")

    def slots_contradicted(self, backend: Backend) -> None:
        self.told.append(f"{backend.name} has fewer slots")

    def restarted(self, backend: Backend) -> None:
        self.told.append(f"{backend.name} restarted")

    def role_changed(
        self, before: ActiveRole, after: ActiveRole, *, from_backend: str, to_backend: str
    ) -> None:
        self.told.append(f"{from_backend} -> {to_backend}: {after.reason}")

    def guest_sent(self, backend: Backend, reason: GuestReason) -> None:
        self.told.append(f"{backend.name} helps out: {reason}")

    def well(self, *names: str, **facts: Any) -> None:
        for name in names:
            self.pool.probed(self.pool[name], ProbeResult("m", **{"busy": False} | facts))

    def look(self, *names: str) -> None:
        for backend in map(self.pool.__getitem__, names):
            self.pool.looked(backend, backend.client)

    def lost(self, name: str) -> None:
        self.pool.saw(self.pool[name], GenerationFailed(HealthEvent.LOST, "it is gone"))

    def take(self) -> Slot:
        slot = self.pool.acquire()
        assert slot is not None
        return slot


def test_what_runs_on_a_server_is_told_once_for_each_change_also_when_it_is_not_usable() -> None:
    made = House(BackendsConfig(servers=(server("a"),)))
    for version, has_model in (("1.76", True), ("1.76", True), ("1.115.1", False)):
        software = Software(version)
        made.pool.probed(made.pool["a"], ProbeResult("m", has_model=has_model, software=software))
    assert [line for line in made.told if "runs" in line] == ["a runs 1.76", "a runs 1.115.1"]


def test_a_server_that_lets_our_requests_wait_again_and_again_is_said_to_have_fewer_slots() -> None:
    made = house(server("a", max_in_flight=4))
    waits = ProbeResult("m", busy=True, waiting=1)
    slot = made.take()
    for _ in range(5):  # Whose request that is, nobody knows.
        made.pool.probed(made.pool["a"], waits)
    second = made.take()
    for result in (waits, waits, replace(waits, waiting=0), waits, waits):
        made.pool.probed(made.pool["a"], result)
    assert "a has fewer slots" not in made.told
    for _ in range(5):
        made.pool.probed(made.pool["a"], waits)
    assert made.told.count("a has fewer slots") == 1
    slot.release()
    second.release()


def house(*servers: ServerConfig) -> House:
    made = House(BackendsConfig(servers=servers))
    made.well(*(s.name for s in servers))
    made.told.clear()
    return made


def test_the_least_loaded_server_of_the_role_that_serves_is_taken() -> None:
    own = house(server("a", max_in_flight=4), server("b", max_in_flight=2), server("s", S))
    names = [own.take().backend.name for _ in range(6)]
    assert names == ["a", "b", "a", "a", "b", "a"]
    assert own.pool.acquire() is None


def test_between_equals_one_that_generates_for_nobody_else_is_taken() -> None:
    own = house(server("a"), server("b"))
    own.pool.probed(own.pool["a"], ProbeResult("m", busy=True))
    assert own.take().backend.name == "b"


def test_when_the_primary_is_lost_the_standby_serves_and_the_reason_is_told() -> None:
    own = house(server("p"), server("s", S))
    own.lost("p")
    assert own.take().backend.name == "s"
    assert own.told == ["p down", "p -> s: primary_unusable"]
    assert own.pool.active.detail == "no primary is usable: p is down, it is gone"


def test_one_of_two_primaries_lost_is_no_reason_for_a_standby() -> None:
    own = house(server("a"), server("b"), server("s", S))
    own.lost("a")
    assert own.take().backend.name == "b"
    assert own.pool.acquire() is None


def test_an_event_that_failed_on_the_primary_is_tried_on_the_standby_once() -> None:
    own = house(server("p"), server("s", S))
    slot = own.pool.exchange(own.take(), {"p"})
    assert slot is not None
    assert (slot.backend.name, slot.guest) == ("s", GuestReason.RETRY)
    assert own.pool["p"].in_flight == 0
    assert own.told == ["s helps out: retry"]
    assert own.pool["s"].guests[GuestReason.RETRY] == 1
    slot.release()
    assert own.pool["s"].guests[GuestReason.RETRY] == 0


def test_an_event_that_failed_everywhere_keeps_the_slot_it_got() -> None:
    own = house(server("p"), server("s", S))
    slot = own.take()
    assert own.pool.exchange(slot, {"p", "s"}) is slot
    assert not own.pool.has_other({"p", "s"})
    assert own.pool.has_other({"p"})


def test_another_primary_comes_before_the_standby() -> None:
    own = house(server("a"), server("b"), server("s", S))
    slot = own.pool.exchange(own.take(), {"a"})
    assert slot is not None
    assert slot.backend.name == "b"


def test_an_event_waits_for_the_other_server_rather_than_fail_again_where_it_did() -> None:
    own = house(server("p"), server("s", S))
    first = own.pool.exchange(own.take(), {"p"})
    assert first is not None
    slot = own.take()
    assert own.pool.exchange(slot, {"p"}) is None
    slot.give_back()
    own.pool.saw(own.pool["s"], GenerationFailed(HealthEvent.LOST, "it is gone"))
    slot = own.take()
    assert own.pool.exchange(slot, {"p"}) is slot, "there is no other any more"


def test_a_busy_server_is_left_alone_for_a_while_that_grows() -> None:
    own = house(server("p"))
    pauses = []
    for _ in range(6):
        slot = own.take()
        own.pool.attempt_failed(slot, "e", BUSY)
        slot.release()
        assert own.pool.acquire() is None
        assert own.pool.usable
        pauses.append(own.pool.pauses.left_seconds(slot.backend))
        assert own.pool.pauses.next_end_at is not None
        own.now = own.pool.pauses.next_end_at
        own.pool.pauses.end_due()
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 2.0, 2.0])
    slot = own.take()
    own.pool.attempt_succeeded(slot)
    slot.release()
    own.pool.attempt_failed(own.take(), "e", BUSY)
    assert own.pool.pauses.left_seconds(slot.backend) == pytest.approx(0.2)


def test_a_server_that_stops_after_its_prompt_is_left_alone_until_it_has_read_it() -> None:
    own = house(server("p"))
    backend = own.pool["p"]
    for ends in ("a probe", "it stops", "its time"):
        own.well("p", busy=True)
        slot = own.take()
        own.pool.reads_on("p", 42.0)
        slot.release()
        assert own.pool.acquire() is None
        assert (backend.reason, backend.health.usable) == ("stops after the prompt is read", True)
        own.well("p", busy=True)
        assert own.pool.acquire() is None
        assert own.pool.pauses.next_end_at == own.now + 42.0
        if ends == "a probe":
            own.well("p", busy=False)
        elif ends == "it stops":
            own.pool.reads_no_more("p")
        else:
            own.now += 42.0
            own.pool.pauses.end_due()
        own.take().release()
        assert backend.reason in ("answers", "a generation runs")
    own.pool.reads_on("unknown", 1.0)
    own.pool.reads_no_more("unknown")


def test_a_server_that_is_left_alone_for_another_reason_is_not_used_for_having_stopped() -> None:
    own = house(server("p"))
    own.pool.attempt_failed(own.take(), "e", BUSY)
    own.pool.reads_no_more("p")
    assert own.pool.acquire() is None


@pytest.mark.parametrize("spill", [False, True])
def test_the_standby_helps_a_busy_primary_only_if_the_conf_file_says_so(spill: bool) -> None:
    own = house(server("p"), server("s", S))
    own.settings = replace(own.settings, spill_to_standby=spill)
    own.pool.attempt_failed(own.take(), "e", BUSY)
    slot = own.pool.acquire()
    if spill:
        assert slot is not None
        assert own.told == ["s helps out: spill"]
    else:
        assert slot is None
        assert own.told == []


def test_a_primary_without_a_free_slot_is_not_busy_with_others() -> None:
    own = house(server("p"), server("s", S))
    own.settings = replace(own.settings, spill_to_standby=True)
    own.take()
    assert own.pool.acquire() is None


def test_only_the_pinned_server_serves_usable_or_not() -> None:
    own = house(server("p"), server("s", S), server("s2", S))
    own.pool.pin("s2")
    assert own.take().backend.name == "s2"
    assert own.pool.acquire() is None
    own.lost("s2")
    assert not own.pool.usable
    assert own.told == ["p -> s2: pinned", "s2 down"]
    own.pool.unpin()
    assert own.take().backend.name == "s"


def test_a_pin_goes_with_its_server() -> None:
    own = house(server("p"), server("s", S))
    own.pool.pin("s")
    own.pool.apply([server("p")])
    assert own.pool.active.pinned is None
    assert own.take().backend.name == "p"


def test_a_failback_is_done_when_asked_for_and_possible() -> None:
    own = house(server("p"), server("s", S))
    own.settings = replace(own.settings, failback=Failback.MANUAL)
    own.lost("p")
    assert not own.pool.failback()
    own.well("p", "p")
    own.now = 9999
    own.well("p")
    assert own.pool.active.role is S
    assert own.pool.failback()
    assert own.take().backend.name == "p"


def test_a_reload_keeps_health_slots_and_running_generations() -> None:
    own = house(server("p"), server("s", S))
    own.lost("p")
    slot = own.take()
    before = own.pool["p"].health
    own.pool.apply([server("p", idle_timeout_seconds=9), server("s", S, max_in_flight=2)])
    assert own.pool["p"].health is before
    assert own.pool["s"].in_flight == 1
    assert own.pool.acquire() is None, "the new client has not looked there yet"
    own.pool.looked(own.pool["s"], slot.client)
    assert own.pool.acquire() is None, "only the old one has"
    own.look("s")
    second = own.take()
    assert own.pool.acquire() is None
    assert second.client is not slot.client
    assert own.pool.take_idle_clients() != [slot.client]
    assert own.pool.take_idle_clients() == []
    slot.release()
    assert own.pool.take_idle_clients() == [slot.client]


def test_another_address_is_another_server() -> None:
    own = house(server("p"))
    own.pool.apply([replace(server("p"), url="http://elsewhere:1")])
    assert own.pool["p"].health.state is HealthState.UNKNOWN


def test_a_server_that_comes_back_from_a_setback_gets_one_event_at_a_time() -> None:
    own = house(server("p", max_in_flight=4))
    own.pool.saw(own.pool["p"], GenerationFailed(HealthEvent.STALLED, "no token"))
    assert own.pool.acquire() is None
    own.now = 60
    own.well("p")
    slot = own.take()
    assert own.pool.acquire() is None
    own.pool.attempt_succeeded(slot)
    assert own.pool.acquire() is not None


def test_what_runs_on_a_silent_server_is_looked_at_with_every_client_in_use() -> None:
    own = house(server("p", max_in_flight=2))
    slots = [own.take()]
    own.pool.apply([server("p", max_in_flight=3)])
    own.look("p")
    slots.append(own.take())
    own.pool.saw(own.pool["p"], ProbeSilent("no answer"))
    clients = [slot.client for slot in slots]
    assert [c.doubts for c in clients if isinstance(c, FakeClient)] == [1, 1]


def test_a_standby_that_is_unlike_the_primary_is_not_used() -> None:
    own = house(server("p"), server("s", S))
    own.pool.probed(own.pool["s"], ProbeResult("another", busy=False))
    assert own.pool["s"].health.state is HealthState.WRONG_MODEL
    own.settings = replace(own.settings, match_primary=False)
    own.pool.probed(own.pool["s"], ProbeResult("another", busy=False))
    assert own.pool["s"].health.usable


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"uptime_seconds": 1}, ["p restarted"]),
        ({"has_model": False}, ["p wrong_model"]),
        (
            {"has_model": False, "loads_on_request": True, "uptime_seconds": 1},
            ["p unloaded"],
        ),
    ],
)
def test_a_server_without_the_process_or_the_model_of_before_knows_no_prompt(
    facts: dict[str, Any], told: list[str]
) -> None:
    own = house(server("p"))
    software = Software("1.115", ("router",))
    own.well("p", uptime_seconds=50, software=software)
    slot = own.take()
    slot.read(b"beginning")
    slot.release()
    assert own.pool["p"].read_last
    own.told.clear()
    own.well("p", software=software, **facts)
    assert own.told == told
    assert not own.pool["p"].read_last


def test_a_restart_is_told() -> None:
    own = house(server("p"))
    own.well("p", uptime_seconds=50)
    own.well("p", uptime_seconds=1)
    assert own.told == ["p restarted"]


def test_a_request_that_was_at_fault_says_nothing_of_the_server() -> None:
    own = house(server("p"))
    mistake = BackendError(Failure(ErrorCode.API_CLIENT_ERROR, RetryRule.FINAL), "bad")
    before = own.pool["p"].health
    own.pool.attempt_failed(own.take(), "e", mistake)
    assert own.pool["p"].health is before
    died = BackendError(
        Failure(ErrorCode.API_CONNECTION_ERROR, RetryRule.OVER_ONCE, HealthEvent.LOST), "died"
    )
    own.pool.attempt_failed(Slot(own.pool["p"], None, lambda _: None), "e", died)
    assert own.pool["p"].health.state is HealthState.DOWN
