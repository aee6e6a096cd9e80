from __future__ import annotations

import re

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from ai_ticket_daemon.telemetry.metrics import Metrics
from ai_ticket_daemon.telemetry.reference import families
from tests.support.project import ROOT

CONTRACT = """
server_requests_total{route,method,status} server_request_failures_total{route,method,status,error}
server_request_duration_seconds{route,method,status} server_requests_in_flight
pipeline_events_total{outcome} pipeline_handler_duration_seconds{outcome}
pipeline_batch_duration_seconds pipeline_retries_total{error} pipeline_queue_depth{state}
pipeline_oldest_queued_seconds pipeline_in_flight pipeline_max_concurrency
pipeline_queue_wait_seconds kobold_requests_total{backend,dialect,outcome}
kobold_request_failures_total{backend,error} kobold_request_duration_seconds{backend}
kobold_tokens_total{backend,kind} kobold_backend_up{backend,role} kobold_backend_active{backend}
kobold_backend_in_flight{backend} kobold_failovers_total{from_backend,to_backend,reason}
kobold_probe_duration_seconds{backend,result} kobold_aborts_total{backend,reason}
config_reloads_total{result} config_last_reload_successful
config_last_reload_success_timestamp_seconds actor_restarts_total{actor} event_loop_lag_seconds
build_info{version}
"""
"""The names that dashboards and alerts of operators are built on; they never change."""


def test_every_family_has_the_name_and_the_labels_it_was_promised_with() -> None:
    promised = {}
    for word in CONTRACT.split():
        name, _, labels = word.rstrip("}").partition("{")
        promised[name] = tuple(filter(None, labels.split(",")))
    ours = {family.name.removeprefix("ai_ticket_"): family.labels for family in families()}
    assert {name: ours.get(name) for name in promised} == promised


def test_no_label_can_hold_what_a_client_made_up() -> None:
    allowed = {
        "route", "method", "status", "error", "outcome", "state", "backend", "dialect", "kind",
        "role", "from_backend", "to_backend", "reason", "result", "actor", "version", "cause",
        "tokens", "order", "part", "resource", "place",
    }  # fmt: skip
    assert {label for family in families() for label in family.labels} <= allowed


def test_every_label_is_explained() -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    for label in {label for family in families() for label in family.labels}:
        assert re.search(rf"^\| .*`{label}`", page, re.MULTILINE), label


def test_a_backend_that_is_gone_or_has_another_role_is_shown_no_more() -> None:
    metrics = Metrics(CollectorRegistry())
    for name, role in (("a", "primary"), ("b", "standby"), ("b", "primary"), ("c", "standby")):
        metrics.kobold_backend_up.labels(name, role).set(1)
        metrics.kobold_backend_active.labels(name).set(1)
        metrics.kobold_backend_slots.labels(name).set(2)

    metrics.keep_backends({"b": "primary", "c": "standby"})

    def shown(name: str) -> list[tuple[str, ...]]:
        found = (
            f for f in metrics.registry.collect() if f.name == f"ai_ticket_kobold_backend_{name}"
        )
        return [tuple(sample.labels.values()) for family in found for sample in family.samples]

    assert shown("up") == [("b", "primary"), ("c", "standby")]
    assert shown("active") == shown("slots") == [("b",), ("c",)]


def test_a_backend_is_shown_with_the_version_it_runs_now_only() -> None:
    metrics = Metrics(CollectorRegistry())
    for backend, version in (("a", "1.76"), ("b", "1.76"), ("a", "1.115.1"), ("a", "1.115.1")):
        metrics.show_version(backend, "koboldcpp", version)
    name = "ai_ticket_kobold_backend_info"
    shown = {
        tuple(sample.labels.values()): sample.value
        for family in metrics.kobold_backend_info.collect()
        for sample in family.samples
        if sample.name == name
    }
    assert shown == {("a", "koboldcpp", "1.115.1"): 1, ("b", "koboldcpp", "1.76"): 1}
    metrics.keep_backends({"b": "primary"})
    assert [
        s.labels["backend"] for f in metrics.kobold_backend_info.collect() for s in f.samples
    ] == ["b"]


def test_no_family_tells_when_it_was_begun() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.actor_restarts.labels("store").inc()
    openmetrics_page = openmetrics.generate_latest(metrics.registry)  # type: ignore[no-untyped-call]
    for page in (generate_latest(metrics.registry), openmetrics_page):
        assert b"ai_ticket_actor_restarts_total" in page
        assert b"_created" not in page
