from __future__ import annotations

import time
import uuid

import pytest

from ai_ticket_daemon.events.ids import is_event_id, new_event_id

AN_ID = "01a2208c-5f5e-736c-86c4-c00d9a489dcd"


def test_an_id_is_a_uuid_of_version_7_that_tells_its_time() -> None:
    for _ in range(1000):
        before = time.time_ns() // 1_000_000
        text = new_event_id(time.time())
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert parsed.version == 7
        assert parsed.variant == uuid.RFC_4122
        assert before <= parsed.int >> 80 <= time.time_ns() // 1_000_000
        assert is_event_id(text)


def test_ids_differ_in_every_bit_that_is_free_to() -> None:
    ids = [uuid.UUID(new_event_id(time.time())).int for _ in range(2000)]
    assert len(set(ids)) == len(ids)
    low = (1 << 62) - 1, 0xFFF << 64
    for mask in low:
        seen_set, seen_clear = 0, 0
        for value in ids:
            seen_set |= value & mask
            seen_clear |= ~value & mask
        assert seen_set == seen_clear == mask


@pytest.mark.parametrize("text", ["", "id", AN_ID.upper(), AN_ID[:-1], "{" + AN_ID + "}"])
def test_any_other_text_is_no_id(text: str) -> None:
    assert not is_event_id(text)
