"""The view socket: whoever may look and not act sees how the daemon does, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ai_ticket_daemon.config.auth import AuthConfig
from ai_ticket_daemon.config.control import DEFAULT_VIEW_SOCKET
from ai_ticket_daemon.config.values.tokens import Tokens, parse_tokens
from ai_ticket_daemon.control.operation import Access
from ai_ticket_daemon.control.server import view_path
from ai_ticket_daemon.ctl import client as client_module
from ai_ticket_daemon.ctl import main as ctl
from ai_ticket_daemon.ctl.client import VIEW_DIRECTORY
from ai_ticket_daemon.server.route_table import ROUTES
from tests.support.control_house import QUICK, open_house

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Sequence

    from ai_ticket_daemon.config.tree import Config
    from ai_ticket_daemon.control.operation import Operation
    from ai_ticket_daemon.testing.kobold import KoboldSettings
    from tests.support.control_house import House

Captured = pytest.CaptureFixture[str]
PROMPT = "Ms Canary of 5 Willow Lane cannot log in to her mailbox"
TOKEN = "sk-a-token-that-nobody-may-see"


@asynccontextmanager
async def house_with_a_view(
    captured: Captured, settings: KoboldSettings = QUICK, **log: Any
) -> AsyncIterator[tuple[House, httpx.AsyncClient]]:
    """A daemon with both sockets, and a client of the view socket."""
    folder = Path(tempfile.mkdtemp(prefix="ait"))

    def with_view(config: Config) -> Config:
        tokens = Tokens(folder / "tokens", parse_tokens(f"billing:{TOKEN} submit,read\n"))
        return replace(
            config,
            auth=AuthConfig(tokens),
            control=replace(config.control, view_socket=folder / "view"),
            log=replace(config.log, **log),
        )

    try:
        async with (
            open_house(captured, settings, with_view) as house,
            httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(uds=str(folder / "view")),
                base_url="http://localhost",
                timeout=60,
            ) as viewer,
        ):
            yield house, viewer
    finally:
        shutil.rmtree(folder)


def operations_of(house: House, access: Access) -> list[Operation]:
    table = house.running.daemon._operations
    return [operation for operation in table.values() if operation.access is access]


async def test_the_view_socket_is_for_its_owner_and_group_and_goes_with_the_daemon(
    capsys: Captured,
) -> None:
    async with house_with_a_view(capsys) as (house, _):
        path = house.running.daemon._live.current.control.view_socket
        assert path is not None
        assert path.stat().st_mode & 0o777 == 0o660
    assert not path.exists()


async def test_all_that_looks_is_answered_on_both_sockets_alike(capsys: Captured) -> None:
    async with house_with_a_view(capsys) as (house, viewer):
        told = await house.json("submit", "Hello", "--max-tokens", "4")
        async with httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(house.socket)),
            base_url="http://localhost",
            timeout=60,
        ) as operator:
            looking = operations_of(house, Access.LOOK)
            assert {"status", "events", "event", "why", "audit"} <= {o.name for o in looking}
            for operation in looking:
                query = {"event_id": told["event_id"]} if "event_id" in _fields(operation) else {}
                answers = [
                    await client.get(f"/control/{operation.name}", params=query)
                    for client in (viewer, operator)
                ]
                assert [answer.status_code for answer in answers] == [200, 200], operation.name
                assert answers[0].json().keys() == answers[1].json().keys()


def _fields(operation: Operation) -> tuple[str, ...]:
    return operation.arguments.__struct_fields__


async def test_nothing_that_acts_can_be_done_on_the_view_socket(capsys: Captured) -> None:
    async with house_with_a_view(capsys) as (house, viewer):
        before = await house.json("status")
        for operation in operations_of(house, Access.ACT):
            for method in ("POST", "GET", "PUT", "OPTIONS"):
                answer = await viewer.request(method, f"/control/{operation.name}", json={})
                assert answer.status_code == 403, (method, operation.name)
                assert answer.json()["error"] == "forbidden"
        after = await house.json("status")
        assert list(house.folder.joinpath("store").glob("*backup*")) == []
    for fact in ("paused", "draining", "serving", "severed", "log_level", "capture_payloads"):
        assert after[fact] == before[fact]


async def test_of_the_public_routes_only_those_that_tell_how_the_daemon_does_are_served(
    capsys: Captured,
) -> None:
    """An event would be accepted without a token, and its text could be had without one."""
    async with house_with_a_view(capsys) as (house, viewer):
        told = await house.json("submit", PROMPT, "--max-tokens", "4")
        served = {}
        for route in ROUTES:
            path = route.path.replace("{event_id}", told["event_id"])
            answer = await viewer.request(
                route.method, path, json={"content": "x"} if route.method == "POST" else None
            )
            served[f"{route.method} {route.path}"] = answer.status_code
        assert served == {
            "POST /event": 403,
            "GET /event/{event_id}": 403,
            "DELETE /event/{event_id}": 403,
            "POST /events": 403,
            "GET /health": 200,
            "GET /live": 200,
            "GET /ready": 200,
            "GET /openapi.json": 403,
        }
        assert (await house.json("status"))["queue"]["succeeded"] == 1


@pytest.mark.parametrize(
    ("target", "statuses"),
    [
        ("/%65vent", {403}),
        ("/health/../event", {403}),
        ("/health%2f..%2fevent", {403}),
        ("//event", {403}),
        ("http://localhost/event", {403}),
        ("http://localhost/health", {403}),
        ("/healt%68", {404}),
        ("/control/status/../pause", {404}),
        ("/control/../event", {404}),
        ("/control/pause/", {404}),
        ("/control/%70ause", {403}),
        ("/control//pause", {404}),
        ("/control/", {404}),
        ("/control", {403}),
        ("*", {403, 400}),
    ],
)
async def test_no_way_of_writing_a_path_leads_past_the_rule(
    capsys: Captured, target: str, statuses: set[int]
) -> None:
    body = json.dumps({"content": "x", "max_tokens": 4}).encode()
    head = (
        f"POST {target} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    async with house_with_a_view(capsys) as (house, _):
        path = house.running.daemon._live.current.control.view_socket
        stream = await trio.open_unix_socket(str(path))
        async with stream:
            await stream.send_all(head.encode() + body)
            with trio.fail_after(60):
                answer = bytes(await stream.receive_some(4096))
        assert int(answer.split(b" ")[1]) in statuses
        report = await house.json("status")
        assert not report["paused"]
        assert sum(report["queue"].values()) == 0


async def test_a_body_that_nobody_reads_does_not_keep_the_answer_back(capsys: Captured) -> None:
    async with house_with_a_view(capsys) as (house, viewer):
        answer = await viewer.post("/event", content=b"x" * 4_000_000)
        assert answer.status_code == 403
        path = house.running.daemon._live.current.control.view_socket
        stream = await trio.open_unix_socket(str(path))
        async with stream:
            await stream.send_all(
                b"POST /control/backup HTTP/1.1\r\nhost: a\r\ncontent-length: 99\r\n\r\n{"
            )
            with trio.fail_after(60):
                assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 403")


async def test_the_refusal_names_the_other_socket_and_its_group(capsys: Captured) -> None:
    async with house_with_a_view(capsys) as (house, viewer):
        answer = await viewer.post("/control/pause")
        group = house.socket.group()
    assert answer.json()["message"] == (
        f"This socket is for looking alone, and pause is not: {house.socket} takes it from root "
        f"and from members of the group {group}."
    )


async def test_neither_prompts_nor_completions_nor_tokens_can_be_seen(
    capsys: Captured, tmp_path: Path
) -> None:
    """Whatever can be asked there is asked, of events that succeeded, failed, and were captured."""
    captures = tmp_path / "captures"
    async with house_with_a_view(capsys, capture_payloads=10, capture_directory=captures) as (
        house,
        viewer,
    ):
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(
            base_url=house.running.url, headers=headers, timeout=60
        ) as client:
            done = await client.post("/event", json={"content": PROMPT, "max_tokens": 8})
            wrong = await client.post("/event", json={"content": PROMPT, "max_tokens": 0})
            unknown = await client.post(
                "/event", json={"content": PROMPT}, headers={"authorization": f"Bearer {TOKEN}x"}
            )
        assert [r.status_code for r in (done, wrong, unknown)] == [200, 422, 401]
        completion = done.json()["completion"]
        seen = []
        for operation in operations_of(house, Access.LOOK):
            query = (
                {"event_id": done.json()["event_id"]} if "event_id" in _fields(operation) else {}
            )
            seen.append((await viewer.get(f"/control/{operation.name}", params=query)).text)
        seen += [(await viewer.get(path)).text for path in ("/health", "/live", "/ready")]
    assert len(completion) > 8
    assert len(seen) >= 10
    for text in seen:
        for secret in (PROMPT, PROMPT[:20], completion, TOKEN):
            assert secret not in text


async def test_who_tries_to_act_is_logged_with_the_socket_and_once_a_second_at_most(
    capsys: Captured,
) -> None:
    async with house_with_a_view(capsys) as (house, viewer):
        await house.ctl("log-level", "debug")
        for _ in range(30):
            await viewer.post("/control/pause")
        changes = house.running.log("control_change")
    by_socket = [c for c in changes if c["socket"] == "control"]
    assert [(c["operation"], c["result"]) for c in by_socket] == [("log-level", "done")]
    refused = [c for c in changes if c["socket"] == "view"]
    assert 1 <= len(refused) < 30
    assert (refused[0]["operation"], refused[0]["result"]) == ("pause", "forbidden")
    assert (refused[0]["uid"], refused[0]["pid"]) == (os.getuid(), os.getpid())
    assert sum(1 + c["untold"] for c in refused) <= 30


async def test_recounts_of_the_store_take_turns(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may look may ask for many at once, and others need threads, too."""
    at_once, most = 0, 0

    def slow(_path: Path) -> Any:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        held.wait(0.05)
        at_once -= 1
        raise RuntimeError("not of interest")

    held = threading.Event()
    monkeypatch.setattr("ai_ticket_daemon.control.store_operations.audit_file", slow)
    async with house_with_a_view(capsys) as (_, viewer), trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(viewer.get, "/control/audit")
    assert most == 1


