from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

from ai_ticket_daemon.testing.kobold import (
    KoboldSettings,
    SimulatedKobold,
    open_simulated_kobold,
    serve_control,
)
from ai_ticket_daemon.testing.kobold.control import KINDS, BadFault, apply_fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

GUARD_SECONDS = 60


@pytest.fixture
async def sim() -> AsyncIterator[SimulatedKobold]:
    with trio.fail_after(GUARD_SECONDS):
        async with open_simulated_kobold(KoboldSettings().instant()) as simulated:
            yield simulated


async def call(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\ncontent-length: {len(data)}\r\n\r\n"
        await stream.send_all(head.encode() + data)
        answer = b""
        async for piece in stream:
            answer += piece
    head_part, _, text = answer.partition(b"\r\n\r\n")
    return int(head_part.split()[1]), json.loads(text)


async def test_faults_can_be_set_and_cleared_over_http(sim: SimulatedKobold) -> None:
    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve_control, sim)
        assert await call(port, "POST", "/fault", {"kind": "die"}) == (200, {"ok": True})
        status, state = await call(port, "GET", "/state")
        assert (status, state["alive"], state["deaths_total"]) == (200, False, 1)
        assert await call(port, "POST", "/clear") == (200, {"ok": True})
        assert (await call(port, "GET", "/state"))[1]["alive"]
        nursery.cancel_scope.cancel()


async def test_a_frozen_server_can_be_thawed_through_its_control_port(
    sim: SimulatedKobold,
) -> None:
    async with trio.open_nursery() as nursery:
        port = await nursery.start(serve_control, sim)
        await call(port, "POST", "/fault", {"kind": "freeze"})
        assert sim.faults.frozen
        await call(port, "POST", "/clear")
        assert (await call(sim.port, "GET", "/api/extra/perf"))[1]["idle"] == 1
        nursery.cancel_scope.cancel()


async def test_the_state_tells_of_each_generation(sim: SimulatedKobold) -> None:
    await call(sim.port, "POST", "/api/v1/generate", {"prompt": "x", "genkey": "K"})
    state = json.loads(json.dumps(sim.state()))
    assert (state["completed_total"], state["running"], state["max_in_flight"]) == (1, 0, 1)
    assert [record["genkey"] for record in state["log"]] == ["K"]
    assert state["log"][0]["outcome"] == "completed"


@pytest.mark.parametrize(
    ("order", "sentence"),
    [
        ([], "kind"),
        ({"kind": "explode"}, "one of: die"),
        ({"kind": "die", "force": True}, "not force"),
        ({"kind": "die", "reset": "yes"}, "reset must not be a str"),
        ({"kind": "slow_down"}, "tokens_per_second"),
        ({"kind": "slow_down", "tokens_per_second": 0}, "use stall"),
        ({"kind": "script"}, "needs raw"),
        ({"kind": "script", "answer": "nonsense"}, "half_json"),
    ],
)
async def test_a_wrong_order_is_explained(
    sim: SimulatedKobold, order: object, sentence: str
) -> None:
    with pytest.raises(BadFault, match=sentence):
        apply_fault(sim.faults, order)


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"slow_down", "cut_stream", "script"}))
async def test_faults_whose_arguments_have_defaults_need_only_their_kind(
    sim: SimulatedKobold, kind: str
) -> None:
    apply_fault(sim.faults, {"kind": kind})
    sim.faults.clear()
    assert sim.alive


async def test_a_scripted_answer_can_be_given_in_full(sim: SimulatedKobold) -> None:
    apply_fault(sim.faults, {"kind": "script", "status": 500, "body": "{}", "times": 1})
    assert await call(sim.port, "POST", "/api/v1/generate", {}) == (500, {})
    raw = "HTTP/1.0 200 OK\r\n\r\n[1]"
    apply_fault(sim.faults, {"kind": "script", "raw": raw})
    assert await call(sim.port, "POST", "/api/v1/generate", {}) == (200, [1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_serves_until_a_signal_and_exits_cleanly(
    number: signal.Signals, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    command = [sys.executable, "-m", "ai_ticket_daemon.testing.kobold", "--port", "0"]
    command += ["--control-port", "0", "--password-file", str(password), "--model", "m"]
    with trio.fail_after(GUARD_SECONDS):
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        async with process.stdout:
            line = ""
            while not line.endswith("\n"):
                line += (await process.stdout.receive_some()).decode()
            ports = [int(word.rsplit(":", 1)[1]) for word in line.split() if "http" in word]
            model = await call(ports[0], "GET", "/api/v1/model")
            state = await call(ports[1], "GET", "/state")
            process.send_signal(number)
            assert await process.wait() == 0
    assert line.count("\n") == 1
    assert model == (200, {"result": "koboldcpp/protected-model"})
    assert state[1]["alive"]


async def test_a_missing_password_file_is_reported_before_anything_starts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ai_ticket_daemon.testing.kobold"]
    command += ["--password-file", str(tmp_path / "none")]
    with trio.fail_after(GUARD_SECONDS):
        done = await trio.run_process(command, check=False, capture_stderr=True)
    assert done.returncode == 2
    assert b"No such file" in done.stderr
