"""The control socket and ``ai-ticketctl``, on a daemon that runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
import tarfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx
import msgspec
import pytest
import trio

from ai_ticket_daemon.config.auth import AuthConfig
from ai_ticket_daemon.config.backends import Failback, ServerConfig
from ai_ticket_daemon.config.control import DEFAULT_SOCKET, ControlConfig
from ai_ticket_daemon.config.read.errors import ConfigError, Problem
from ai_ticket_daemon.config.values.tokens import Tokens, parse_tokens
from ai_ticket_daemon.control.operation import Access
from ai_ticket_daemon.control.server import socket_path
from ai_ticket_daemon.ctl import main as ctl
from ai_ticket_daemon.ctl.cli import parser
from ai_ticket_daemon.ctl.client import Client, Refused
from ai_ticket_daemon.ctl.command_tree import each_command
from ai_ticket_daemon.testing.daemon import config_for, open_daemon
from ai_ticket_daemon.testing.kobold import KoboldSettings, open_simulated_kobold
from tests.support.control_house import QUICK, SLOW, House, open_house

if TYPE_CHECKING:
    from ai_ticket_daemon.config.tree import Config
    from ai_ticket_daemon.control.operation import Operation

Captured = pytest.CaptureFixture[str]
JSON = "application/json"

FIELDS = {
    "status": (
        "addresses backends capacity capture_payloads draining events_per_second in_flight "
        "log_level max_concurrency metrics oldest_queued_seconds paused pid queue ready "
        "reasons refused_clients reload serving status store uptime_seconds version warnings wasted"
    ),
    "backends": "backends serving",
    "audit": "accepted difference problems pruned states",
    "check-config": "problems valid warnings",
    "reload": "applied live needs_restart problems valid warnings",
    "pause": "in_flight not_reached paused reached scope",
    "unpause": "not_reached paused reached scope",
    "auto": "detail not_reached pinned reached reason role scope",
    "failback": "detail not_reached pinned reached reason role scope",
    "drain": "draining in_flight not_reached reached scope",
    "resume": "draining not_reached reached scope",
    "events show": (
        "ahead attempts backend claimed_at client deadline_at due_at ended_at error event_id "
        "failure idempotency_key max_tokens overtaken owner place position priority reasoning "
        "reasoning_effort state stream submitted_at trace_context usage"
    ),
    "why": "event_id lines state",
    "failover SERVER": "detail not_reached pinned reached reason role scope",
    "wake SERVER": "server state",
    "log-level debug": "log_level until",
    "capture 1": "capture_payloads directory until",
    "reload --plan": "live needs_restart problems valid",
    "events purge": "action changed found such_as",
    "backup FILE": "bytes events written",
    "bundle FILE": "bytes files written",
    "events list": (
        "ahead backend claimed_at deadline_at due_at ended_at error event_id overtaken owner "
        "place priority state submitted_at"
    ),
    "backends, each": (
        "active in_flight kind max_in_flight name pinned reason resting_seconds role state "
        "url usable"
    ),
    "loadtest --seconds 0.5": (
        "advice answer_seconds arrived_per_second at daemon error_share errors events failed "
        "first_text_seconds generator_late_seconds interrupted loadtest max_tokens missed "
        "pattern seconds slo stream succeeded succeeded_per_second target took_seconds verdict"
    ),
    "drill failover --yes": (
        "at back_by back_seconds before_seconds by doubled drill events events_that_moved failed "
        "late looked_every_seconds lost not_sent to_standby_seconds unaccounted verdict"
    ),
    "submit": (
        "attempts backend completion done duration_seconds event_id finish_reason metadata usage"
    ),
}
"""What a program is told by each command under ``--json``."""


async def test_status_shows_who_serves_and_what_waits(capsys: Captured) -> None:
    async with open_house(capsys) as house:
        report = await house.json("status")
        screen = await house.ctl("status")
        servers = await house.ctl("backends")
    assert report["status"] == "healthy"
    assert report["serving"]["role"] == "primary"
    assert [b["name"] for b in report["backends"]] == ["primary", "standby"]
    assert report["store"]["fault"] is None
    assert "healthy" in screen
    assert "0 queued" in screen
    assert "standby" in servers


async def test_only_owner_and_group_may_open_the_socket(capsys: Captured) -> None:
    async with open_house(capsys) as house:
        assert house.socket.stat().st_mode & 0o777 == 0o660
    assert not house.socket.exists()


async def test_every_change_is_logged_with_who_made_it_and_no_look_is(capsys: Captured) -> None:
    async with open_house(capsys) as house:
        await house.ctl("status")
        await house.ctl("log-level", "debug")
        await house.ctl("failover", "nowhere", code=4)
        changes = house.running.log("control_change")
    assert [(c["operation"], c["result"]) for c in changes] == [
        ("log-level", "done"),
        ("failover", "not_found"),
    ]
    assert {c["uid"] for c in changes} == {os.getuid()}
    assert {c["pid"] for c in changes} == {os.getpid()}
    assert changes[0]["arguments"] == {"level": "debug"}


async def test_the_audit_says_of_each_change_what_became_of_it(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(capsys) as house:
        told = await house.json("submit", "Hello", "--max-tokens", "4")
        await house.ctl("events", "cancel", told["event_id"])
        await house.ctl("events", "retry", told["event_id"])
        await house.ctl("events", "purge", "--state", "succeeded")
        await house.ctl("events", "purge", "--state", "succeeded", "--yes")
        await house.ctl("reload")
        monkeypatch.setattr(house.running.daemon._reloader, "_load", _refuse)
        await house.ctl("reload", code=1)
        changes = house.running.log("control_change")
    assert [(c["operation"], c["result"]) for c in changes] == [
        ("cancel", "unchanged"),
        ("retry", "unchanged"),
        ("bulk", "counted"),
        ("bulk", "done"),
        ("reload", "done"),
        ("reload", "refused"),
    ]


def _refuse() -> Config:
    raise ConfigError([Problem("ai-ticket.conf", 3, "log.level", "is a mistake")])


async def test_failover_pins_and_auto_gives_the_rules_back(capsys: Captured) -> None:
    async with open_house(capsys) as house:
        pinned = await house.json("failover", "standby")
        served = await house.json("submit", "Hello", "--max-tokens", "4")
        refused = await house.ctl("failback", code=1)
        await house.ctl("auto")
        await house.ctl("failback")
        back = await house.json("submit", "Hello", "--max-tokens", "4")
    assert (pinned["pinned"], pinned["role"]) == ("standby", "standby")
    assert served["backend"] == "standby"
    assert "standby is pinned" in refused
    assert back["backend"] == "primary"


async def test_a_paused_daemon_keeps_events_and_starts_none(capsys: Captured) -> None:
    async with open_house(capsys) as house:
        await house.ctl("pause")
        told = await house.json("submit", "Hello", "--no-wait", "--max-tokens", "4")
        report = await house.until(lambda r: r["queue"].get("queued") == 1)
        assert report["paused"]
        assert "it waits in place 1" in await house.ctl("why", told["event_id"])
        await house.ctl("unpause")
        await house.until(lambda r: r["queue"].get("succeeded") == 1)


async def test_an_event_that_was_not_waited_for_can_be_waited_for_by_its_bare_id(
    capsys: Captured,
) -> None:
    async with open_house(capsys) as house:
        told = await house.ctl("submit", "Hello", "--no-wait", "--max-tokens", "4")
        event_id = told.rstrip("\n")
        assert re.fullmatch(r"[0-9a-f-]{36}", event_id)
        completion = await house.ctl("wait", event_id)
        assert completion.strip()
        assert (await house.json("wait", event_id))["completion"] == completion.rstrip("\n")
        assert "event_not_found" in await house.ctl("wait", event_id[::-1], code=4)
        await house.ctl("pause")
        held = await house.ctl("submit", "Hello", "--deadline", "1s", code=1)
    assert "the daemon is paused, so the event waits" in held
    assert "paused by an operator since" in held
    assert "deadline_exceeded" in held


async def test_what_goes_into_a_pipe_has_no_blanks_at_the_ends_of_its_lines(
    capsys: Captured,
) -> None:
    async with open_house(capsys) as house:
        for words in (["status"], ["backends"], ["events", "list"]):
            told = await house.ctl(*words)
            assert [line for line in told.splitlines() if line != line.rstrip()] == []


async def test_a_drained_daemon_refuses_until_it_is_resumed(capsys: Captured) -> None:
    async with open_house(capsys) as house:
        await house.ctl("drain")
        assert (await house.json("status"))["ready"] is False
        assert "draining" in await house.ctl("submit", "Hello", code=1)
        await house.ctl("resume")
        assert (await house.json("submit", "Hello", "--max-tokens", "4"))["completion"]


async def test_the_address_of_a_client_leads_from_its_event_and_from_its_refusals(
    capsys: Captured,
) -> None:
    tokens = Tokens(Path("/tokens"), parse_tokens("bot:bot-token-bot-token"))

    def with_tokens(config: Config) -> Config:
        return replace(config, auth=AuthConfig(tokens))

    async with open_house(capsys, change=with_tokens) as house:
        async with httpx.AsyncClient(base_url=house.running.url, timeout=60) as client:
            event = {"content": "Hello", "max_tokens": 4}
            known = {"authorization": "Bearer bot-token-bot-token"}
            told = (await client.post("/event", json=event, headers=known)).json()
            assert (await client.post("/event", json=event)).status_code == 401
            port = house.running.daemon.metrics_port
            page = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        shown = await house.json("events", "show", told["event_id"])
        life = await house.ctl("why", told["event_id"])
        report = await house.json("status")
        screen = await house.ctl("status")
        lines = house.running.log("request")
    assert shown["client"] == "127.0.0.1"
    assert "accepted from bot at 127.0.0.1" in life
    (refused,) = report["refused_clients"]
    assert (refused["client"], refused["number"]) == ("127.0.0.1", 1)
    assert "127.0.0.1: once, unauthorised" in screen
    assert ("127.0.0.1", 401) in [(line["client"], line["status"]) for line in lines]
    assert '"127.0.0.1"' not in page


async def test_why_tells_the_life_of_an_event(capsys: Captured) -> None:
    async with open_house(capsys) as house:
        await house.ctl("pause")
        first = await house.json("submit", "One", "--no-wait", "--max-tokens", "4")
        second = await house.json("submit", "Two", "--no-wait", "--max-tokens", "4")
        await house.ctl("unpause")
        await house.until(lambda r: r["queue"].get("succeeded") == 2)
        told = await house.ctl("events", "why", second["event_id"])
        lines = (await house.json("why", first["event_id"]))["lines"]
    assert "accepted with priority 5, 1 event ahead" in told
    assert "behind 1" in told
    assert "attempt 1 gave the completion" in told
    assert "succeeded on primary: " in told
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)


async def test_why_tells_of_the_server_that_died_under_it(capsys: Captured) -> None:
    async with open_house(capsys, SLOW) as house:
        told = await house.json("submit", "Hello", "--no-wait", "--max-tokens", "60")
        await house.until(lambda r: r["in_flight"] == 1)
        house.primary.faults.die(reset=True)
        await house.until(lambda r: r["queue"].get("succeeded") == 1)
        life = await house.ctl("why", told["event_id"])
        [waste] = (await house.json("status"))["wasted"]
        assert "wasted" in await house.ctl("status")
    assert (waste["backend"], waste["cause"]) == ("primary", "api_connection_error")
    assert 0 < waste["seconds"] < 10
    assert "attempt 1 failed after" in life
    assert "primary became down" in life
    assert "attempt 2 went to standby" in life
    assert "succeeded on standby" in life


async def test_events_are_found_retried_cancelled_and_purged(capsys: Captured) -> None:
    async with open_house(capsys) as house:
        await house.ctl("pause")
        ids = [
            (await house.json("submit", f"n{n}", "--no-wait", "--max-tokens", "4"))["event_id"]
            for n in range(3)
        ]
        listed = await house.json("events", "list", "--state", "queued")
        assert [event["event_id"] for event in listed] == ids[::-1]
        assert ids[0] in await house.ctl("events", "list", "--limit", "3")
        shown = await house.json("events", "show", ids[0])
        assert shown["state"] == "queued"
        assert "n0" not in json.dumps(shown)

        await house.ctl("events", "cancel", ids[0])
        counted = await house.json("events", "cancel", "--state", "queued")
        assert (counted["found"], counted["changed"]) == (2, 0)
        done = await house.json("events", "cancel", "--state", "queued", "--yes")
        assert (done["found"], done["changed"]) == (2, 2)
        assert "name an event" in await house.ctl("events", "cancel", code=2)
        assert "retry is for events that are failed" in await house.ctl(
            "events", "retry", "--state", "queued", code=2
        )
        gone = await house.json("events", "purge", "--state", "cancelled", "--yes")
        assert gone["changed"] == 3
        await house.ctl("events", "show", ids[0], code=4)
        assert (await house.json("audit"))["difference"] == 0


async def test_failed_events_are_retried_by_their_error(capsys: Captured) -> None:
    async with open_house(capsys) as house:
        for simulated in (house.primary, house.standby):
            simulated.faults.reject_credentials()
        told = await house.json("submit", "Hello", "--no-wait", "--max-tokens", "4")
        await house.until(lambda r: r["queue"].get("failed") == 1 or not r["ready"])
        event = await house.json("events", "show", told["event_id"])
        for simulated in (house.primary, house.standby):
            simulated.faults.clear()
        await house.until(lambda r: all(b["usable"] for b in r["backends"]))
        if event["state"] == "failed":
            done = await house.json("events", "retry", "--error", event["error"], "--yes")
            assert done["changed"] == 1
        await house.until(lambda r: r["queue"].get("succeeded") == 1)


async def test_reload_plan_says_what_would_change_and_changes_nothing(capsys: Captured) -> None:
    async with open_house(capsys) as house:
        before = house.running.daemon
        plan = await house.json("reload", "--plan")
        await house.ctl("check-config")
        assert house.running.log("reload_applied") == []
        applied = await house.json("reload")
        assert house.running.log("reload_applied") != []
    assert before is house.running.daemon
    assert plan == {"valid": True, "problems": [], "live": [], "needs_restart": [], "warnings": []}
    assert applied["applied"] is True


async def test_captures_and_log_level_change_until_the_next_reload(capsys: Captured) -> None:
    async with open_house(capsys) as house:
        await house.ctl("capture", "5")
        await house.ctl("log-level", "warning")
        report = await house.json("status")
        assert (report["capture_payloads"], report["log_level"]) == (5, "warning")
        plan = await house.json("reload", "--plan")
        assert plan["live"] == ["log.capture_payloads: 5 -> 0"]
        await house.ctl("reload")
        report = await house.json("status")
        assert (report["capture_payloads"], report["log_level"]) == (0, "info")


async def test_a_stream_is_followed_and_ndjson_is_submitted(
    capsys: Captured, tmp_path: Path
) -> None:
    batch = tmp_path / "batch.ndjson"
    batch.write_text("".join(f'{{"content": "n{n}", "max_tokens": 4}}\n' for n in range(7)))
    async with open_house(capsys) as house:
        text = await house.ctl("submit", "Tell me.", "--follow", "--max-tokens", "12")
        expected = house.primary.expected_completion("Tell me.", max_tokens=12)
        answers = (await house.ctl("submit", "--file", batch)).splitlines()
    assert text.startswith(expected)
    assert len({json.loads(answer)["event_id"] for answer in answers}) == 7


THINKING = replace(QUICK, version="1.115", thinking=True)


@pytest.mark.parametrize("how", [(), ("--follow",)])
async def test_what_the_model_thinks_is_printed_beside_the_completion(
    capsys: Captured, how: tuple[str, ...]
) -> None:
    async with open_house(capsys, THINKING) as house:
        wanted = ("submit", "Is it?", "--max-tokens", "16", "--reasoning", *how)
        captured: list[str] = []

        def run() -> int:
            return ctl.main(["--socket", str(house.socket), *wanted])

        capsys.readouterr()
        assert await trio.to_thread.run_sync(run) == 0
        captured += capsys.readouterr()
        told = await house.json("submit", "Is it?", "--max-tokens", "16", "--reasoning")
        silent = await house.json("submit", "Is it?", "--max-tokens", "16")
    out, err = captured
    assert told["completion"]
    assert told["reasoning"]
    assert "reasoning" not in silent
    assert out == told["completion"] + "\n"
    thought, _, rest = err.partition("\n")
    assert thought == told["reasoning"]
    assert rest.endswith(" on primary\n")


async def test_what_the_model_is_to_think_is_asked_of_many_events_and_printed_later(
    capsys: Captured, tmp_path: Path
) -> None:
    batch = tmp_path / "batch.ndjson"
    batch.write_text('{"content": "Is it?", "max_tokens": 16}\n' * 2)
    asked = ("--reasoning", "--reasoning-effort", "low")
    async with open_house(capsys, THINKING) as house:
        lines = (await house.ctl("submit", "--file", batch, *asked)).splitlines()
        accepted = await house.json("submit", "Is it?", "--no-wait", "--max-tokens", "16", *asked)
        event_id = accepted["event_id"]
        later = await house.ctl("wait", event_id, "--reasoning")
        event = (await house.json("events", "show", event_id))["reasoning_effort"]
        silent = await house.ctl("wait", event_id)
        assert "invalid choice: 'much'" in await house.ctl(
            "submit", "x", "--reasoning-effort", "much", code=2
        )
    thoughts = {json.loads(line)["reasoning"] for line in lines}
    assert len(thoughts) == 1
    assert later == silent + thoughts.pop() + "\n"
    assert event == "low"


async def test_lines_are_submitted_in_windows_and_answered_by_their_number(
    capsys: Captured, tmp_path: Path
) -> None:
    def three_at_once(config: Config) -> Config:
        return replace(config, events=replace(config.events, max_batch=3))

    batch = tmp_path / "batch.ndjson"
    lines = [f'{{"content": "n{n}", "max_tokens": 4}}' for n in range(8)]
    batch.write_text("\n".join([*lines[:4], "nonsense", '{"no": "content"}', *lines[4:]]))
    async with open_house(capsys, change=three_at_once) as house:
        told = await house.ctl("submit", "--file", batch, code=1)
        waits_not = await house.ctl("submit", "--file", batch, "--no-wait", code=1)
        assert "--follow is for one" in await house.ctl(
            "submit", "--file", batch, "--follow", code=2
        )
        assert (await house.json("audit"))["accepted"] == 16
    answers = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    assert sorted(answer["line"] for answer in answers) == list(range(1, 11))
    statuses = {answer["line"]: answer["status"] for answer in answers}
    assert {line for line, status in statuses.items() if status != 200} == {5, 6}
    assert "line 5 is no JSON" in told
    assert "2 of 10 events failed" in told
    assert waits_not.count('"status": 202') == 8


async def test_lines_without_an_answer_are_told_when_the_daemon_goes_away(
    capsys: Captured, tmp_path: Path
) -> None:
    batch = tmp_path / "batch.ndjson"
    batch.write_text('{"content": "x", "max_tokens": 60}\n' * 5)
    async with open_house(capsys, SLOW) as house, trio.open_nursery() as nursery:

        async def submit() -> None:
            said = await house.ctl("submit", "--file", batch, code=69)
            assert "5 lines from 1 to 5 have no answer" in said
            nursery.cancel_scope.cancel()

        nursery.start_soon(submit)
        while house.running.daemon._pipeline.in_flight == 0:  # noqa: ASYNC110
            await trio.sleep(0.01)
        house.running.stop()
        house.running.stop()


async def test_a_bundle_has_no_secrets_and_no_prompts(capsys: Captured, tmp_path: Path) -> None:
    output = tmp_path / "bundle.tar.gz"
    async with open_house(capsys) as house:
        await house.ctl("submit", "a very private prompt", "--max-tokens", "4")
        await house.ctl("bundle", "--output", output)
    assert output.stat().st_mode & 0o777 == 0o600
    with tarfile.open(output) as archive:
        texts = {
            Path(member.name).name: archive.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in archive
        }
    assert "private" not in "".join(texts.values())
    assert "journal.ndjson  none: " in texts["README.txt"] or texts["journal.ndjson"]
    assert '"event": "started"' in texts["logs.ndjson"]
    assert "ai_ticket_build_info" in texts["metrics.txt"]
    assert "control" in texts["tasks.txt"]
    assert json.loads(texts["config.json"])["servers"]["primary"]["role"] == '"primary"'


async def test_a_backup_is_taken_live_and_restored_when_stopped(
    capsys: Captured, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    async with open_house(capsys) as house:
        done = await house.json("submit", "Hello", "--max-tokens", "4")
        assert (await house.json("backup", "--output", copy))["events"] == 1
        await house.ctl("backup", "--output", copy, code=1)
        copies = tmp_path / "copies"
        copies.mkdir()
        (copies / "events-20200101T000000Z.db").touch()
        told = await house.json("backup", "--directory", copies, "--keep", "1")
        assert [told["written"]] == [str(copies / name) for name in os.listdir(copies)]  # noqa: PTH208
        target = house.folder / "store" / "events.db"
        with trio.fail_after(60):  # it is removed once it was sent, which is soon after it was read
            while any("backup" in name for name in os.listdir(target.parent)):  # noqa: ASYNC110, PTH208
                await trio.sleep(0.01)
        elsewhere = ["--socket", str(tmp_path / "none")]
        for words in ([], elsewhere):
            refused = await house.ctl("restore", copy, "--to", target, *words, code=1)
            assert "systemctl stop ai-ticket.socket ai-ticket.service" in refused
        await house.ctl("submit", "More", "--max-tokens", "4")
        house.running.stop()
        await house.running.stopped.wait()
        told = await house.json("restore", copy, "--to", target)
        assert (await house.json("restore", told["kept"], "--to", tmp_path / "x.db"))["events"] == 2
    assert (told["events"], done["event_id"].encode() in copy.read_bytes()) == (1, True)


async def test_a_bad_field_is_named_by_its_line_in_the_file_however_many_came_before(
    capsys: Captured, tmp_path: Path
) -> None:
    """They are sent in requests of 200 lines, in which they have other numbers."""
    file = tmp_path / "events.ndjson"
    file.write_text('{"content": "x", "max_tokens": 0}\n' * 203)
    async with open_house(capsys) as house:
        told = await house.ctl("submit", "--file", file, code=1)
    answers = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    assert [answer["line"] for answer in answers] == list(range(1, 204))
    for answer in answers:
        assert answer["details"]["line"] == answer["line"]
        assert answer["message"].startswith(f"Line {answer['line']}: ")


async def test_a_load_test_reports_and_judges(capsys: Captured) -> None:
    # These clients wait for this server all the time: each look at the slots finds one in use. And
    # they are never late, as events are that come so many a second on a busy machine.
    async with open_house(capsys, SLOW) as house:
        load = ["loadtest", "--clients", "2", "--seconds", "2", "--max-tokens", "4"]
        met = await house.json(*load)
        missed = await house.json(*load, "--slo-p95", "0.001", code=1)
        screen = await house.ctl("loadtest", "--seconds", "0.5", "--clients", "1", "--stream")
        assert "at most; use --url" in await house.ctl("loadtest", "--clients", "49", code=2)
    assert met["verdict"] == "met"
    assert met["succeeded"] == met["events"] >= 2
    assert 0 < met["answer_seconds"]["p50"] <= met["answer_seconds"]["max"]
    assert 0 < met["daemon"]["slot_use"] <= 1
    assert (met["first_text_seconds"], met["advice"]) == (None, [])
    assert missed["verdict"] == "missed"
    assert "first text" in screen


def with_a_token(config: Config) -> Config:
    tokens = Tokens(Path("/tokens"), parse_tokens("tester:s3cret-of-the-tester"))
    return replace(config, auth=AuthConfig(tokens))


async def test_a_load_test_over_the_public_address_keeps_its_report(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, kept = tmp_path / "token", tmp_path / "report.json"
    token.write_text("s3cret-of-the-tester\n")
    async with open_house(capsys, change=with_a_token) as house:
        metrics = f"http://127.0.0.1:{house.running.daemon.metrics_port}/metrics"
        load = ["loadtest", "--url", house.running.url, "--rate", "5", "--seconds", "2"]
        load += ["--max-tokens", "4", "--metrics", metrics, "--stream"]
        refused = await house.json(*load, code=1)
        met = await house.json(*load, "--token-file", token, "--output", kept)
        monkeypatch.setenv("AI_TICKET_TOKEN", "s3cret-of-the-tester")
        by_variable = await house.json(*load)
        assert "there already" in await house.ctl(*load, "--output", kept, code=1)
    assert refused["errors"] == {"unauthorised": refused["events"]}
    assert any("--token-file" in line for line in refused["advice"])
    assert (met["verdict"], by_variable["verdict"]) == ("met", "met")
    assert met["daemon"]["slots"] == 1
    assert 0 < met["first_text_seconds"]["p95"] <= met["answer_seconds"]["p95"]
    assert json.loads(kept.read_text()) == met
    assert "s3cret" not in kept.read_text()


async def test_an_interrupted_load_test_reports_what_it_has(capsys: Captured) -> None:
    async with open_house(capsys) as house:
        command = [sys.executable, "-m", "ai_ticket_daemon.ctl.main", "--json"]
        command += ["--socket", str(house.socket), "loadtest", "--seconds", "600", "--rate", "10"]
        process = await trio.lowlevel.open_process(
            [*command, "--max-tokens", "4"], stdout=PIPE, stderr=PIPE
        )
        await house.until(lambda r: r["queue"].get("succeeded", 0) >= 5)
        process.send_signal(signal.SIGINT)
        with trio.fail_after(60):
            assert process.stdout is not None
            assert process.stderr is not None
            told = json.loads(b"".join([part async for part in process.stdout]))
            assert await process.wait() == 130
            assert b"".join([part async for part in process.stderr]) == b""
    assert told["interrupted"] is True
    assert told["succeeded"] == told["events"] >= 5
    assert 0 < told["seconds"] < 60
    assert told["daemon"] is not None


async def test_a_load_test_of_nobody_says_so(capsys: Captured, tmp_path: Path) -> None:
    async with open_house(capsys) as house:
        away = ["loadtest", "--url", "http://127.0.0.1:1"]
        assert "nobody answers at http://127.0.0.1:1" in await house.ctl(*away, code=69)
        other = ["loadtest", "--url", house.running.url, "--seconds", "1", "--metrics"]
        told = await house.ctl(*other, f"{house.running.url}/live", code=69)
    assert "no slot use and queue to be had" in told


async def test_a_failover_drill_moves_live_traffic_and_loses_nothing(
    capsys: Captured, tmp_path: Path
) -> None:
    report = tmp_path / "drill.json"
    async with open_house(capsys) as house:
        assert (await house.json("drill", "failover"))["guards"] == "all met"
        told = await house.json("drill", "failover", "--yes", "--rate", "10", "--output", report)
        after = await house.json("status")
        await house.ctl("failover", "primary")
        assert "pinned already" in await house.ctl("drill", "failover", "--yes", code=1)
    assert json.loads(report.read_text()) == told
    assert (told["verdict"], told["lost"], told["doubled"]) == ("passed", [], [])
    assert (told["by"], told["back_by"]) == ("order", "order")
    assert told["events"] >= 3
    assert (after["serving"]["pinned"], after["serving"]["role"]) == (None, "primary")


def failing_back_soon(config: Config) -> Config:
    return replace(config, backends=replace(config.backends, failback_after_seconds=0.5))


async def test_a_drill_that_cuts_the_primary_off_measures_how_it_is_noticed(
    capsys: Captured,
) -> None:
    busy = KoboldSettings().scaled(0.3)  # so that a request is under way when the cut comes
    async with open_house(capsys, busy, failing_back_soon) as house:
        drill = ["drill", "failover", "--unreachable", "--yes", "--rate", "8"]
        told = await house.json(*drill)
        after = await house.json("status")
        [kept] = (house.folder / "state" / "ai-ticket").iterdir()
        changes = [c["operation"] for c in house.running.log("control_change")]
        assert json.loads(kept.read_text()) == told
        assert house.running.log("severance_ended")[0]["reason"] == "an operator asked for it"
    assert (told["verdict"], told["lost"], told["failed"], told["doubled"]) == (
        "passed",
        [],
        {},
        [],
    )
    assert told["back_by"] == "rules"
    assert 0 < told["detected_seconds"] <= told["switched_seconds"] <= told["to_standby_seconds"]
    assert 0.5 <= told["failed_back_seconds"] <= told["back_seconds"]
    assert changes == ["sever", "mend", "mend"]
    assert (after["serving"]["role"], after["severed"]["servers"]) == ("primary", [])


async def test_a_drill_asks_for_the_way_back_where_the_rules_do_not_know_it(
    capsys: Captured,
) -> None:
    def by_hand(config: Config) -> Config:
        return replace(config, backends=replace(config.backends, failback=Failback.MANUAL))

    async with open_house(capsys, change=by_hand) as house:
        assert (await house.json("status"))["failback_after_seconds"] is None
        told = await house.json("drill", "failover", "--unreachable", "--yes", "--rate", "8")
        assert (await house.json("status"))["serving"]["role"] == "primary"
    assert (told["verdict"], told["back_by"]) == ("passed", "order")


async def test_a_cut_ends_by_itself_at_a_reload_and_when_it_would_do_harm(
    capsys: Captured,
) -> None:
    def ended(house: House) -> list[str]:
        return [line["reason"] for line in house.running.log("severance_ended")]

    async def sever(house: House, seconds: float) -> None:
        client = Client(house.socket, 60.0)
        await trio.to_thread.run_sync(lambda: client.change("sever", seconds=seconds))

    async with open_house(capsys, change=failing_back_soon) as house:
        await sever(house, 2)
        report = await house.json("status")
        assert report["severed"]["servers"] == ["primary"]
        assert "isolated for" in await house.ctl("status")
        with pytest.raises(Refused, match="servers are isolated already"):
            await sever(house, 1)
        await house.until(lambda r: not r["severed"]["servers"])
        assert ended(house) == ["its time is over"]

        await house.until(lambda r: r["serving"]["role"] == "primary" and r["ready"])
        await house.until(lambda r: all(b["usable"] for b in r["backends"]))
        await sever(house, 100)
        await house.ctl("reload")
        assert ended(house)[1:] == ["the configuration was reloaded"]

        await house.until(lambda r: all(b["usable"] for b in r["backends"]))
        await house.until(lambda r: r["serving"]["role"] == "primary")
        await sever(house, 100)
        await house.until(lambda r: r["serving"]["role"] == "standby")
        house.standby.faults.die(reset=True)
        await house.until(lambda r: r["serving"]["role"] == "primary")
        assert ended(house)[2:] == ["no other server is usable"]
        with pytest.raises(Refused, match="no standby is usable"):
            await sever(house, 1)


def examples() -> list[str]:
    """Return all examples but those that need a terminal, a stopped daemon or a quiet minute."""
    found: list[str] = []
    for name, command in each_command(parser()):
        lines = re.findall(r"^  ai-ticketctl (.+)$", command.format_help(), re.MULTILINE)
        found += lines if name not in {"top", "restore"} else []
    return [example for example in found if "--unreachable" not in example]


async def test_every_example_of_the_help_works(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it stands there, but for times, ids, addresses, folders and what is behind a pipe."""
    (tmp_path / "tickets.ndjson").write_text('{"content": "x", "max_tokens": 4}\n')
    (tmp_path / "token").write_text("token\n")
    monkeypatch.chdir(tmp_path)
    async with open_house(capsys, change=failing_back_soon) as house:
        event = (await house.json("submit", "Hello", "--max-tokens", "4"))["event_id"]
        metrics = f"http://127.0.0.1:{house.running.daemon.metrics_port}/metrics"
        for example in examples():
            text = re.sub(r" \|.*| >.*", "", example)
            text = re.sub(r" < (\S+)", r" --file \1", text)
            text = text.replace("01890a5d-ac96-774b-bcce-b302099a8057", event)
            text = re.sub(r"http://127.0.0.1:9464/metrics", metrics, text)
            text = re.sub(r"http://127.0.0.1:5000|https://host", house.running.url, text)
            text = re.sub(r"/tmp/|/var/backups/", f"{tmp_path}/", text)
            if text.startswith("loadtest"):
                text += " --seconds 0.5 --max-tokens 4"
            if text.startswith(("drill", "failback")):
                await house.ctl("auto")
                await house.until(lambda r: all(b["usable"] for b in r["backends"]))
                await house.ctl("failback")
            if text.startswith("wake"):
                house.standby.faults.lose_model()
                await house.until(lambda r: r["backends"][1]["state"] == "wrong_model")
            assert await house.ctl(*shlex.split(text)), example
            house.standby.faults.clear()
    assert len(examples()) > 35


