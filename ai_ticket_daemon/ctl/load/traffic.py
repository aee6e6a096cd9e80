"""Traffic for load tests and drills: events are sent, and what comes back is measured.

The time an event took counts from when it should have been sent, so a generator that falls behind
cannot make a server look fast.
"""

from __future__ import annotations

import json
import random
import re
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import trio

from ai_ticket_daemon.ctl.load.arrivals import (
    MAX_OPEN,
    MAX_OPEN_SOCKET,
    PAUSE_AFTER_ERROR_SECONDS,
    ClosedLoop,
    OpenLoop,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_CONNECT_SECONDS = 5.0
_KEEP_ALIVE_SECONDS = 2.0
"""Shorter than that of the daemon, which else closes connections just when they are used again."""
_CODE = re.compile(r"[a-z_]{1,40}")


@dataclass(frozen=True, slots=True)
class Target:
    """Where events go: to the ``socket``, or to ``url``, with ``token`` if there is one."""

    socket: Path | None = None
    url: str = "http://localhost"
    token: str | None = field(default=None, repr=False)

    @property
    def max_open(self) -> int:
        """How many events may be under way at a time; more are not sent, and count as errors."""
        return MAX_OPEN if self.socket is None else MAX_OPEN_SOCKET

    def connect(self) -> httpx.AsyncClient:
        """Return a client of that address; nothing is connected yet."""
        limits = httpx.Limits(max_connections=self.max_open, keepalive_expiry=_KEEP_ALIVE_SECONDS)
        verify = ssl.create_default_context() if self.url.startswith("https:") else False
        return httpx.AsyncClient(
            base_url=self.url,
            headers={"authorization": f"Bearer {self.token}"} if self.token else {},
            transport=httpx.AsyncHTTPTransport(
                uds=None if self.socket is None else str(self.socket), limits=limits, verify=verify
            ),
            # Whoever waits for an answer gives up by the clock of the test, see Traffic.run().
            timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
        )


@dataclass(frozen=True, slots=True)
class Sent:
    """One event and what came of it; times are in seconds since the start.

    ``due_at``: when it should have been sent; ``sent_at``: when it was. ``error``: the code it
    ended with; ``not_sent``: too many were under way; ``unanswered``: the test ended before; a word
    with capitals: the connection failed in that way.
    """

    due_at: float
    sent_at: float
    ended_at: float
    first_text_at: float | None = None
    error: str | None = None
    event_id: str | None = None
    backend: str | None = None
    attempts: int = 0
    key: str | None = None

    @property
    def seconds(self) -> float:
        """How long its client waited."""
        return self.ended_at - self.due_at


class Traffic:
    """Sends events.

    Args:
        target: where to.
        body: what each event asks for.
        on_sent: told of each event that has ended.
        key: gives each event an idempotency key that begins so.
    """

    def __init__(
        self,
        target: Target,
        body: Mapping[str, Any],
        on_sent: Callable[[Sent], None],
        *,
        key: str | None = None,
    ) -> None:
        self._target = target
        self._body = dict(body)
        self._on_sent = on_sent
        self._key = key
        self._number = 0
        self._open = 0
        self._began_at = 0.0
        self.arriving = trio.CancelScope()
        """Cancel it to let no more arrive."""
        self.arrived = trio.Event()
        """Set when the last one has arrived."""
        self.arrived_seconds = 0.0
        """How long they arrived."""

    async def run(
        self, pattern: OpenLoop | ClosedLoop, *, seconds: float, wait_seconds: float
    ) -> None:
        """Let events arrive for ``seconds``; return when all have ended, or after ``wait_seconds``.

        What has not ended by then counts as unanswered, and is given up.
        """
        async with self._target.connect() as client, trio.open_nursery() as nursery:
            self._began_at = trio.current_time()
            with self.arriving:
                match pattern:
                    case OpenLoop(rate, seed):
                        await self._arrive(client, nursery, rate, seed, seconds)
                    case ClosedLoop(clients):
                        for _ in range(clients):
                            nursery.start_soon(self._take_turns, client, seconds)
                        await trio.sleep(seconds)
            self.arrived_seconds = max(self._now(), 1e-3)
            self.arrived.set()
            nursery.cancel_scope.deadline = trio.current_time() + wait_seconds

    async def _arrive(
        self,
        client: httpx.AsyncClient,
        nursery: trio.Nursery,
        rate: float,
        seed: int,
        seconds: float,
    ) -> None:
        chance = random.Random(seed)  # noqa: S311 - arrivals, no secrets
        at = 0.0
        while (at := at + chance.expovariate(rate)) < seconds:
            await trio.sleep_until(self._began_at + at)
            if self._open >= self._target.max_open:
                self._on_sent(Sent(at, at, at, error="not_sent"))
            else:
                self._open += 1
                nursery.start_soon(self._send, client, at)
        await trio.sleep_until(self._began_at + seconds)

    async def _take_turns(self, client: httpx.AsyncClient, seconds: float) -> None:
        while not self.arriving.cancel_called and (now := self._now()) < seconds:
            self._open += 1
            if (await self._send(client, now)).error is not None:
                await trio.sleep(PAUSE_AFTER_ERROR_SECONDS)

    async def _send(self, client: httpx.AsyncClient, due_at: float) -> Sent:
        self._number += 1
        key = None if self._key is None else f"{self._key}-{self._number}"
        sent_at, answer = self._now(), _Answer(error="unanswered")
        try:
            answer = await self._post(client, key)
        finally:
            self._open -= 1
            sent = answer.of(due_at, sent_at, self._now(), key)
            self._on_sent(sent)
        return sent

    async def send_again(self, keys: Sequence[str], *, within_seconds: float) -> list[Sent]:
        """Send events again under the keys they had, and return what came of them now.

        An event is done once, however often it is sent: what comes back is what came of it then.
        """
        again: list[Sent] = []
        async with self._target.connect() as client:
            with trio.move_on_after(within_seconds):
                for key in keys:
                    at = self._now()
                    again.append((await self._post(client, key)).of(at, at, self._now(), key))
        return again

    async def _post(self, client: httpx.AsyncClient, key: str | None) -> _Answer:
        headers = {} if key is None else {"idempotency-key": key}
        try:
            async with client.stream(
                "POST", "/event", json=self._body, headers=headers
            ) as response:
                return await _read(response, self._now)
        except (httpx.HTTPError, ValueError) as problem:
            return _Answer(error=type(problem).__name__)

    def _now(self) -> float:
        return trio.current_time() - self._began_at


@dataclass(frozen=True, slots=True)
class _Answer:
    told: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    first_text_at: float | None = None

    def of(self, due_at: float, sent_at: float, ended_at: float, key: str | None) -> Sent:
        return Sent(
            due_at,
            sent_at,
            ended_at,
            self.first_text_at,
            self.error,
            self.told.get("event_id"),
            self.told.get("backend"),
            self.told.get("attempts") or 0,
            key,
        )


async def _read(response: httpx.Response, now: Callable[[], float]) -> _Answer:
    """Read one answer, whole or as a stream."""
    first_text_at: float | None = None
    last: Any = {}
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                last = json.loads(line.removeprefix("data: "))
                if first_text_at is None and last.get("delta"):
                    first_text_at = now()
        if not last.get("done"):
            return _Answer(last, "broken_off", first_text_at)
    else:
        last = json.loads(await response.aread())
    if not isinstance(last, dict):
        raise ValueError("this is no answer of the daemon")  # noqa: TRY004 - a wrong value
    error = last.get("error")
    if error is None and response.status_code != httpx.codes.OK:
        error = "status"
    if error is not None and not _CODE.fullmatch(str(error)):
        error = "unreadable"
    return _Answer(last, error if error != "status" else f"{response.status_code}", first_text_at)
