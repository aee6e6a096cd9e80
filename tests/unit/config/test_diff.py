from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ai_ticket_daemon.config import (
    BackendRole,
    BackendsConfig,
    Change,
    Config,
    HttpConfig,
    LogConfig,
    LogLevel,
    PipelineConfig,
    ServerConfig,
    TcpBind,
    UnixBind,
    diff,
)
from ai_ticket_daemon.config.values.schema import settings_of

GPU = ServerConfig(name="gpu", url="http://gpu:5001")
SPARE = ServerConfig(name="spare", url="http://spare:5001", role=BackendRole.STANDBY)


def with_servers(*servers: ServerConfig) -> Config:
    return Config(backends=BackendsConfig(servers=servers))


def test_equal_configurations_do_not_differ() -> None:
    assert diff(with_servers(GPU), with_servers(replace(GPU))) == []


def test_each_changed_key_is_told_with_both_values_and_whether_it_is_live() -> None:
    old = Config()
    new = Config(
        http=HttpConfig(
            bind=(TcpBind("::1", 1), UnixBind(Path("/run/x"))), tls_cert=Path("/c"), tls_key=None
        ),
        pipeline=PipelineConfig(backoff_seconds=0.5),
        log=LogConfig(level=LogLevel.DEBUG),
    )
    assert diff(old, new) == [
        Change("http.bind", '["127.0.0.1:5000"]', '["[::1]:1", "unix:/run/x"]', live=False),
        Change("http.tls_cert", "", '"/c"', live=True),
        Change("pipeline.backoff_seconds", "0.2", "0.5", live=True),
        Change("log.level", '"info"', '"debug"', live=True),
    ]
    assert str(diff(old, new)[0]).endswith('"unix:/run/x"] (needs a restart)')
    assert str(diff(old, new)[2]) == "pipeline.backoff_seconds: 0.2 -> 0.5"


def test_servers_are_told_apart_by_name_not_by_place() -> None:
    changes = diff(with_servers(GPU, SPARE), with_servers(replace(SPARE, max_in_flight=2)))
    assert changes == [
        Change("backends.server[gpu]", '"http://gpu:5001"', "", live=True),
        Change("backends.server[spare].max_in_flight", "1", "2", live=True),
    ]


def test_an_added_server_is_one_change() -> None:
    assert diff(with_servers(GPU), with_servers(GPU, SPARE)) == [
        Change("backends.server[spare]", "", '"http://spare:5001"', live=True)
    ]


def test_another_order_of_servers_is_a_change() -> None:
    assert diff(with_servers(GPU, SPARE), with_servers(SPARE, GPU)) == [
        Change("backends.server", '["gpu", "spare"]', '["spare", "gpu"]', live=True)
    ]


def test_the_keys_that_need_a_restart_are_known() -> None:
    """What is bound, opened or built once at the start; everything else is live."""
    needs_restart = {
        f"{section}.{key}"
        for section in settings_of(Config)
        for key, (_, setting) in settings_of(type(getattr(Config(), section))).items()
        if not setting.live
    }
    assert needs_restart == {
        "http.bind",
        "http.header_timeout_seconds",
        "http.max_connections",
        "http.max_connections_per_address",
        "store.url",
        "store.lease_seconds",
        "telemetry.service_name",
        "telemetry.otlp_endpoint",
        "telemetry.otlp_traces_endpoint",
        "telemetry.otlp_protocol",
        "telemetry.traces",
        "telemetry.sample_ratio",
        "metrics.bind",
        "log.format",
        "control.socket",
        "control.view_socket",
    }
    assert all(setting.live for _, setting in settings_of(ServerConfig).values())
    assert all(setting.live for _, setting in settings_of(BackendsConfig).values())