async def test_no_server_is_cut_off_while_the_role_may_not_change(capsys: Captured) -> None:
    """Or the drill would be an outage: the daemon changes the role at most 4 times a minute."""
    async with open_house(capsys) as house:
        for _ in range(2):
            await house.ctl("failover", "standby")
            await house.ctl("auto")
            await house.ctl("failback")
        said = await house.ctl("drill", "failover", "--unreachable", "--yes", code=1)
        assert "the role has changed so often within the last minute" in said
        assert (await house.json("status"))["severed"]["servers"] == []


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGHUP, 130), (signal.SIGKILL, -9)])
async def test_a_drill_whose_operator_is_gone_leaves_nothing_cut_off(
    capsys: Captured, stop: signal.Signals, code: int
) -> None:
    async with open_house(capsys, change=failing_back_soon) as house:
        # The cut is ended when the standby has answered; not before the test is through.
        house.standby.faults.slow_down(tokens_per_second=0.1)
        command = [sys.executable, "-m", "ai_ticket_daemon.ctl.main"]
        command += ["--socket", str(house.socket)]
        drill = ["drill", "failover", "--unreachable", "--yes", "--rate", "5", "--limit", "1.5"]
        process = await trio.lowlevel.open_process([*command, *drill], stderr=PIPE)
        await house.until(lambda r: bool(r["severed"]["servers"]))
        process.send_signal(stop)
        with trio.fail_after(60):
            assert await process.wait() == code
            assert process.stderr is not None
            assert b"Traceback" not in b"".join([part async for part in process.stderr])
        await house.until(lambda r: not r["severed"]["servers"])
        [ended] = house.running.log("severance_ended")
    by_itself = stop is signal.SIGKILL
    assert ended["reason"] == ("its time is over" if by_itself else "an operator asked for it")


