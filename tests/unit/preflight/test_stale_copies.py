"""The check tells which daemon has an older copy of a credential."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.preflight.credentials import stale_copies
from ai_ticket_daemon.preflight.finding import Weight

if TYPE_CHECKING:
    from pathlib import Path

UNITS = ("ai-ticket.service", "ai-ticket@2.service")
NAMED = (("http.tls_key", "credential:key.pem"), ("http.tls_cert", "/etc/ssl/cert.pem"))


class House:
    def __init__(self, folder: Path) -> None:
        self.source, self.copies = folder / "credentials", folder / "run"
        self.source.mkdir()
        self.put("new")
        for unit in UNITS:
            self.hand(unit, "new")

    def put(self, text: str) -> None:
        (self.source / "key.pem").write_text(text)

    def hand(self, unit: str, text: str) -> None:
        folder = self.copies / unit
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ai-ticket_key.pem").write_text(text)

    def told(self, *running: str) -> list[str]:
        found = list(stale_copies(NAMED, running, source=self.source, copies=self.copies))
        assert all(finding.weight is Weight.WARNING for finding in found)
        return [finding.text for finding in found]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_copies_of_today_deserve_no_word(house: House) -> None:
    assert house.told(*UNITS) == []


@pytest.mark.parametrize("unit", UNITS)
def test_an_older_copy_is_told_with_the_daemon_that_has_it(house: House, unit: str) -> None:
    house.hand(unit, "the old secret")

    [told] = house.told(*UNITS)
    assert told == (
        f"http.tls_key: credential:key.pem: the daemon of {unit} has an older copy: a reload goes "
        f"on with that one; the next start takes {house.source}/key.pem"
    )
    assert house.told(*(other for other in UNITS if other != unit)) == []


def test_a_credential_that_a_daemon_was_not_given_is_told(house: House) -> None:
    (house.copies / UNITS[1] / "ai-ticket_key.pem").unlink()

    [told] = house.told(*UNITS)
    assert f"the daemon of {UNITS[1]} was not given it: a reload would be refused" in told


def test_a_renewed_original_makes_every_copy_an_older_one(house: House) -> None:
    house.put("newer")

    assert len(house.told(*UNITS)) == len(UNITS)
    assert house.told() == [], "where nothing runs, nothing has a copy"
