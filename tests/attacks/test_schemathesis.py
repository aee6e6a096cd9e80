"""All that ``/openapi.json`` promises, held against the real process by schemathesis."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest
import trio

from tests.support.attacks.attack_watch import Limits
from tests.support.attacks.attacked_daemon import attacked

pytestmark = pytest.mark.system

CONF = Path(__file__).with_name("schemathesis.toml")
EXAMPLES = int(os.environ.get("AI_TICKET_SCHEMA_EXAMPLES", "15"))
SEED = int(os.environ.get("AI_TICKET_FUZZ_SEED", random.randrange(2**32)))
SECONDS = 600


async def test_the_daemon_answers_as_its_own_description_says(tmp_path: Path) -> None:
    """Every check there is, in examples, in borderline cases, at random, and in sequences."""
    command = [
        Path(sys.executable).with_name("schemathesis"), "--config-file", CONF, "run",
        "--phases", "examples,coverage,fuzzing,stateful",
        "--max-examples", str(EXAMPLES), "--seed", str(SEED), "--request-timeout", "30",
        "--suppress-health-check", "all", "--no-color",
    ]  # fmt: skip
    # What runs while a server generates may be slow; an answer later than that is a hang.
    async with attacked(tmp_path, "events.default_timeout_seconds = 10") as daemon:
        async with daemon.watched(Limits(log_kib=2048.0)):
            with trio.fail_after(SECONDS):
                done = await trio.run_process(
                    [*map(str, command), f"{daemon.url}/openapi.json"],
                    capture_stdout=True, capture_stderr=True, check=False, cwd=tmp_path,
                )  # fmt: skip
            said = (done.stdout + done.stderr).decode()
            assert done.returncode == 0, said
        print(said[-600:])
        await daemon.stop()