async def test_the_fields_of_every_answer_stay(capsys: Captured, tmp_path: Path) -> None:
    """Scripts read them: more may be added, none goes away."""
    told: dict[str, set[str]] = {}
    async with open_house(capsys) as house:
        done = await house.json("submit", "Hello", "--max-tokens", "4")
        event = done["event_id"]
        for name, words in {
            **{
                name: [name] for name in FIELDS if " " not in name and name not in {"submit", "why"}
            },
            "events show": ["events", "show", event],
            "why": ["why", event],
            "log-level debug": ["log-level", "debug"],
            "capture 1": ["capture", "1"],
            "reload --plan": ["reload", "--plan"],
            "events purge": ["events", "purge", "--state", "succeeded"],
            "loadtest --seconds 0.5": ["loadtest", "--seconds", "0.5", "--clients", "1"],
            "drill failover --yes": ["drill", "failover", "--yes", "--rate", "10"],
            "backup FILE": ["backup", "--output", tmp_path / "b.db"],
            "bundle FILE": ["bundle", "--output", tmp_path / "b.tar.gz"],
            "failover SERVER": ["failover", "standby"],
        }.items():
            told[name] = set(await house.json(*words))
        assert "its model is loaded" in await house.ctl("wake", "standby", code=1)
        house.standby.faults.lose_model()
        await house.until(lambda r: r["backends"][1]["state"] == "wrong_model")
        told["wake SERVER"] = set(await house.json("wake", "standby"))
        [listed] = await house.json("events", "list", "--limit", "1")
        told["events list"] = set(listed)
        [server, _] = (await house.json("backends"))["backends"]
        told["backends, each"] = set(server)
        told["submit"] = set(done)
    gone = {name: set(fields.split()) - told[name] for name, fields in FIELDS.items()}
    assert {name: fields for name, fields in gone.items() if fields} == {}


