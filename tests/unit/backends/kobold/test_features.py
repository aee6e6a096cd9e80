"""What a server can do follows from what it tells, by one table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest

from ai_ticket_daemon.backends.kobold.features import (
    OLDEST,
    TABLE,
    Feature,
    Features,
    Told,
    features_of,
)
from ai_ticket_daemon.backends.kobold.probe import KoboldProbe
from ai_ticket_daemon.backends.observation import AttemptFailed, Observation, Seen
from ai_ticket_daemon.backends.software import Software
from tests.support.project import ROOT

if TYPE_CHECKING:
    from ai_ticket_daemon.backends.transport.wire import Wire

FIXTURES = ROOT / "tests" / "fixtures"
NEW = {
    Feature.COUNTS_MESSAGES,
    Feature.KEEPS_PLACEHOLDERS,
    Feature.TRUE_USAGE,
    Feature.REASONING,
    Feature.PARALLEL,
    Feature.SCHEMA,
}


def recorded(folder: str, name: str) -> dict[str, Any]:
    response = json.loads((FIXTURES / folder / f"{name}.json").read_text())["response"]
    body: dict[str, Any] = json.loads(response["body"])
    return body


OLD_ABOUT = recorded("kobold", "extra_version")
ABOUT, PROPS = recorded("kobold-1.115", "extra_version"), recorded("kobold-1.115", "props")


class RecordedServer:
    """Answers calls with recordings; what it does not know is a 404."""

    def __init__(self, about: dict[str, Any] | None, props: dict[str, Any] | None) -> None:
        self.uptime = 10.0
        self.model = "koboldcpp/m"
        self.answers = {"/api/extra/version": about, "/props": props}
        self.silent = False
        self.asked: list[str] = []
        self.uptime_with_model: float | None = None

    async def call(self, method: str, path: str, **_: object) -> dict[str, Any]:
        self.asked.append(path)
        if path == "/api/extra/perf":
            return recorded("kobold", "perf_idle") | {"uptime": self.uptime}
        if path == "/api/v1/model":
            if self.uptime_with_model is not None:
                self.model, self.uptime = "koboldcpp/m", self.uptime_with_model
            return {"result": self.model}
        if path == "/api/extra/true_max_context_length":
            return {"value": 2048}
        if self.silent:
            raise AttemptFailed.seen(Seen.NO_REPLY)
        answer = self.answers[path]
        if answer is None:
            raise AttemptFailed(Observation(Seen.STATUS, status=404))
        return answer

    def times_asked_what_it_is(self) -> int:
        return self.asked.count("/api/extra/version")


def probe_of(server: RecordedServer) -> KoboldProbe:
    return KoboldProbe(cast("Wire", server), on_change=lambda: None)


def test_the_recorded_1_76_has_no_feature() -> None:
    assert features_of(Told(OLD_ABOUT)) == Features(version="1.76", default_layout=True)


def test_the_recorded_1_115_has_the_features_it_was_recorded_with() -> None:
    found = features_of(Told(ABOUT, PROPS))
    assert found.known == NEW | {Feature.TEMPLATE}
    assert found.chat_template == PROPS["chat_template"]
    assert (found.version, found.newer) == ("1.115.1", False)


@pytest.mark.parametrize(
    ("template", "thinks"),
    [
        ("{{ '<|im_start|>assistant\n' }}", False),
        ("{{ '<|im_start|>assistant\n<think>\n' }}", True),
        ("{% if enable_thinking %}", True),
        ("[THINK]", True),
        (None, False),
        (7, False),
    ],
)
def test_a_model_whose_template_has_words_for_thinking_thinks(
    template: object, thinks: bool
) -> None:
    assert (Feature.THINKS in features_of(Told(ABOUT, {"chat_template": template}))) is thinks
    assert Feature.THINKS not in features_of(Told(OLD_ABOUT, {"chat_template": template}))


@pytest.mark.parametrize(
    ("version", "default"),
    [("1.60", True), ("1.76", True), ("1.76.1", True), ("1.77", False), ("1.115.1", False)],
)
def test_only_old_versions_are_known_to_lay_out_in_their_own_way(
    version: str, default: bool
) -> None:
    assert features_of(Told({"version": version})).default_layout is default
    assert not features_of(Told({})).default_layout


@pytest.mark.parametrize(
    ("flag", "feature"),
    [("jinja", Feature.JINJA), ("admin", Feature.ADMIN), ("router", Feature.ROUTER)],
)
def test_a_feature_that_the_server_says_itself_follows_its_flag(
    flag: str, feature: Feature
) -> None:
    assert feature in features_of(Told(ABOUT | {flag: 1}))
    assert feature not in features_of(Told(ABOUT | {flag: 0}))


@pytest.mark.parametrize("version", ["1.118", "1.118.1", "2.0", "1.1000"])
def test_a_newer_version_is_treated_as_the_newest_known_and_said_to_be_newer(version: str) -> None:
    found = features_of(Told(ABOUT | {"version": version}))
    assert found.known == NEW
    assert (found.newer, found.software.newer) == (True, True)


@pytest.mark.parametrize("version", ["1.114.9", "1.9", "1"])
def test_a_version_older_than_the_recorded_one_is_trusted_with_nothing(version: str) -> None:
    assert features_of(Told(ABOUT | {"version": version})).known == frozenset()


@pytest.mark.parametrize(
    "version", [None, 1.115, "", "1.115b", "v1.115", "1.115\n", "9" * 5000, "1.115.1.1.1", [1]]
)
def test_a_version_that_is_none_is_as_none_told(version: object) -> None:
    assert features_of(Told(ABOUT | {"version": version})) == OLDEST


@pytest.mark.parametrize("template", [None, 5, "", ["x"]])
def test_a_template_that_is_no_text_is_none(template: object) -> None:
    found = features_of(Told(ABOUT, {"chat_template": template}))
    assert (found.chat_template, Feature.TEMPLATE in found) == (None, False)


def test_each_feature_stands_in_the_table_once_and_in_the_document() -> None:
    assert [row.feature for row in TABLE] == list(Feature)
    text = (ROOT / "docs" / "koboldcpp.md").read_text()
    for row in TABLE:
        assert f"| `{row.feature}` | {row.by} | {row.changes} |" in text


async def test_the_probe_reads_the_features_once_per_change() -> None:
    server = RecordedServer(ABOUT, PROPS)
    probe = probe_of(server)
    assert probe.features is OLDEST
    first = await probe.probe(identify=True)
    assert first.software.version == "1.115.1"
    assert Feature.TRUE_USAGE in probe.features
    await probe.probe(identify=True)
    assert server.times_asked_what_it_is() == 1
    server.uptime, server.answers = 1.0, {"/api/extra/version": OLD_ABOUT, "/props": None}
    assert (await probe.probe(identify=False)).software.version == "1.76"
    assert (probe.features.known, server.times_asked_what_it_is()) == (frozenset(), 2)
    server.model = "koboldcpp/another"
    await probe.probe(identify=True)
    assert server.times_asked_what_it_is() == 3


async def test_a_server_that_knows_neither_path_is_the_oldest() -> None:
    probe = probe_of(RecordedServer(None, None))
    assert (await probe.probe(identify=True)).software.version is None
    assert probe.features == OLDEST


async def test_a_model_that_is_loaded_between_two_questions_leaves_no_figure_of_before() -> None:
    server = RecordedServer(ABOUT, PROPS)
    server.model = "inactive"
    probe = probe_of(server)
    assert not (await probe.probe(identify=True)).has_model
    server.uptime_with_model = 0.5
    found = await probe.probe(identify=True)
    assert (found.has_model, found.uptime_seconds) == (True, 0.5)


async def test_features_that_could_not_be_read_are_read_by_the_next_probe() -> None:
    server = RecordedServer(ABOUT, PROPS)
    probe = probe_of(server)
    server.silent = True
    found = await probe.probe(identify=False)
    assert found.software == Software(unanswered=("/api/extra/version", "/props"))
    server.silent = False
    assert (await probe.probe(identify=False)).software.version == "1.115.1"
