"""A host that is out of something: raised where a part asks for it, as often as a test says."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from ai_ticket_daemon.config.log import LogFormat
from ai_ticket_daemon.host.exhaustion import Exhaustion, Resource
from ai_ticket_daemon.telemetry.logs.logs import Logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


TIMES = 3
REAL_SECONDS = 60

LACKS: dict[Resource, Callable[[], Exception]] = {
    Resource.THREADS: lambda: RuntimeError("can't start new thread"),
    Resource.DESCRIPTORS: lambda: OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
    Resource.MEMORY: MemoryError,
}


@dataclass
class Lack:
    """Something the host is out of: for the next ``left`` calls of what it stands in the way of."""

    resource: Resource
    left: int = 0
    met: list[str] = field(default_factory=list)

    @property
    def error(self) -> Exception:
        return LACKS[self.resource]()

    def exhaustion(self) -> Exhaustion:
        return Exhaustion(say=lambda _resource, where, _times: self.met.append(where))

    def raised(self, times: int = TIMES) -> None:
        self.left = times

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``call``, which fails as long as it is lacking."""

        def limited(*args: Any, **named: Any) -> Any:
            if self.left:
                self.left -= 1
                raise self.error
            return call(*args, **named)

        return limited


class Lines:
    """A log, and what is in it."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        self.log = Logs(log_format=LogFormat.JSON, stream=self._stream).logger()

    def named(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._stream.getvalue().splitlines()]
        return [line for line in lines if line["event"] == event]


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Take the descriptors of this process away for the length of a block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def until(true: Callable[[], object]) -> None:
    with trio.fail_after(REAL_SECONDS):
        while not true():  # noqa: ASYNC110 - told from a thread, or from another part
            await trio.sleep(0.005)


def unreachable(name: str, error: Exception) -> None:
    raise AssertionError(f"{name} crashed") from error