async def test_a_socket_that_cannot_be_opened_does_not_stop_the_daemon() -> None:
    nowhere = ControlConfig(socket=Path("/nonexistent/c.sock"))
    async with open_simulated_kobold(QUICK) as simulated:
        config = replace(config_for(ServerConfig(name="a", url=simulated.url)), control=nowhere)
        async with open_daemon(config) as running:
            (line,) = running.log("control_unavailable")
    assert "/nonexistent/c.sock" in line["reason"]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /control/nothing HTTP/1.1\r\nhost: a\r\n\r\n", b"404"),
        (b"GET /control/pause HTTP/1.1\r\nhost: a\r\n\r\n", b"405"),
        (b"GET /control/events?limit=9999 HTTP/1.1\r\nhost: a\r\n\r\n", b"422"),
        (b"GET /control/events?state=odd HTTP/1.1\r\nhost: a\r\n\r\n", b"422"),
        (b"GET /control/status?odd=1 HTTP/1.1\r\nhost: a\r\n\r\n", b"422"),
        (b"POST /control/pause HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n{", b"400"),
        (b"POST /control/pause HTTP/1.1\r\nhost: a\r\ncontent-length: 70000\r\n\r\n" + b" " * 70000,
         b"413"),
        (b"POST /control/status HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", b"405"),
        (b"GET //control/status HTTP/1.1\r\nhost: a\r\n\r\n", b"404"),
        (b"GET /control//status HTTP/1.1\r\nhost: a\r\n\r\n", b"404"),
        (b"GET /control/status/ HTTP/1.1\r\nhost: a\r\n\r\n", b"404"),
        (b"GET /control/status HTTP/1.1\r\nhost: foo..bar\r\n\r\n", b"200"),
        (b"GET /control/status HTTP/1.1\r\nhost: %s\r\n\r\n" % (b"a" * 64), b"200"),
        (b"GET /control/status HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /control/%ff%fe HTTP/1.1\r\nhost: a\r\n\r\n", b"404"),
        (b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n", b"200"),
    ],
)  # fmt: skip
async def test_odd_requests_are_refused(
    capsys: Captured, request_bytes: bytes, status: bytes
) -> None:
    async with open_house(capsys) as house:
        stream = await trio.open_unix_socket(str(house.socket))
        async with stream:
            await stream.send_all(request_bytes)
            with trio.fail_after(60):
                answer = bytes(await stream.receive_some(4096))
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert (await house.json("status"))["paused"] is False
        assert house.running.log("control_crashed") == []


