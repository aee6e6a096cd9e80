"""Mutated conf files: each is read, or refused with all its mistakes and where they are."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.config.check import warnings
from ai_ticket_daemon.config.read.errors import ConfigError
from ai_ticket_daemon.config.read.load import load_config
from tests.support.attacks.fuzzing import cases, mutate
from tests.support.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.system

SHIPPED = (ROOT / "ai-ticket.conf").read_text()
ON_THIS_MACHINE = re.compile("file|directory|tls_|socket|fd:")
SERVER = '[[backends.server]]\nname = "primary"\nurl = "http://127.0.0.1:5001"\nrole = "primary"\n'


def shown() -> list[str]:
    """Return the settings that the shipped file shows, each with its section.

    But for those that name files: no case is to read what is on this machine.
    """
    found, section = [], ""
    for line in SHIPPED.splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = heading[1]
        elif setting := re.fullmatch(r"#? ?(\w+ = .*)", line):
            found.append(f"{section}.{setting[1]}")
    return [setting for setting in found if not ON_THIS_MACHINE.search(setting)]


SETTINGS = shown()
WORDS = (
    b"[", b"]", b"[[", b"]]", b"=", b'"', b"'''", b'"""', b"\\", b"\\uD800", b".", b"#", b"\n",
    b"\r", b"\x00", b"\xff", b"\xef\xbb\xbf", b"{", b"}", b"true", b"nan", b"-inf", b"1e400",
    b"9" * 5000, b"1979-05-27T07:32:00Z", b"[backends]\n", b"[[backends.server]]\n", b"url = ",
    b'name = "primary"\n', b'role = "standby"\n', b'http.bind = ["[::1]:0", "unix:/x", "fd://3"]\n',
    b'"http://user:pass@[::1]:99999/%ff?x#y"', b'"http://\xc3\xa4/"', b"http.bind = 5\n",
    b"[" * 400, b"a." * 400, b"{a=" * 200, b"0x7fffffffffffffffffff", b"_", b'"\\u0000"',
    b"rate_limit.requests = -1\n", b'store.url = "sqlite:///"\n', b"log.level = []\n",
)  # fmt: skip


@pytest.fixture
def conf() -> Iterator[Path]:
    """A file in memory: to write one to a disk takes longer than to read it as a conf file."""
    descriptor = os.memfd_create("ai-ticket.conf")
    yield Path(f"/proc/self/fd/{descriptor}")
    os.close(descriptor)


def test_mutated_conf_files_are_read_or_refused(conf: Path) -> None:
    assert len(SETTINGS) > 20
    seen: Counter[str] = Counter()
    for case in cases("conf"):
        chance = case.chance
        lines = "\n".join(chance.sample(SETTINGS, chance.randrange(4)))
        case.data = data = mutate(chance, f"{lines}\n{SERVER}".encode(), WORDS)
        conf.write_bytes(data)
        with case.guarded():
            try:
                config = load_config(conf, {})
                told = "".join(warnings(config))
            except ConfigError as error:
                told = str(error)
                seen["refused"] += 1
                problems = error.problems
            else:
                problems = ()
                seen["read"] += 1
            assert told or not problems
            assert "Traceback" not in told
            told.encode()
    print(dict(seen))
    assert seen.total() < 100 or len(seen) == 2
