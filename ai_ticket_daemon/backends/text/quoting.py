"""Whether a server's words on an error may be told: not if they repeat a ticket or a credential."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ai_ticket_daemon.backends.observation import Observation
    from ai_ticket_daemon.config.values.secret import Secret

_PIECE = 20
"""Characters in a row that two texts hardly share by chance."""
_SHORTEST = 4


def quotable(
    observation: Observation, password: Secret | None, texts: Iterable[str] = ()
) -> Observation:
    """Return the observation, without the server's words if they cannot be told.

    Args:
        observation: what was seen.
        password: the credential that was sent.
        texts: what the prompt was made of.
    """
    words = observation.words
    if words is None:
        return observation
    if (password is not None and password.reveal() in words) or any(
        _repeats(words, text) for text in texts
    ):
        return replace(observation, words=None)
    return observation


def _repeats(words: str, text: str) -> bool:
    """Whether ``words`` hold a piece of ``text``, or all of it if it is short.

    Each longer run of the text in them covers one of the pieces they are looked at in.
    """
    whole = text.strip()
    if len(whole) < 2 * _PIECE and len(whole) >= _SHORTEST and whole in words:
        return True
    pieces = (words[at : at + _PIECE] for at in range(0, len(words) - _PIECE + 1, _PIECE // 2))
    return any(piece in text for piece in pieces)
