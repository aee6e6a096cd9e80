from __future__ import annotations

import pytest

from ai_ticket_daemon.backends.kobold.model_name import is_masked, names_no_model


@pytest.mark.parametrize(
    ("name", "no_model", "masked"),
    [
        ("inactive", True, False),
        ("koboldcpp/inactive", True, False),
        ("protected-model", False, True),
        ("koboldcpp/protected-model", False, True),
        ("koboldcpp/m", False, False),
        ("inactive-7B", False, False),
        ("inactive/m", False, False),
    ],
)
def test_koboldcpp_says_two_things_in_place_of_a_name(
    name: str, no_model: bool, masked: bool
) -> None:
    assert (names_no_model(name), is_masked(name)) == (no_model, masked)