def test_the_default_has_the_name_of_the_service_and_stays_away_elsewhere() -> None:
    own = {"RUNTIME_DIRECTORY": "/run/ai-ticket-2"}
    assert view_path(DEFAULT_VIEW_SOCKET, own) == Path("/run/ai-ticket-view/ai-ticket-2.sock")
    own = {"RUNTIME_DIRECTORY": "/run/ai-ticket"}
    assert view_path(DEFAULT_VIEW_SOCKET, own) == DEFAULT_VIEW_SOCKET
    assert view_path(Path("/x/view"), own) == Path("/x/view")
    assert view_path(None, own) is None
    there = DEFAULT_VIEW_SOCKET if DEFAULT_VIEW_SOCKET.parent.is_dir() else None
    assert view_path(DEFAULT_VIEW_SOCKET, {}) == there
    assert DEFAULT_VIEW_SOCKET.parent == VIEW_DIRECTORY


async def test_the_command_looks_over_the_view_socket_and_says_who_may_act(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Root may open anything, so the refusal of the control socket is made here."""
    monkeypatch.delenv("AI_TICKET_SOCKET", raising=False)
    connected = client_module._connected
    async with house_with_a_view(capsys) as (house, _):
        view = house.running.daemon._live.current.control.view_socket
        told = await house.json("submit", "Hello", "--max-tokens", "4")
        assert view is not None
        found = {VIEW_DIRECTORY / "ai-ticket.sock": view}

        def connect(path: Path) -> socket.socket:
            if path == Path("/run/ai-ticket/control.sock"):
                raise PermissionError(13, "Permission denied")
            return connected(found.get(path, path))

        monkeypatch.setattr(client_module, "_connected", connect)

        async def run(*words: str) -> tuple[int, str, str]:
            capsys.readouterr()
            with trio.fail_after(60):
                code = await trio.to_thread.run_sync(ctl.main, words)
            return code, *capsys.readouterr()

        looking: Sequence[tuple[str, ...]] = (
            ("status",), ("backends",), ("events", "list"), ("audit",), ("check-config",),
            ("reload", "--plan"), ("why", told["event_id"]), ("events", "show", told["event_id"]),
            ("bundle", "--output", str(tmp_path / "bundle.tar.gz")),
        )  # fmt: skip
        for words in looking:
            code, _, err = await run(*words)
            assert (code, err) == (0, ""), words
        copy = tmp_path / "copy.db"
        acting: Sequence[tuple[str, ...]] = (
            ("pause",), ("failover", "standby"), ("reload",), ("submit", "Hello"),
            ("wait", told["event_id"]), ("backup", "--output", str(copy)), ("capture", "1"),
            ("events", "purge", "--state", "succeeded", "--yes"), ("log-level", "debug"),
            ("loadtest", "--seconds", "1"), ("drill", "failover"), ("drill", "failover", "--yes"),
        )  # fmt: skip
        for words in acting:
            code, out, err = await run(*words)
            assert (code, out) == (1, ""), (words, err)
            assert "This socket is for looking alone" in err, words
            assert f"{house.socket} takes it from root and from members of the group" in err
            assert err.endswith("(forbidden)\n")
        assert not copy.exists()
        report = await house.json("status")
    assert (report["paused"], report["queue"]["succeeded"]) == (False, 1)
