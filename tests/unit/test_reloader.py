"""A reload: everything is checked, then swapped, then told; a refused one changes nothing."""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from ai_ticket_daemon.config.log import LogFormat
from ai_ticket_daemon.config.read.load import load_config
from ai_ticket_daemon.reloader import LiveConfig, Reloader
from ai_ticket_daemon.systemd.notify import Notifier
from ai_ticket_daemon.systemd.reload_result import FILE_NAME, read_result
from ai_ticket_daemon.telemetry.logs.logs import Logs
from ai_ticket_daemon.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from pathlib import Path

    from ai_ticket_daemon.config.tree import Config

GOOD = '[[backends.server]]\nname = "primary"\nurl = "http://127.0.0.1:5001"\n'
BAD = "pipeline.max_concurrency = 0\n" + GOOD


@dataclass(slots=True)
class Messages(Notifier):
    """Keeps what systemd would be told."""

    sent: list[str] = field(default_factory=list)

    def _send(self, *assignments: str, patience_seconds: float = 0.0) -> bool:
        self.sent.append(assignments[0])
        return True


class House:
    def __init__(self, folder: Path) -> None:
        self.conf = folder / "ai-ticket.conf"
        self.conf.write_text(GOOD)
        self.result_path = folder / FILE_NAME
        self.applied: list[Config] = []
        self.apply_error: Exception | None = None
        self._stream = io.StringIO()
        self.metrics = Metrics(CollectorRegistry())
        self.messages = Messages(address="somewhere")
        self.live = LiveConfig(self.load())
        self.reloader = Reloader(
            self.live,
            load=self.load,
            apply=self.apply,
            log=Logs(log_format=LogFormat.JSON, stream=self._stream).logger(),
            metrics=self.metrics,
            notifier=self.messages,
            result_path=self.result_path,
        )

    def load(self) -> Config:
        return load_config(self.conf, {})

    def apply(self, config: Config) -> None:
        if self.apply_error is not None:
            raise self.apply_error
        self.applied.append(config)

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"ai_ticket_{name}", labels)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_a_good_file_is_put_in_force_and_everybody_is_told(house: House) -> None:
    house.conf.write_text("pipeline.max_concurrency = 3\nhttp.max_connections = 5\n" + GOOD)

    house.reloader.reload()

    assert house.live.current.pipeline.max_concurrency == 3
    assert house.applied == [house.live.current]
    (line,) = house.logged()
    assert line["event"] == "reload_applied"
    assert line["changes"] == ["pipeline.max_concurrency: 8 -> 3"]
    assert line["needs_restart"] == ["http.max_connections"]
    assert house.messages.sent == ["RELOADING=1", "READY=1"]
    result = read_result(house.result_path)
    assert result is not None
    assert (result.pid, result.reloads, result.problems) == (os.getpid(), 1, ())
    assert house.value("config_reloads_total", result="applied") == 1


def test_a_bad_file_changes_nothing_and_everybody_is_told(house: House) -> None:
    before = house.live.current
    house.conf.write_text(BAD)

    house.reloader.reload()

    assert house.live.current is before
    assert house.applied == []
    (line,) = house.logged()
    assert line["event"] == "reload_refused"
    assert line["level"] == "error"
    (problem,) = line["problems"]
    assert f"{house.conf}:1: pipeline.max_concurrency" in problem
    assert house.reloader.problems == (problem,)
    # READY all the same: whoever waits for the reload is not to wait for ever.
    status = f"STATUS=LAST RELOAD REFUSED: {problem}"
    assert house.messages.sent == ["RELOADING=1", status, "READY=1"]
    result = read_result(house.result_path)
    assert result is not None
    assert result.problems == (problem,)
    assert house.value("config_reloads_total", result="refused") == 1
    assert house.value("config_last_reload_successful") == 0


def test_a_refused_reload_names_the_line_and_the_section_that_has_the_key(house: House) -> None:
    house.conf.write_text("[events]\nmax_attempts = 4\n" + house.conf.read_text())
    house.reloader.reload()
    (problem,) = house.reloader.problems
    assert f"{house.conf}:2: events.max_attempts" in problem
    assert problem.endswith("did you mean `pipeline.max_attempts`?")


def test_a_good_file_after_a_bad_one_clears_the_refusal(house: House) -> None:
    house.conf.write_text(BAD)
    house.reloader.reload()
    house.conf.write_text(GOOD)
    house.reloader.reload()

    assert house.reloader.problems == ()
    assert house.value("config_last_reload_successful") == 1


def test_a_changed_password_is_told_without_showing_it(house: House, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("old-secret\n")
    house.conf.write_text(GOOD + f'password_file = "{password}"\n')
    house.reloader.reload()
    password.write_text("new-secret\n")
    house.reloader.reload()

    told = house.logged()[-1]["changes"]
    assert told == ['backends.server[primary].password_file: "***" -> "***"']
    assert "secret" not in house.result_path.read_text()
    (server,) = house.live.current.backends.servers
    assert server.password is not None
    assert server.password.reveal() == "new-secret"


@pytest.mark.parametrize("way", ["written", "renamed over", "symlink switched"])
def test_however_the_file_is_replaced_the_new_one_is_read(
    house: House, tmp_path: Path, way: str
) -> None:
    new = tmp_path / "new.conf"
    new.write_text("pipeline.max_concurrency = 3\n" + GOOD)
    if way == "written":
        house.conf.write_text(new.read_text())
    elif way == "renamed over":
        new.replace(house.conf)
    else:
        old = tmp_path / "old.conf"
        house.conf.rename(old)
        house.conf.symlink_to(old)
        house.reloader.reload()
        switched = tmp_path / "switched"
        switched.symlink_to(new)
        switched.replace(house.conf)

    house.reloader.reload()

    assert house.live.current.pipeline.max_concurrency == 3


def test_what_an_operator_overrides_is_told_as_what_a_reload_changes(house: House) -> None:
    def in_effect(config: Config) -> Config:
        return replace(config, log=replace(config.log, capture_payloads=5))

    house.reloader._in_effect = in_effect
    before = house.live.current
    assert [str(c) for c in house.reloader.plan().changes] == ["log.capture_payloads: 5 -> 0"]
    assert house.live.current is before
    house.reloader.reload()
    assert house.logged()[-1]["changes"] == ["log.capture_payloads: 5 -> 0"]


def test_a_file_that_is_gone_is_a_refusal(house: House) -> None:
    house.conf.unlink()

    house.reloader.reload()

    assert "cannot be read" in house.reloader.problems[0]


def test_a_fault_while_applying_still_ends_the_reload_for_systemd(house: House) -> None:
    house.apply_error = RuntimeError("a fault of the daemon")

    with pytest.raises(RuntimeError):
        house.reloader.reload()

    assert house.messages.sent == ["RELOADING=1", "READY=1"]


def test_a_result_that_cannot_be_written_is_logged_and_the_reload_counts(house: House) -> None:
    house.result_path.with_suffix(".new").mkdir()

    house.reloader.reload()

    assert [line["event"] for line in house.logged()] == ["reload_applied", "verdict_not_written"]
