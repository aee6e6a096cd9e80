"""The configuration: a frozen dataclass per section, one loader, errors that name path and line.

schema.py, rules.py   how a key is described and read; every mistake collected
http.py … control.py  the sections, each with its defaults, units and cross-checks
tree.py               the sections together: :class:`Config`
document.py           the file as TOML, with the line of every key (locate.py)
environment.py        the variables that override the file
load.py               all of the above: file + environment + command line → Config or ConfigError
diff.py, check.py     what a reload changes; what deserves a warning
reference.py          docs/configuration.md, written from the sections
"""

from __future__ import annotations

from ai_ticket_daemon.config.auth import AuthConfig
from ai_ticket_daemon.config.backend_server import (
    BackendKind,
    BackendRole,
    Dialect,
    ServerConfig,
)
from ai_ticket_daemon.config.backends import BackendsConfig, Failback
from ai_ticket_daemon.config.check import warnings
from ai_ticket_daemon.config.control import ControlConfig
from ai_ticket_daemon.config.diff import Change, diff
from ai_ticket_daemon.config.events import EventsConfig
from ai_ticket_daemon.config.http import HttpConfig
from ai_ticket_daemon.config.log import LogConfig, LogFormat, LogLevel
from ai_ticket_daemon.config.metrics import MetricsConfig
from ai_ticket_daemon.config.pipeline import PipelineConfig
from ai_ticket_daemon.config.rate_limit import RateLimitConfig
from ai_ticket_daemon.config.read.errors import ConfigError, Problem
from ai_ticket_daemon.config.read.load import load_config
from ai_ticket_daemon.config.store import StoreConfig
from ai_ticket_daemon.config.telemetry import OtlpProtocol, TelemetryConfig, TracesExporter
from ai_ticket_daemon.config.tree import Config
from ai_ticket_daemon.config.values.addresses import Bind, FdBind, TcpBind, UnixBind, parse_bind
from ai_ticket_daemon.config.values.secret import Secret

__all__ = [
    "AuthConfig",
    "BackendKind",
    "BackendRole",
    "BackendsConfig",
    "Bind",
    "Change",
    "Config",
    "ConfigError",
    "ControlConfig",
    "Dialect",
    "EventsConfig",
    "Failback",
    "FdBind",
    "HttpConfig",
    "LogConfig",
    "LogFormat",
    "LogLevel",
    "MetricsConfig",
    "OtlpProtocol",
    "PipelineConfig",
    "Problem",
    "RateLimitConfig",
    "Secret",
    "ServerConfig",
    "StoreConfig",
    "TcpBind",
    "TelemetryConfig",
    "TracesExporter",
    "UnixBind",
    "diff",
    "load_config",
    "parse_bind",
    "warnings",
]
