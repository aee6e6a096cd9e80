"""Everything that can go wrong on demand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SCRIPTS", "Faults", "Process", "ScriptedAnswer"]


class Process(Protocol):
    """What faults can do to the life of the simulated process."""

    def kill(self, *, reset: bool) -> None:
        """Close the listener and cut every connection."""

    def stop_listening(self) -> None:
        """Close the listener only."""

    def start(self, *, after_seconds: float = 0.0) -> None:
        """Come to life if dead, open the listener if closed."""

    def reload(self, *, model: bool) -> None:
        """Start anew with a model or without one."""


@dataclass(frozen=True, slots=True)
class ScriptedAnswer:
    """What a generation request gets instead of a generation, once it has the lock."""

    raw: bytes = b""
    """Bytes for the wire, status line and all; nothing at all closes without a byte."""
    then_hang: bool = False
    """Keep the connection open and silent afterwards instead of closing it."""
    reset: bool = False
    """Close with a reset."""

    @classmethod
    def of(cls, status: int, body: str, content_type: str = "application/json") -> ScriptedAnswer:
        """A well-formed answer with this status and body."""
        data = body.encode()
        head = (
            f"HTTP/1.0 {status} Scripted\r\ncontent-length: {len(data)}\r\n"
            f"cache-control: no-store\r\ncontent-type: {content_type}\r\n\r\n"
        )
        return cls(head.encode() + data)


_HALF = json.dumps({"results": [{"text": "half an ans"}]})[:-8]

SCRIPTS: dict[str, ScriptedAnswer] = {
    "not_found": ScriptedAnswer(
        b"HTTP/1.0 404 Not Found\r\ncache-control: no-store\r\ncontent-type: text/html\r\n\r\n"
    ),
    "server_error": ScriptedAnswer.of(500, '{"detail": {"msg": "Out of memory.", "type": "oom"}}'),
    "rate_limited": ScriptedAnswer.of(429, '{"detail": {"msg": "Slow down.", "type": "limit"}}'),
    "garbage": ScriptedAnswer(b"\x00\xff\x13garbage\r\n\r\n\x80 not HTTP at all"),
    "html": ScriptedAnswer.of(200, "<html><body>Welcome</body></html>", "text/html"),
    "half_json": ScriptedAnswer.of(200, _HALF),
    "wrong_shape": ScriptedAnswer.of(200, '{"unexpected": ["shape"]}'),
    "empty_body": ScriptedAnswer.of(200, ""),
    "null": ScriptedAnswer.of(200, "null"),
    "no_byte": ScriptedAnswer(),
    "reset": ScriptedAnswer(reset=True),
    "hang": ScriptedAnswer(then_hang=True),
}


class Faults:
    """The faults now in force; each method puts one in force until `clear`."""

    def __init__(self, process: Process, changed: Callable[[], None]) -> None:
        self._process = process
        self._changed = changed
        self._change = trio.lowlevel.ParkingLot()
        self.stalled_tasks = 0
        self._healthy()

    def _healthy(self) -> None:
        self.frozen = False
        self.busy = False
        self.reject_all = False
        self.inactive = False
        self.stall_after_tokens: int | None = None
        self.stall_ignores_abort = True
        self.tokens_per_second: float | None = None
        self.prompt_seconds: float | None = None
        self.model: str | None = None
        self.context_tokens: int | None = None
        self.cut_after_events: int | None = None
        self.cut_with_reset = False
        self.cuts_left: int | None = None
        self.ends_left_out: Literal["aborted", "all"] | None = None
        self.left_out_ends: int | None = None
        self.script_answer: ScriptedAnswer | None = None
        self.scripts_left: int | None = None

    def _announce(self) -> None:
        self.wake()
        self._changed()

    # The process.

    def die(self, *, reset: bool = False) -> None:
        """Close the listener and cut all connections; dead until `start_again` or `clear`."""
        self._process.kill(reset=reset)

    def restart(self, *, after_seconds: float = 0.0, reset: bool = False) -> None:
        """Die and come back after some seconds with fresh counters."""
        self._process.kill(reset=reset)
        self._process.start(after_seconds=after_seconds)

    def refuse(self) -> None:
        """Refuse new connections; those that are open go on."""
        self._process.stop_listening()

    def start_again(self) -> None:
        """Come back at once, with fresh counters if dead."""
        self._process.start()

    def freeze(self) -> None:
        """Stand still as a stopped process does: connections are accepted, nothing answers."""
        self.frozen = True
        self._announce()

    # The engine.

    def stall(self, *, after_tokens: int = 0, ignores_abort: bool = True) -> None:
        """Stop making progress after some tokens, with the lock held; probes still answer.

        Args:
            after_tokens: Tokens each generation may still write.
            ignores_abort: Whether a stalled generation cannot be aborted either.
        """
        self.stall_after_tokens = after_tokens
        self.stall_ignores_abort = ignores_abort
        self._announce()

    def slow_down(self, *, tokens_per_second: float, prompt_seconds: float | None = None) -> None:
        """Change the speed, also of the running generation."""
        if tokens_per_second <= 0:
            raise ValueError("tokens_per_second must be above zero; use stall to stop")
        self.tokens_per_second = tokens_per_second
        self.prompt_seconds = prompt_seconds
        self._announce()

    def lose_model(self) -> None:
        """Go on as a server without a model: healthy to look at, empty text."""
        self.inactive = True
        self._announce()

    def swap_model(self, *, model: str | None = None, context_tokens: int | None = None) -> None:
        """Show another model name, another context size, or both."""
        self.model = model
        self.context_tokens = context_tokens
        self._announce()

    # The answers.

    def answer_busy(self) -> None:
        """Answer 503 to generations and look full to probes, as if others used the server."""
        self.busy = True
        self._announce()

    def reject_credentials(self) -> None:
        """Treat all credentials as wrong."""
        self.reject_all = True
        self._announce()

    def cut_stream(
        self, *, after_events: int, times: int | None = None, reset: bool = False
    ) -> None:
        """Break the connection of the next streams after some events; None for all streams."""
        self.cut_after_events = after_events
        self.cuts_left = times
        self.cut_with_reset = reset
        self._announce()

    def leave_out_end(
        self, *, of: Literal["aborted", "all"] = "all", times: int | None = None
    ) -> None:
        """Close the next streams after their text, without the final event; some builds do."""
        if of not in ("aborted", "all"):
            raise ValueError(f"of is aborted or all: not {of}")
        self.ends_left_out, self.left_out_ends = of, times
        self._announce()

    def unload(self) -> None:
        """Unload the model, as the server does when it was idle for long."""
        self._process.reload(model=False)

    def reload(self) -> None:
        """Load the model anew, as an administrator can ask for."""
        self._process.reload(model=True)

    def script(self, answer: str | ScriptedAnswer, *, times: int | None = None) -> None:
        """Give the next generations this answer, by name (see `SCRIPTS`) or in full."""
        if isinstance(answer, str):
            if answer not in SCRIPTS:
                raise ValueError(f"no scripted answer {answer!r}; there are {', '.join(SCRIPTS)}")
            answer = SCRIPTS[answer]
        self.script_answer = answer
        self.scripts_left = times
        self._announce()

    def clear(self) -> None:
        """Undo every fault, and come to life if dead."""
        self._healthy()
        self._process.start()
        self._announce()

    # What the server asks.

    def wake(self) -> None:
        """Let whoever waits here look again."""
        self._change.unpark_all()

    @property
    def hinder_engine(self) -> bool:
        """Whether a fault bears on the speed of generations."""
        return (
            self.frozen
            or self.stall_after_tokens is not None
            or self.tokens_per_second is not None
            or self.prompt_seconds is not None
        )

    def next_script(self) -> ScriptedAnswer | None:
        """The scripted answer for this generation, if there is one."""
        if self.script_answer is None or self.scripts_left == 0:
            return None
        if self.scripts_left is not None:
            self.scripts_left -= 1
        return self.script_answer

    def next_end_left_out(self, *, aborted: bool) -> bool:
        """Whether this stream ends without its final event."""
        if self.ends_left_out is None or (self.ends_left_out == "aborted" and not aborted):
            return False
        if self.left_out_ends == 0:
            return False
        if self.left_out_ends is not None:
            self.left_out_ends -= 1
        return True

    def next_cut(self) -> int | None:
        """After how many events this stream is to be cut, if at all."""
        if self.cut_after_events is None or self.cuts_left == 0:
            return None
        if self.cuts_left is not None:
            self.cuts_left -= 1
        return self.cut_after_events

    async def thawed(self) -> None:
        """Wait while the process is frozen."""
        while self.frozen:
            await self._change.park()

    async def unstalled(self, produced: int, abort: trio.Event) -> None:
        """Wait while generations stall after this many tokens."""
        while self.stall_after_tokens is not None and produced >= self.stall_after_tokens:
            if not self.stall_ignores_abort and abort.is_set():
                return
            self.stalled_tasks += 1
            self._changed()
            try:
                await self._change.park()
            finally:
                self.stalled_tasks -= 1
