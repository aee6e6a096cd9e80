"""What holds of health and switching together, whatever the servers do and whenever."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ai_ticket_daemon.backends.failure import HealthEvent
from ai_ticket_daemon.backends.generation import ProbeResult
from ai_ticket_daemon.backends.software import Software
from ai_ticket_daemon.config.backends import BackendRole, BackendsConfig, Failback, ServerConfig
from ai_ticket_daemon.pool.backend import PoolObserver
from ai_ticket_daemon.pool.failover import (
    LONGEST_HOLD_SECONDS,
    MAX_SWITCHES,
    WINDOW_SECONDS,
    ActiveRole,
    hold_down_seconds,
)
from ai_ticket_daemon.pool.health import Health, HealthState
from ai_ticket_daemon.pool.health_events import (
    GenerationFailed,
    GenerationSucceeded,
    HealthInput,
    LoadBegun,
    ProbeFailed,
    ProbeNotYet,
    ProbePutOff,
    ProbeSilent,
)
from ai_ticket_daemon.pool.identity import Expected
from ai_ticket_daemon.pool.pool import BackendPool
from ai_ticket_daemon.testing.fakes import FakeClient

if TYPE_CHECKING:
    from ai_ticket_daemon.pool.backend import Backend, GuestReason

P, S = BackendRole.PRIMARY, BackendRole.STANDBY
SERVERS = (
    ServerConfig(name="p1", url="http://127.0.0.1:1"),
    ServerConfig(name="p2", url="http://127.0.0.1:2"),
    ServerConfig(name="s1", url="http://127.0.0.1:3", role=S),
)
ROUTER = Software("1.115", ("admin", "router"))
PROBES = [
    ProbeResult("m", 2048, busy=busy, uptime_seconds=uptime, generations=generations)
    for busy in (False, True)
    for uptime, generations in ((5.0, 3), (1.0, 0))
] + [
    ProbeResult("other", 2048),
    ProbeResult(None, has_model=False),
    ProbeResult(None, 9, None),
    ProbeResult("m", 2048, uptime_seconds=3.0, software=ROUTER),
    ProbeResult(None, has_model=False, loads_on_request=True, uptime_seconds=1.0, software=ROUTER),
]
HEALTH_EVENTS: list[HealthInput] = [
    ProbeFailed("refused"),
    ProbeNotYet("answered 503"),
    ProbeNotYet("answered 502", router=True, load_seconds=60.0),
    LoadBegun(60.0),
    GenerationFailed(HealthEvent.RELOADING, "cut"),
    ProbePutOff("answered 429", Expected()),
    ProbeSilent("silent"),
    GenerationFailed(HealthEvent.LOST, "lost"),
    GenerationFailed(HealthEvent.CREDENTIAL, "401"),
    GenerationFailed(HealthEvent.NO_MODEL, "empty"),
    GenerationFailed(HealthEvent.STALLED, "stalled"),
    GenerationFailed(HealthEvent.FAILED, "500", "a"),
    GenerationFailed(HealthEvent.FAILED, "500", "b"),
    GenerationFailed(HealthEvent.FAILED, "500", "c"),
    GenerationSucceeded(),
]
steps = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.05, 0.5, 2.0, 29.0, 31.0, 700.0]),
        st.sampled_from([server.name for server in SERVERS]),
        st.sampled_from([*PROBES, *HEALTH_EVENTS]) | st.sampled_from(PROBES[:1]),
    ),
    max_size=120,
)
rules = st.builds(
    BackendsConfig,
    servers=st.just(SERVERS),
    failback=st.sampled_from(Failback),
    failback_after_seconds=st.sampled_from([0.0, 1.0, 30.0]),
    rise=st.integers(1, 3),
    fall=st.integers(1, 3),
)


@dataclass
class Witness(PoolObserver):
    """Writes down each switch, and looks at the pool after each step."""

    now: float = 0.0
    switches: list[float] = field(default_factory=list)

    def health_changed(self, backend: Backend, before: Health) -> None:
        assert backend.health.reason
        assert backend.health.since == self.now

    def restarted(self, backend: Backend) -> None:
        assert backend.health.setbacks == 0

    def role_changed(
        self, before: ActiveRole, after: ActiveRole, *, from_backend: str, to_backend: str
    ) -> None:
        assert after.detail
        assert from_backend != to_backend
        self.switches.append(self.now)

    def guest_sent(self, backend: Backend, reason: GuestReason) -> None:
        raise AssertionError("nothing failed or spilled here")


def look(pool: BackendPool, witness: Witness, chosen: BackendsConfig) -> None:
    window = [at for at in witness.switches if at > witness.now - WINDOW_SECONDS]
    assert len(window) <= MAX_SWITCHES
    primaries = [b.health for b in pool if b.config.role is P]
    standby_usable = any(b.health.usable for b in pool if b.config.role is S)
    since = [h.usable_since for h in primaries if h.usable and h.usable_since is not None]
    awaited = any(h.usable_soon(witness.now) for h in primaries)
    for health in (backend.health for backend in pool):
        usable = health.state in {HealthState.READY, HealthState.BUSY, HealthState.UNLOADED}
        assert health.usable is usable
        assert usable <= (health.usable_since is not None)
        assert (health.usable_since is not None) <= (usable or health.awaited_until is not None)
    free = len(window) < MAX_SWITCHES
    unknown = any(h.state is HealthState.UNKNOWN for h in primaries)
    if pool.active.role is P and free and standby_usable and not unknown and not awaited:
        assert since, "the primaries serve although only a standby can"
    if pool.active.role is S and since and free:
        assert standby_usable, "the standby serves although only a primary can"
        steady = witness.now - min(since) >= hold_down_seconds(pool.active, chosen)
        if chosen.failback is Failback.AUTO and len(window) < MAX_SWITCHES - 1:
            assert not steady, "a usable primary was left for longer than the rules say"
    slot = pool.acquire()
    if slot is not None:
        assert slot.backend.config.role is pool.active.role
        assert slot.backend.health.usable
        slot.give_back()
    elif free:
        serving = [b for b in pool if b.config.role is pool.active.role]
        assert not any(b.health.usable for b in serving)


@settings(deadline=None, max_examples=200)
@given(steps, rules)
def test_whatever_is_seen_the_rules_hold(
    history: list[tuple[float, str, ProbeResult | HealthInput]], chosen: BackendsConfig
) -> None:
    witness = Witness()
    pool = BackendPool(
        lambda: chosen, open_client=FakeClient, observer=witness, clock=lambda: witness.now
    )
    for seconds, name, what in history:
        witness.now += seconds
        if isinstance(what, ProbeResult):
            pool.probed(pool[name], what)
        else:
            pool.saw(pool[name], what)
        look(pool, witness, chosen)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.5, 0.5, 1.0, 1.0, 2.0, 31.0]),
            st.sampled_from([(P,), (S,), (P, S)]),
            st.booleans(),
        ),
        min_size=5,
        max_size=80,
    ),
    rules,
)
@example(
    [(0.5, (P, S), True)]
    + [(0.5, role, up) for role, up in (((P,), False), ((P,), True), ((S,), False), ((S,), True))]
    * 4,
    BackendsConfig(servers=SERVERS),
)
def test_whichever_role_comes_and_goes_the_rules_hold(
    history: list[tuple[float, tuple[BackendRole, ...], bool]], chosen: BackendsConfig
) -> None:
    witness = Witness()
    pool = BackendPool(
        lambda: chosen, open_client=FakeClient, observer=witness, clock=lambda: witness.now
    )
    for seconds, roles, up in history:
        witness.now += seconds
        for backend in pool:
            if backend.config.role in roles:
                for _ in range(chosen.rise if up else 1):
                    if up:
                        pool.probed(backend, ProbeResult("m", 2048, busy=False))
                    else:
                        pool.saw(backend, GenerationFailed(HealthEvent.LOST, "lost"))
        look(pool, witness, chosen)


@settings(deadline=None, max_examples=50)
@given(steps, rules)
def test_whatever_was_seen_a_server_that_is_well_again_serves_again(
    history: list[tuple[float, str, ProbeResult | HealthInput]], chosen: BackendsConfig
) -> None:
    witness = Witness()
    pool = BackendPool(
        lambda: chosen, open_client=FakeClient, observer=witness, clock=lambda: witness.now
    )
    for seconds, name, what in history:
        witness.now += seconds
        if isinstance(what, ProbeResult):
            pool.probed(pool[name], what)
        else:
            pool.saw(pool[name], what)
    deadline = witness.now + 2 * LONGEST_HOLD_SECONDS
    uptime = 1000.0
    while witness.now < deadline:
        witness.now += 30.0
        uptime += 30.0
        for backend in pool:
            pool.probed(backend, ProbeResult("m", 2048, busy=False, uptime_seconds=uptime))
        slot = pool.acquire()
        if slot is not None:
            pool.attempt_succeeded(slot)
            slot.release()
    assert all(backend.health.usable for backend in pool)
    assert pool.active.role is P or chosen.failback is Failback.MANUAL
