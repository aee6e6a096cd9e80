from __future__ import annotations

import pytest

from ai_ticket_daemon.pool.expected_turn import turn_seconds
from ai_ticket_daemon.pool.health import Health


def told(read: float | None, wrote: float | None, prompt: int | None = 1000) -> Health:
    return Health(
        prompt_tokens_per_second=read, written_tokens_per_second=wrote, last_prompt_tokens=prompt
    )


@pytest.mark.parametrize(
    ("healths", "seconds"),
    [
        ([], None),
        ([told(None, None)], None),
        ([told(100, None)], None),  # it has written nothing yet
        ([told(None, 20)], 10),
        ([told(100, 20)], 20),
        ([told(100, 20, None)], 10),  # a version that does not tell how long its prompt was
        ([told(100, 20, 0)], 10),
        ([told(100, 20), told(None, None), told(1000, 10)], 21),
    ],
)
def test_a_turn_takes_reading_and_writing_on_the_slowest_server(
    healths: list[Health], seconds: float | None
) -> None:
    assert turn_seconds(healths, 200) == seconds
