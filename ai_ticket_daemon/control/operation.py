"""What an operation is: one thing that an operator can ask the running daemon for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import msgspec

OPERATION_SECONDS = 60.0
"""The longest an operation may take, a backup apart."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered, and what the audit says of it where that is not ``done``."""

    told: object
    result: str


class Access(Enum):
    """What an operation is, which decides who may ask for it, and how.

    ``LOOK``: it changes nothing, and tells nothing of what events are about: no prompt, completion,
    payload or secret. It is asked for by GET, also on the view socket.

    ``ACT``: all else. It is asked for by POST, on the control socket alone, and logged.
    """

    LOOK = "GET"
    ACT = "POST"


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing an operator can ask for.

    ``call`` gets an instance of ``arguments`` and returns what is answered as JSON, an
    :class:`Answer`, or the path of a file, which is sent and removed.
    """

    name: str
    access: Access
    arguments: type[msgspec.Struct]
    call: Callable[[Any], Awaitable[object]]
    seconds: float = OPERATION_SECONDS
