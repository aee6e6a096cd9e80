from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.config import (
    BackendRole,
    Config,
    ConfigError,
    OtlpProtocol,
    ServerConfig,
    TcpBind,
    TracesExporter,
    load_config,
)
from ai_ticket_daemon.config.read.environment import VARIABLES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PRIMARY = {"KOBOLDCPP_API_URL": "http://127.0.0.1:5001"}
SERVERS = """
[[backends.server]]
name = "spare"
url = "http://10.0.0.3:5001"
role = "standby"
[[backends.server]]
name = "gpu"
url = "http://10.0.0.1:5001"
max_in_flight = 2
[[backends.server]]
name = "gpu2"
url = "http://10.0.0.2:5001"
role = "primary"
"""


def load(folder: Path, text: str, environ: Mapping[str, str], *, primary: bool = True) -> Config:
    path = folder / "ai-ticket.conf"
    path.write_text(text)
    return load_config(path, {**(PRIMARY if primary else {}), **environ})


def complaint(folder: Path, text: str, environ: Mapping[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, environ)
    return str(caught.value).replace(f"{folder}/", "")


def test_the_api_url_adds_a_primary_where_there_is_none() -> None:
    config = load_config(None, {"KOBOLDCPP_API_URL": "http://gpu:5001/"})
    assert config.backends.servers == (ServerConfig(name="primary", url="http://gpu:5001"),)


def test_the_api_urls_replace_only_the_first_server_of_their_role(tmp_path: Path) -> None:
    environ = {
        "KOBOLDCPP_API_URL": "http://gpu:1",
        "KOBOLDCPP_STANDBY_API_URL": "http://spare:1",
    }
    servers = load(tmp_path, SERVERS, environ).backends.servers
    assert [(server.name, server.url) for server in servers] == [
        ("spare", "http://spare:1"),
        ("gpu", "http://gpu:1"),
        ("gpu2", "http://10.0.0.2:5001"),
    ]
    assert servers[1].max_in_flight == 2


def test_the_standby_url_adds_a_standby_where_there_is_none(tmp_path: Path) -> None:
    servers = load(tmp_path, "", {"KOBOLDCPP_STANDBY_API_URL": "http://spare:1"}).backends.servers
    assert [(server.name, server.role) for server in servers] == [
        ("primary", BackendRole.PRIMARY),
        ("standby", BackendRole.STANDBY),
    ]


def test_port_replaces_the_port_of_the_first_tcp_address(tmp_path: Path) -> None:
    text = '[http]\nbind = ["unix:/run/http", "[::1]:5000", "127.0.0.1:5000"]'
    config = load(tmp_path, text, {"PORT": "8080"})
    assert config.http.bind[1:] == (TcpBind("::1", 8080), TcpBind("127.0.0.1", 5000))


def test_port_replaces_the_port_of_the_default_address() -> None:
    assert load_config(None, PRIMARY | {"PORT": "8080"}).http.bind == (TcpBind("127.0.0.1", 8080),)


def test_metrics_host_and_port_replace_their_part_of_the_address(tmp_path: Path) -> None:
    text = '[metrics]\nbind = "10.0.0.1:9000"'
    assert load(tmp_path, text, {"OTEL_PROMETHEUS_PORT": "1"}).metrics.bind == TcpBind(
        "10.0.0.1", 1
    )
    assert load(tmp_path, text, {"OTEL_PROMETHEUS_HOST": "::1"}).metrics.bind == TcpBind(
        "::1", 9000
    )
    both = {"OTEL_PROMETHEUS_HOST": "127.0.0.1", "OTEL_PROMETHEUS_PORT": "2"}
    assert load(tmp_path, "", both).metrics.bind == TcpBind("127.0.0.1", 2)


def test_telemetry_and_log_level_go_over_the_file(tmp_path: Path) -> None:
    text = '[telemetry]\nservice_name = "file"\ntraces = "none"\n[log]\nlevel = "info"\n'
    environ = {
        "OTEL_SERVICE_NAME": "tickets",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317/",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "LOG_LEVEL": "DEBUG",
    }
    config = load(tmp_path, text, environ)
    assert config.telemetry.service_name == "tickets"
    assert config.telemetry.traces is TracesExporter.OTLP
    assert config.telemetry.otlp_endpoint == "http://collector:4317"
    assert config.telemetry.otlp_protocol is OtlpProtocol.GRPC
    assert config.log.level == "debug"


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_variable_counts_as_not_set(tmp_path: Path, empty: str) -> None:
    environ = dict.fromkeys(VARIABLES, empty)
    assert load(tmp_path, SERVERS, environ, primary=False) == load(
        tmp_path, SERVERS, {}, primary=False
    )


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (
            "KOBOLDCPP_API_URL",
            "gpu:5001",
            (
                "backends.server[0].url: has no scheme; it must be a URL such as "
                '"http://127.0.0.1:5001"'
            ),
        ),
        (
            "KOBOLDCPP_STANDBY_API_URL",
            "http://127.0.0.1:5001",
            (
                "backends.server[1].url: server[0] has this URL already; the same server must not "
                "be listed twice, it would get twice its `max_in_flight`"
            ),
        ),
        ("PORT", "http", "http.bind: the port must be a whole number from 0 to 65535"),
        ("PORT", "-1", "http.bind: the port must be a whole number from 0 to 65535"),
        (
            "OTEL_PROMETHEUS_PORT",
            "1e3",
            "metrics.bind: the port must be a whole number from 0 to 65535",
        ),
        (
            "OTEL_PROMETHEUS_HOST",
            "a b",
            "metrics.bind: the host is neither a name nor an IP address",
        ),
        (
            "LOG_LEVEL",
            "loud",
            'log.level: must be one of "debug", "info", "warning", "error", not "loud"',
        ),
        (
            "OTEL_TRACES_EXPORTER",
            "otlp",
            'telemetry.traces: "otlp" needs `otlp_endpoint` to be set',
        ),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/json",
            'telemetry.otlp_protocol: must be one of "http/protobuf", "grpc", not "http/json"',
        ),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(
    tmp_path: Path, name: str, value: str, expected: str
) -> None:
    assert complaint(tmp_path, "", {name: value}) == f"environment variable {name}: {expected}"


