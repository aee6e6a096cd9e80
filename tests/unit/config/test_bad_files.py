"""Each file in ``bad/`` holds a mistake; the text beside it is the whole message expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from ai_ticket_daemon.config import ConfigError, load_config

BAD = Path(__file__).parent / "bad"
NAMES = sorted(path.stem for path in BAD.glob("*.conf"))


@pytest.mark.parametrize("name", NAMES)
def test_a_mistake_is_refused_with_its_place_and_a_plain_sentence(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(BAD)
    with pytest.raises(ConfigError) as caught:
        load_config(Path(f"{name}.conf"), {})
    assert f"{caught.value}\n" == (BAD / f"{name}.txt").read_text()


def test_every_expected_message_belongs_to_a_file() -> None:
    assert sorted(path.stem for path in BAD.glob("*.txt")) == NAMES
    assert len(NAMES) >= 35


def test_all_mistakes_of_a_file_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(BAD / "many_mistakes.conf", {})
    lines = [problem.line for problem in caught.value.problems]
    assert lines == [5, 6, 8, 9, 11, 15, 16, 19, 20, 25, 27, 29, 32]