def hostile_values() -> dict[str, str]:
    """Return JSON that is too deep, too large or too long for anything here, by what it is."""
    return {
        "10**400": "1" + "0" * 400,
        "-10**400": "-1" + "0" * 400,
        "10**5000": "1" + "0" * 5000,
        "2**63": str(2**63),
        "a large float": "1e308",
        "more than a float": "1e999",
        "deep": "[" * 900 + "]" * 900,
        "deeper": '{"a":' * 9000 + "1" + "}" * 9000,
        "no end": "[" * 60_000,
        "depth 100,000": "[" * 100_000 + "]" * 100_000,
        "long": json.dumps("x" * 60_000),
        "half a surrogate": '"\\ud800"',
        "NUL": '"\\u0000"',
    }


async def asked(socket: Path, request: bytes) -> tuple[int, bytes]:
    """Send a request over a connection of its own; return the status and the body answered."""
    answer = b""
    with trio.fail_after(60):
        async with await trio.open_unix_socket(str(socket)) as stream:
            with suppress(trio.BrokenResourceError):  # refused before all of it was read
                await stream.send_all(request)
            with suppress(trio.BrokenResourceError):
                while piece := await stream.receive_some(65_536):
                    answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


async def test_no_value_however_deep_or_large_is_a_fault_of_any_operation(
    capsys: Captured,
) -> None:
    """Each field of each operation, and each body as a whole."""
    async with open_house(capsys) as house:
        turn = trio.CapacityLimiter(48)

        async def ask(operation: Operation, field: str | None, what: str, value: str) -> None:
            if operation.access is Access.ACT:
                body = value if field is None else f'{{"{field}": {value}}}'
                request = (
                    f"POST /control/{operation.name} HTTP/1.1\r\nhost: a\r\n"
                    f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n{body}"
                )
            else:
                request = (
                    f"GET /control/{operation.name}?{field}={quote(value)} HTTP/1.1\r\n"
                    "host: a\r\nconnection: close\r\n\r\n"
                )
            async with turn:
                status, told = await asked(house.socket, request.encode())
            taken = status == 200 and field in names_of(operation)
            assert taken or status in {400, 404, 413, 414, 422, 431}, (operation.name, field, what)
            if not taken and told.startswith(b"{"):
                assert json.loads(told)["message"], (operation.name, field, what)

        async with trio.open_nursery() as nursery:
            for operation in house.running.daemon._operations.values():
                whole = [None] if operation.access is Access.ACT else []
                for field in (*names_of(operation), "below", *whole):
                    for what, value in hostile_values().items():
                        nursery.start_soon(ask, operation, field, what, value)
        for event in ("control_crashed", "handler_crashed", "actor_restarted"):
            assert house.running.log(event) == []
        assert (await house.json("status"))["paused"] is False