def test_port_without_an_address_to_apply_to_is_refused(tmp_path: Path) -> None:
    assert complaint(tmp_path, '[http]\nbind = ["fd://3"]', {"PORT": "1"}) == (
        'environment variable PORT: http.bind: there is no "HOST:PORT" whose port could be '
        "replaced; unset the variable"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("log = 5", "ai-ticket.conf:1: log: must be a table, not 5"),
        (
            "[backends]\nserver = 5",
            "ai-ticket.conf:2: backends.server: must be an array, each item a table, not 5",
        ),
        (
            "[backends]\nserver = [5]",
            "ai-ticket.conf:2: backends.server[0]: must be a table, not 5",
        ),
        (
            "[http]\nbind = [5]",
            "ai-ticket.conf:2: http.bind[0]: must be an address such as",
        ),
        ('[http]\nbind = ["x"]', 'ai-ticket.conf:2: http.bind[0]: must be "HOST:PORT"'),
        ("[metrics]\nbind = 1", "ai-ticket.conf:2: metrics.bind: must be an address such as"),
        ("backends = []", "ai-ticket.conf:1: backends: must be a table, not an array"),
    ],
)
def test_a_mistake_in_the_file_is_told_though_a_variable_would_go_over_it(
    tmp_path: Path, text: str, expected: str
) -> None:
    every = {
        "PORT": "1",
        "LOG_LEVEL": "info",
        "OTEL_PROMETHEUS_PORT": "1",
        "KOBOLDCPP_STANDBY_API_URL": "http://spare:1",
    }
    first, *_ = complaint(tmp_path, text, every).splitlines()
    assert first.startswith(expected)
