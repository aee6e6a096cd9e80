"""What a simulated KoboldCPP is: its model, its limits, its speed and its delays."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

__all__ = ["VERSIONS", "KoboldSettings"]

VERSIONS = ("1.76", "1.115")
"""What can be simulated: the versions that were recorded."""
_DEFAULT_MODEL = "koboldcpp/SmolLM2-135M-Instruct.Q4_1"


@dataclass(frozen=True, slots=True, kw_only=True)
class KoboldSettings:
    """The command line and the hardware of one simulated server.

    The defaults are those of the recorded server: a small model on a CPU, started without options.
    """

    version: str = "1.76"
    """One of `VERSIONS`. What only later ones have is off for an earlier one."""
    parallel: int = 1
    """``--parallelrequests``: how many generations share a batch."""
    jinja: bool = False
    """``--jinja``: conversations are laid out with the model's own template."""
    admin: bool = False
    """``--admin``: whoever asks may unload and reload the model."""
    router: bool = False
    """``--routermode``: a request that names a model loads it; answers say HTTP/1.1."""
    thinking: bool = False
    """Whether the model thinks before it answers."""
    unload_after_seconds: float | None = None
    """``--adminunloadtimeout``: counted from the start of the last request."""
    reload_after_seconds: float = 0.5
    """Between the order to load another model and the end of the process."""
    load_seconds: float = 2.0
    """How long a model takes to load, in full run or in a process that starts anew."""
    host: str = "127.0.0.1"
    """Numeric address to listen on."""
    model: str = _DEFAULT_MODEL
    has_model: bool = True
    """False is the server's ``--nomodel``: it looks healthy and answers with empty text."""
    password: str | None = field(default=None, repr=False)
    multiuser: int | None = None
    """Queue option: 0 none may wait, 1 six may wait, N above 1 lets N-1 wait. None: not given."""
    context_tokens: int = 2048
    context_cap_tokens: int = 8192
    """Upper bound of the advertised context length."""
    max_length_tokens: int = 400
    """Advertised length of an answer; not enforced."""
    handler_threads: int = 24
    """Connections served at once; further ones are accepted by the kernel and get silence."""
    listen_backlog: int = 128

    tokens_per_second: float = 90.0
    """Speed of writing; infinite writes a whole answer at once."""
    prompt_tokens_per_second: float = 500.0
    prompt_seconds: float | None = None
    """Fixed time for reading any prompt, instead of a time that grows with it."""
    prompt_batch_tokens: int = 512
    """An abort while the prompt is read takes effect after the batch in hand."""

    answer_hold_seconds: float = 0.05
    """How long the lock is held after a plain answer."""
    stream_hold_seconds: float = 0.20
    """How long the lock is held after the last event of a stream."""
    first_event_seconds: float = 0.35
    """Time from the headers of a stream to the first look at the token buffer."""
    poll_seconds: float = 0.02
    """Time between two looks at the token buffer."""
    abort_answer_seconds: float = 0.1
    gone_client_seconds: float = 0.2
    """Extra time the lock is held after a stream could not be written to its client."""
    tokencount_seconds: float = 0.0005
    """Time a count uses the token buffer that parallel counts share."""
    wrong_count_chance: float = 0.001
    """Chance that overlapping token counts give a wrong value, not only foreign ids."""

    overtake: bool = True
    """Whether a request arriving just as the lock is released may pass the waiting ones."""
    overtake_chance: float = 0.25
    """Share of releases that leave a gap through which a newcomer can slip."""
    overtake_gap_seconds: float = 0.001

    seed: int = 1
    """Makes the simulated accidents (overtaking, wrong counts) repeatable."""
    reply: Literal["words", "echo"] = "words"
    """``words``: a mark of the request, then pseudo-text. ``echo``: the text of the request."""
    natural_tokens: tuple[int, int] = (24, 96)
    """Shortest and longest answer, in tokens, before the model ends the text by itself."""
    log_length: int = 10_000
    """How many generation requests are remembered for inspection."""

    def __post_init__(self) -> None:
        """Refuse settings that could not be those of a server."""
        if self.tokens_per_second <= 0 or self.prompt_tokens_per_second <= 0:
            raise ValueError("speeds must be above zero; use the stall fault to stop a generation")
        if self.version not in VERSIONS:
            raise ValueError(f"there are the versions {' and '.join(VERSIONS)}: not {self.version}")
        if not self.newer and (
            self.parallel > 1
            or self.jinja
            or self.admin
            or self.router
            or self.unload_after_seconds is not None
        ):
            raise ValueError(f"version {self.version} has no such option")
        if self.multiuser is not None and self.multiuser < 0:
            raise ValueError(f"multiuser is {self.multiuser}, but must be 0 or more")
        if not 1 <= self.natural_tokens[0] <= self.natural_tokens[1]:
            raise ValueError(f"natural_tokens {self.natural_tokens} must be (least, most), from 1")

    @property
    def queue_limit(self) -> int:
        """How many requests may wait for the lock."""
        multiuser = (10 if self.newer else 1) if self.multiuser is None else self.multiuser
        if multiuser == 0:
            return 0
        return 6 if multiuser == 1 else multiuser - 1

    @property
    def newer(self) -> bool:
        """Whether it is the newer of the two versions."""
        return self.version != VERSIONS[0]

    def instant(self) -> KoboldSettings:
        """The same server without any delay, in strict order: the backend of benchmarks."""
        return replace(
            self.scaled(0.0),
            tokens_per_second=math.inf,
            prompt_tokens_per_second=math.inf,
            prompt_seconds=None,
            overtake=False,
        )

    def scaled(self, factor: float) -> KoboldSettings:
        """The same server with all fixed delays multiplied, its speeds untouched."""
        return replace(
            self,
            answer_hold_seconds=self.answer_hold_seconds * factor,
            stream_hold_seconds=self.stream_hold_seconds * factor,
            first_event_seconds=self.first_event_seconds * factor,
            poll_seconds=self.poll_seconds * factor,
            abort_answer_seconds=self.abort_answer_seconds * factor,
            reload_after_seconds=self.reload_after_seconds * factor,
            load_seconds=self.load_seconds * factor,
            gone_client_seconds=self.gone_client_seconds * factor,
            tokencount_seconds=self.tokencount_seconds * factor,
        )
