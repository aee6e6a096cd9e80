"""The environment variables that override the file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.backend_server import BackendRole
from ai_ticket_daemon.config.http import HttpConfig
from ai_ticket_daemon.config.metrics import MetricsConfig
from ai_ticket_daemon.config.read.document import Origin, dotted
from ai_ticket_daemon.config.read.errors import Problem
from ai_ticket_daemon.config.values.addresses import (
    TcpBind,
    parse_bind,
    parse_port,
    parse_tcp_bind,
    tcp_bind,
)
from ai_ticket_daemon.config.values.schema import Invalid, KeyPath, wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ai_ticket_daemon.config.read.document import Document

_HTTP_BIND = ("http", "bind")
_METRICS_BIND = ("metrics", "bind")
_SERVER = ("backends", "server")


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable.

    Args:
        path: the key it overrides.
        effect: what it does, for the reference.
        apply: puts a value, never empty, into the document; raises :class:`Invalid`.
    """

    path: KeyPath
    effect: str
    apply: Callable[[Document, str, Origin], None]


def apply_environment(document: Document, environ: Mapping[str, str]) -> Iterator[Problem]:
    """Put the variables that are set over ``document``; an empty one counts as not set.

    Yields what is wrong with them by themselves; whether the values are allowed shows when the
    document is read.
    """
    for name, variable in VARIABLES.items():
        value = environ.get(name, "").strip()
        if not value:
            continue
        origin = Origin(f"environment variable {name}")
        try:
            variable.apply(document, value, origin)
        except Invalid as error:
            for mistake in error.mistakes:
                yield Problem(origin.source, None, dotted(variable.path), mistake.message)


def _over(
    section: str, key: str, convert: Callable[[str], str] = str
) -> Callable[[Document, str, Origin], None]:
    def apply(document: Document, value: str, origin: Origin) -> None:
        document.set((section, key), convert(value), origin)

    return apply


def _over_server(role: BackendRole) -> Callable[[Document, str, Origin], None]:
    def apply(document: Document, value: str, origin: Origin) -> None:
        if document.get(_SERVER) is None:
            document.set(_SERVER, [], origin)
        servers = document.get(_SERVER)
        if not isinstance(servers, list):
            return
        for index, server in enumerate(servers):
            if isinstance(server, dict) and server.get("role", BackendRole.PRIMARY) == role:
                document.set((*_SERVER, index, "url"), value, origin)
                return
        server = {"name": role.value, "role": role.value, "url": value}
        document.set((*_SERVER, len(servers)), server, origin)

    return apply


def _over_http_port(document: Document, value: str, origin: Origin) -> None:
    port = parse_port(value)
    if document.get(_HTTP_BIND) is None:
        document.set(_HTTP_BIND, [str(bind) for bind in HttpConfig().bind], document.default)
    binds = document.get(_HTTP_BIND)
    if not isinstance(binds, list):
        return
    for index, text in enumerate(binds):
        try:
            bind = parse_bind(text) if isinstance(text, str) else None
        except Invalid:
            return  # reported when the document is read
        if isinstance(bind, TcpBind):
            document.set((*_HTTP_BIND, index), str(replace(bind, port=port)), origin)
            return
    raise wrong('there is no "HOST:PORT" whose port could be replaced; unset the variable')


def _over_metrics_host(document: Document, value: str, origin: Origin) -> None:
    host = value.removeprefix("[").removesuffix("]")
    _over_metrics_bind(document, origin, host=host)


def _over_metrics_port(document: Document, value: str, origin: Origin) -> None:
    _over_metrics_bind(document, origin, port=parse_port(value))


def _over_metrics_bind(
    document: Document, origin: Origin, *, host: str | None = None, port: int | None = None
) -> None:
    text = document.get(_METRICS_BIND)
    if text is None:
        text = str(MetricsConfig().bind)
    try:
        bind = tcp_bind.read(text)
    except Invalid:
        return  # reported when the document is read
    bind = TcpBind(bind.host if host is None else host, bind.port if port is None else port)
    parse_tcp_bind(str(bind))
    document.set(_METRICS_BIND, str(bind), origin)


VARIABLES: Mapping[str, Variable] = MappingProxyType(
    {
        "KOBOLDCPP_API_URL": Variable(
            _SERVER,
            "`url` of the first primary; without a primary, adds one named `primary`",
            _over_server(BackendRole.PRIMARY),
        ),
        "KOBOLDCPP_STANDBY_API_URL": Variable(
            _SERVER,
            "`url` of the first standby; without a standby, adds one named `standby`",
            _over_server(BackendRole.STANDBY),
        ),
        "PORT": Variable(
            _HTTP_BIND, "port of the first `HOST:PORT` in `http.bind`", _over_http_port
        ),
        "LOG_LEVEL": Variable(
            ("log", "level"),
            "`log.level`; capital letters are allowed",
            _over("log", "level", str.lower),
        ),
        "OTEL_SERVICE_NAME": Variable(
            ("telemetry", "service_name"),
            "`telemetry.service_name`",
            _over("telemetry", "service_name"),
        ),
        "OTEL_TRACES_EXPORTER": Variable(
            ("telemetry", "traces"), "`telemetry.traces`", _over("telemetry", "traces", str.lower)
        ),
        "OTEL_EXPORTER_OTLP_ENDPOINT": Variable(
            ("telemetry", "otlp_endpoint"),
            "`telemetry.otlp_endpoint`",
            _over("telemetry", "otlp_endpoint"),
        ),
        "OTEL_EXPORTER_OTLP_PROTOCOL": Variable(
            ("telemetry", "otlp_protocol"),
            "`telemetry.otlp_protocol`",
            _over("telemetry", "otlp_protocol"),
        ),
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": Variable(
            ("telemetry", "otlp_traces_endpoint"),
            "`telemetry.otlp_traces_endpoint`",
            _over("telemetry", "otlp_traces_endpoint"),
        ),
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": Variable(
            ("telemetry", "otlp_protocol"),
            "`telemetry.otlp_protocol`, and `OTEL_EXPORTER_OTLP_PROTOCOL`",
            _over("telemetry", "otlp_protocol"),
        ),
        "OTEL_PROMETHEUS_HOST": Variable(
            _METRICS_BIND, "host of `metrics.bind`", _over_metrics_host
        ),
        "OTEL_PROMETHEUS_PORT": Variable(
            _METRICS_BIND, "port of `metrics.bind`", _over_metrics_port
        ),
    }
)
