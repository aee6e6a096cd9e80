"""The troubleshooting page: its texts are the program's own, its symptoms are provoked.

Each section under a heading of the third level is a symptom. What it says one sees (its ``text``
blocks) has to be in the code, and in what a daemon with that trouble shows; its commands are run
while the trouble is there.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from ai_ticket_daemon.config.auth import AuthConfig
from ai_ticket_daemon.config.rate_limit import RateLimitConfig
from ai_ticket_daemon.config.values.tokens import Tokens, parse_tokens
from ai_ticket_daemon.ctl.client import _explain as explain
from tests.support.control_house import QUICK, open_house
from tests.support.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from ai_ticket_daemon.config.tree import Config
    from tests.support.control_house import House

PAGE = ROOT / "docs" / "troubleshooting.md"
PARTS = ("**Confirm:**", "**Cause:**", "**Remedy:**", "**It worked when**")
NEEDS_A_SERVICE = ("systemctl ", "journalctl ", "sudo ", "ai-ticket-daemon ")
"""Commands for the installed service: tests/system runs them there."""
FAILS = {
    ("A server is down", "curl -s -m 2 http://127.0.0.1:5001/api/extra/perf"): 7,
}
"""Commands that are to fail, and their exit codes."""
SHORTEST = 8
"""Pieces of text shorter than that say too little to look for."""
EVENT = {"content": "Hello", "max_tokens": 4}


@dataclass(frozen=True)
class Symptom:
    """A section of the page: ``seen`` holds pieces of what one sees, ``commands`` what to run."""

    heading: str
    text: str

    @property
    def seen(self) -> list[str]:
        lines = "\n".join(re.findall(r"^```text\n(.*?)^```", self.text, re.MULTILINE | re.DOTALL))
        pieces = (piece.strip() for line in lines.splitlines() for piece in line.split("…"))
        return [piece for piece in pieces if len(piece) >= SHORTEST]

    @property
    def commands(self) -> list[str]:
        return re.findall(r"^\$ (.*)$", self.text, flags=re.MULTILINE)


def symptoms() -> dict[str, Symptom]:
    """Return the symptoms of the page by their headings."""
    begin = r"^### (.*)$|^## (`ai-ticketctl` cannot reach the daemon)$|^## .*$"
    page = PAGE.read_text()
    headings = list(re.finditer(begin, page, flags=re.MULTILINE))
    ends = [heading.start() for heading in headings[1:]] + [len(page)]
    return {
        name: Symptom(name, page[heading.end() : end])
        for heading, end in zip(headings, ends, strict=True)
        if (name := heading[1] or heading[2])
    }


# ------------------------------------------------------------------------------------- the troubles


async def post(house: House, body: object = EVENT, **headers: str) -> str:
    """Hand an event in as a client would; return what came, headers and all."""
    url = f"{house.running.url}/event"
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        answer = await client.post(url, json=body, headers=headers)
    return f"{answer.status_code} {dict(answer.headers)}\n{answer.text}"


async def health(house: House, *reasons: str) -> str:
    """Return the health as soon as it gives all these reasons."""
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        with trio.fail_after(60):
            while True:
                text = (await client.get(f"{house.running.url}/health")).text
                if all(reason in text for reason in reasons):
                    return text
                await trio.sleep(0.05)


async def nobody_serves(house: House) -> str:
    for server in (house.primary, house.standby):
        server.faults.die(reset=True)
    await house.until(lambda report: report["status"] == "unhealthy")
    return await post(house)


async def queue_is_full(house: House) -> str:
    await house.ctl("pause")
    await post(house, prefer="respond-async")
    return await post(house)


async def drained(house: House) -> str:
    await house.ctl("drain")
    return await post(house)


async def store_is_gone(house: House) -> str:
    (house.folder / "store" / "events.db").rename(house.folder / "moved")
    seen = await health(house, "the store cannot be written: ")
    assert "503" in (answer := await post(house))
    assert "store_unavailable" in answer
    return seen


async def deadlines_pass(house: House) -> str:
    await house.ctl("pause")
    seen = [await post(house, {**EVENT, "timeout_seconds": 0.2})]
    await house.ctl("unpause")
    house.primary.faults.stall(after_tokens=1, ignores_abort=False)

    async def run() -> None:
        seen.append(await post(house, {**EVENT, "max_tokens": 40, "timeout_seconds": 3}))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await house.primary.wait_for(lambda simulated: simulated.running)
        seen.append(await post(house, {**EVENT, "timeout_seconds": 0.2}))
    return "".join(seen)


async def prompt_too_long(house: House) -> str:
    return await post(house, {**EVENT, "content": "hello " * 9000})


async def tokens_missing(house: House) -> str:
    answers = [
        await post(house),
        await post(house, **{"x-api-key": "not-a-token-of-anybody"}),
        await post(house, **{"x-api-key": "a-token-that-only-reads"}),
    ]
    assert [answer[:3] for answer in answers] == ["401", "401", "403"]
    return "".join(answers)


async def too_many_requests(house: House) -> str:
    await post(house)
    return await post(house)


async def media_type_missing(house: House) -> str:
    return await post(house, **{"content-type": "application/x-www-form-urlencoded"})


async def key_used_again(house: House) -> str:
    await post(house, **{"idempotency-key": "ticket-4711"})
    return await post(house, {**EVENT, "content": "edited"}, **{"idempotency-key": "ticket-4711"})


async def event_unknown(house: House) -> str:
    async with httpx.AsyncClient(base_url=house.running.url, trust_env=False, timeout=60) as client:
        return (await client.get("/event/01890a5d-ac96-774b-bcce-b302099a8057")).text


async def servers_fail(house: House) -> str:
    for server in (house.primary, house.standby):
        server.faults.script("server_error", times=10)
    return await post(house)


async def cut_off(house: House) -> str:
    return await post(house, {**EVENT, "max_tokens": 1})


async def standby_serves(house: House) -> str:
    house.primary.faults.die(reset=True)
    return await health(house, "on the standby")


async def servers_down(house: House) -> str:
    house.primary.faults.die(reset=True)
    house.standby.faults.freeze()
    return await health(house, "cannot be reached", "no answer within")


async def primary_stuck(house: House) -> str:
    house.primary.faults.stall(after_tokens=1)
    return await health_during_an_event(house, 40, "primary is stuck: ")


async def wrong_models(house: House) -> str:
    faults = house.primary.faults
    seen = ""
    for cause, reason in (
        (faults.lose_model, "has no model loaded"),
        (partial(faults.swap_model, model="other"), "standby is wrong_model: serves the model"),
        (partial(faults.swap_model, context_tokens=4096), "standby is wrong_model: has a context"),
    ):
        cause()
        seen += await health(house, reason)
        faults.clear()
    return seen


async def unauthorised(house: House) -> str:
    house.primary.faults.reject_credentials()
    return await health(house, "primary is unauthorised: does not accept the configured password")


async def paused(house: House) -> str:
    await house.ctl("pause")
    return await health(house, "paused by an operator") + await house.ctl("status")


async def held_up(house: House) -> str:
    await house.ctl("pause")
    await post(house, prefer="respond-async")
    report = await house.until(lambda report: report["queue"]["queued"] == 1)
    assert report["queue"]["running"] == 0
    return await house.ctl("status")


async def standby_helps(house: House) -> str:
    house.primary.faults.script("server_error", times=10)
    house.standby.faults.slow_down(tokens_per_second=10)
    return await health_during_an_event(house, 60, "helps out with")


async def health_during_an_event(house: House, max_tokens: int, reason: str) -> str:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(post, house, {**EVENT, "max_tokens": max_tokens})
        seen = await health(house, reason)
        nursery.cancel_scope.cancel()
    return seen


async def nobody_answers(house: House) -> str:
    """Three sockets: none, one that is dead, one that is silent."""
    gone, dead, silent = (house.folder / name for name in ("gone", "dead", "silent"))
    said = ""
    left_behind, listener = (trio.socket.socket(trio.socket.AF_UNIX) for _ in range(2))
    await left_behind.bind(str(dead))
    left_behind.close()
    await listener.bind(str(silent))
    listener.listen(1)
    for path in (gone, dead, silent):
        command = ["--socket", str(path), "--timeout", "0.2", "status"]
        ctl = Path(sys.executable).with_name("ai-ticketctl")
        done = await trio.run_process([ctl, *command], capture_stderr=True, check=False)
        assert done.returncode == 69
        said += done.stderr.decode()
    listener.close()
    # Root may open anything: tests/system shows that others are told this.
    return said + explain(PermissionError(), gone)


def with_tokens(config: Config) -> Config:
    tokens = parse_tokens("looker:a-token-that-only-reads read\n")
    return replace(config, auth=AuthConfig(Tokens(Path("/tokens"), tokens)))


def one_request(config: Config) -> Config:
    return replace(config, rate_limit=RateLimitConfig(requests=1))


def room_for_one(config: Config) -> Config:
    return replace(config, store=replace(config.store, max_queued=1))


def soon_stuck(config: Config) -> Config:
    return replace(config, backends=replace(config.backends, stall_timeout_seconds=0.3))


def soon_down(config: Config) -> Config:
    return replace(config, backends=replace(config.backends, probe_timeout_seconds=1.0))


def as_it_is(config: Config) -> Config:
    return config


PROVOKED: dict[str, tuple[Callable[[House], Awaitable[str]], Callable[[Config], Config]]] = {
    # heading: (what makes the trouble and returns what one sees, what the configuration needs)
    "`503 no_backend_available`": (nobody_serves, as_it_is),
    "`503 queue_full`": (queue_is_full, room_for_one),
    "`503 draining`": (drained, as_it_is),
    "`503 store_unavailable`": (store_is_gone, as_it_is),
    "`504 deadline_exceeded`": (deadlines_pass, as_it_is),
    "`422 context_overflow`": (prompt_too_long, as_it_is),
    "`401 unauthorised`, `403 forbidden`": (tokens_missing, with_tokens),
    "`429 rate_limited`": (too_many_requests, one_request),
    "`415 unsupported_media_type`": (media_type_missing, as_it_is),
    "`409 idempotency_conflict`": (key_used_again, as_it_is),
    "`404 event_not_found`": (event_unknown, as_it_is),
    "`502 api_server_error` and other `api_` codes": (servers_fail, as_it_is),
    "The completion is cut off": (cut_off, as_it_is),
    "degraded": (standby_serves, as_it_is),
    "A server is down": (servers_down, soon_down),
    "A server is stuck": (primary_stuck, soon_stuck),
    "A server is wrong_model": (wrong_models, as_it_is),
    "A server is unauthorised": (unauthorised, as_it_is),
    "paused": (paused, as_it_is),
    "Events wait and nothing runs": (held_up, as_it_is),
    "A standby helps out": (standby_helps, as_it_is),
    "`ai-ticketctl` cannot reach the daemon": (nobody_answers, as_it_is),
}

PROCESS, UPGRADES = "system/test_process.py", "system/test_upgrades.py"
SERVICE, RESTARTS = "system/test_systemd_service.py", "system/test_systemd_restarts.py"
REQUESTS, TRACES = "integration/test_http_requests.py", "integration/test_telemetry_traces.py"
ELSEWHERE = {
    # heading: (file, test) that provokes it
    "Exit code 78": (PROCESS, "a_bad_file_ends_with_78_and_lists_every_mistake"),
    "Exit code 69": (PROCESS, "a_taken_port_ends_with_69_and_names_it"),
    "Exit code 70": (
        UPGRADES,
        "an_upgrade_that_does_not_start_is_taken_back_and_loses_no_event",
    ),
    "243/CREDENTIALS": (
        UPGRADES,
        "a_service_without_its_credentials_is_brought_back_as_the_documents_say",
    ),
    "Start request repeated too quickly": (
        UPGRADES,
        "a_daemon_that_crashes_too_often_is_brought_back_as_the_documents_say",
    ),
    "Connection refused": (
        UPGRADES,
        "a_daemon_that_crashes_too_often_is_brought_back_as_the_documents_say",
    ),
    "`500 internal_error`": (REQUESTS, "a_crash_is_an_internal_error_and_the_server_goes_on"),
    "Connection reset, or closed without an answer": (
        "integration/test_http_listeners.py",
        "stopping_closes_idle_connections_and_lets_requests_finish",
    ),
    "No answer for a long time": (REQUESTS, "a_silent_stream_is_kept_alive_by_heartbeats"),
    "A stream arrives in one piece": (REQUESTS, "each_piece_of_a_stream_is_written_at_once"),
    "An event was done twice": (
        "integration/test_http_async.py",
        "the_same_key_gives_the_same_event_however_it_is_asked",
    ),
    "LAST RELOAD REFUSED": (SERVICE, "a_bad_file_fails_the_reload_and_the_daemon_goes_on"),
    "A changed key has no effect": (PROCESS, "hup_applies_a_good_file_and_refuses_a_bad_one"),
    "A stop takes long": (PROCESS, "a_second_stop_ends_at_once_and_frees_the_backend"),
    "watchdog_starved": (
        SERVICE,
        "a_blocked_event_loop_is_ended_and_replaced_by_the_watchdog",
    ),
    "control_unavailable": (
        "integration/test_control.py",
        "a_socket_that_cannot_be_opened_does_not_stop_the_daemon",
    ),
    "log_lines_dropped": (
        RESTARTS,
        "a_flood_of_lines_into_a_stalled_journal_holds_up_no_client",
    ),
    "collector_unreachable": (TRACES, "a_dead_collector_costs_one_warning_and_a_counter"),
    "JSON lines about spans": (TRACES, "the_console_gets_one_json_line_per_span"),
    "A file cannot be read as a service only": (
        SERVICE,
        "the_daemon_sees_the_host_read_only_and_without_others",
    ),
}
NOT_PROVOKED = {
    "A server times out as a service only": "the containers of the tests do not filter addresses",
}


# ---------------------------------------------------------------------------------------- the tests


def constants() -> Iterator[str]:
    """Yield every piece of text in the package."""
    for file in (ROOT / "ai_ticket_daemon").rglob("*.py"):
        if "testing" not in file.parts:
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def test_every_symptom_is_provoked_here_or_by_a_test_that_exists() -> None:
    assert symptoms().keys() == PROVOKED.keys() | ELSEWHERE.keys() | NOT_PROVOKED.keys()
    for file, test in ELSEWHERE.values():
        assert f"def test_{test}(" in (ROOT / "tests" / file).read_text()


@pytest.mark.parametrize("symptom", symptoms().values(), ids=symptoms())
def test_a_symptom_can_be_confirmed_and_cured(symptom: Symptom) -> None:
    places = [symptom.text.find(part) for part in PARTS]

    assert -1 not in places
    assert places == sorted(places)
    assert symptom.commands != []


def test_what_one_sees_is_what_the_program_says() -> None:
    said = "\0".join(constants())

    for symptom in symptoms().values():
        # JSON is not written as such in the code; what it looks like is seen below.
        pieces = [piece for piece in symptom.seen if not piece.startswith('"')]
        assert [piece for piece in pieces if piece not in said] == []


def test_the_list_leads_to_every_symptom() -> None:
    page = PAGE.read_text()
    listed = page.partition("## What do you see?")[2].partition("\n## ")[0]
    links = set(re.findall(r"\]\(#([^)]+)\)", listed))

    for heading in symptoms():
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        assert slug in links, heading


@pytest.mark.parametrize("heading", PROVOKED)
async def test_a_symptom_looks_as_described_and_its_commands_work(
    heading: str, capsys: pytest.CaptureFixture[str]
) -> None:
    provoke, change = PROVOKED[heading]
    symptom = symptoms()[heading]
    async with open_house(capsys, QUICK, change) as house:
        seen = re.sub(r"\\(.)", r"\1", await provoke(house))

        assert [piece for piece in symptom.seen if piece not in seen] == []
        for command in symptom.commands:
            if not command.startswith(NEEDS_A_SERVICE):
                code = await run(house, command)
                assert code == FAILS.get((heading, command), 0), command


async def run(house: House, command: str) -> int:
    """Run a command of the page against the house; return its exit code."""
    bin_folder = Path(sys.executable).parent
    address = house.running.url.removeprefix("http://")
    for here, there in {
        "127.0.0.1:5000": address,
        "127.0.0.1:5001": house.primary.url.removeprefix("http://"),
        "ai-ticketctl ": f"ai-ticketctl --socket {shlex.quote(str(house.socket))} ",
    }.items():
        command = command.replace(here, there)
    environment = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    with trio.fail_after(60):
        done = await trio.run_process(
            ["bash", "-c", command], capture_stdout=True, check=False, env=environment
        )
    return done.returncode