def names_of(operation: Operation) -> list[str]:
    return [field.name for field in msgspec.structs.fields(operation.arguments)]


async def test_health_does_not_tell_where_the_store_is(capsys: Captured) -> None:
    """Neither while it works, nor in the reasons once it does not."""
    async with open_house(capsys) as house, httpx.AsyncClient(timeout=60) as client:
        store = house.folder / "store"
        url = f"{house.running.url}/health"
        assert str(house.folder) not in (await client.get(url)).text
        store.rename(house.folder / "elsewhere")
        with trio.fail_after(60):
            while "store" not in str((told := (await client.get(url)).json())["reasons"]):  # noqa: ASYNC110 - it is elsewhere
                await trio.sleep(0.05)
        assert str(house.folder) not in json.dumps(told)
        refused = await client.post(f"{house.running.url}/event", json={"content": "a"})
        assert refused.status_code == 503
        assert str(house.folder) not in refused.text
        (house.folder / "elsewhere").rename(store)


def test_a_daemon_that_is_not_there_is_told_in_clear_words(
    capsys: Captured, tmp_path: Path
) -> None:
    assert ctl.main(["--socket", str(tmp_path / "none"), "status"]) == 69
    assert "the daemon is not running here" in capsys.readouterr().err


def test_the_default_stands_in_the_services_own_directory() -> None:
    assert socket_path(DEFAULT_SOCKET, {}) == DEFAULT_SOCKET
    own = {"RUNTIME_DIRECTORY": "/run/ai-ticket-2"}
    assert socket_path(DEFAULT_SOCKET, own) == Path("/run/ai-ticket-2/control.sock")
    assert socket_path(Path("/run/x"), own) == Path("/run/x")
    assert socket_path(None, own) is None


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_shells_are_told_every_command(capsys: Captured, shell: str) -> None:
    assert ctl.main(["--print-completion", shell]) == 0
    assert "failover" in capsys.readouterr().out


async def test_what_an_operator_cancels_is_wasted_as_cancelled(capsys: Captured) -> None:
    async with open_house(capsys, SLOW) as house:
        told = await house.json("submit", "Hello", "--no-wait", "--max-tokens", "60")
        await house.until(lambda r: r["in_flight"] == 1)
        await house.ctl("events", "cancel", told["event_id"])
        report = await house.until(lambda r: r["in_flight"] == 0)
    [waste] = report["wasted"]
    assert (waste["backend"], waste["cause"], waste["unknown"]) == ("primary", "cancelled", 0)


async def test_what_clients_do_wrong_is_captured_and_what_is_not_theirs_is_not(
    capsys: Captured, tmp_path: Path
) -> None:
    folder = tmp_path / "captures"

    def capturing(config: Config) -> Config:
        log = replace(config.log, capture_payloads=10, capture_directory=folder)
        return replace(config, log=log, store=replace(config.store, max_queued=0))

    async with (
        open_house(capsys, change=capturing) as house,
        httpx.AsyncClient(base_url=house.running.url, timeout=60) as client,
    ):
        wrong = {"content": "hi", "max_tokens": 0}
        answers = [
            await client.post("/event", json=wrong),
            await client.post("/event", content=b"{no json", headers={"content-type": JSON}),
            await client.post("/events", json=[{"content": "x", "stream": True}, wrong]),
            await client.post("/event", json={"content": "the queue is full"}),
            await client.post("/event", content=b"", headers={"content-type": JSON}),
            await client.get("/nowhere"),
        ]
        assert [answer.status_code for answer in answers] == [422, 400, 200, 503, 400, 404]
        with trio.fail_after(60):
            while len(list(folder.glob("*-refused-*.json"))) < 4:  # noqa: ASYNC110
                await trio.sleep(0.02)
    found = [json.loads(file.read_text()) for file in sorted(folder.iterdir())]
    assert [(one["route"], one["error"]) for one in found] == [
        ("/event", "invalid_parameter"),
        ("/event", "invalid_request"),
        ("/events", "invalid_parameter"),
        ("/events", "invalid_parameter"),
    ]
    assert [one["payload"] for one in found] == [
        wrong,
        "{no json",
        {"content": "x", "stream": True},
        wrong,
    ]
    assert found[0]["trace_id"] == answers[0].json()["trace_id"]
