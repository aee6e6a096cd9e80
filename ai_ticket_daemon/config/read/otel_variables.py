"""OpenTelemetry's variables without a key in the conf file, checked before its SDK reads them.

The SDK reads some of them when it is imported, traces or not, and ends the process over a number it
does not like; of others it says nothing. Here both are told as mistakes of a configuration are.
"""

from __future__ import annotations

import math
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from ai_ticket_daemon.config.read.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LIMITS = (
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
)
_TIMEOUTS = ("OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")
_COMPRESSIONS = ("OTEL_EXPORTER_OTLP_COMPRESSION", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION")
_PROVIDERS = (
    "OTEL_PYTHON_EXPORTER_OTLP_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_GRPC_TRACES_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
    "OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER",
)
_PROVIDER_GROUP = "opentelemetry_otlp_credential_provider"
_BATCHES = (
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_SCHEDULE_DELAY",
)
_FILES = tuple(
    f"OTEL_EXPORTER_OTLP_{signal}{what}"
    for signal in ("", "TRACES_")
    for what in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
)
_HEADERS = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
_RATIO_SAMPLERS = frozenset({"traceidratio", "parentbased_traceidratio"})
_SAMPLERS = _RATIO_SAMPLERS | {
    "always_on",
    "always_off",
    "parentbased_always_on",
    "parentbased_always_off",
}
_HIGHEST_LIMIT = 2**31 - 1


def problems(environ: Mapping[str, str]) -> Iterator[Problem]:
    """Yield what no exporter could be made with, traces or not."""
    for name, message in _mistakes(environ):
        yield Problem(f"environment variable {name}", None, "", message)


def warnings(environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each value that is not taken as it stands."""
    return [f"environment variable {name}: {message}" for name, message in _oddities(environ)]


def _mistakes(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, text in _given(environ, _LIMITS):
        if not _is_whole(text, 0):
            yield name, f"has to be a whole number from 0 to {_HIGHEST_LIMIT}; or unset it"
    for name, text in _given(environ, _TIMEOUTS):
        if not 0 < _number(text) < math.inf:
            yield name, "has to be a number of seconds above 0; or unset it"
    for name, text in _given(environ, _COMPRESSIONS):
        if text.lower() not in ("none", "gzip", "deflate"):
            yield name, 'has to be "none", "gzip" or "deflate"; or unset it'
    for name, text in _given(environ, _PROVIDERS):
        if not entry_points(group=_PROVIDER_GROUP, name=text):
            yield name, "names a provider that is not installed; unset it"


def _oddities(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, text in _given(environ, _BATCHES):
        if not _is_whole(text, 1):
            yield name, "is no whole number above 0, so the default holds"
    for name, text in _given(environ, ("OTEL_SDK_DISABLED",)):
        if text.lower() not in ("true", "false"):
            yield name, 'is neither "true" nor "false", so it counts as "false"'
    for name, text in _given(environ, ("OTEL_TRACES_SAMPLER",)):
        if text.lower() not in _SAMPLERS:
            yield name, "names no sampler, so parentbased_always_on is used"
        ratio = _number(environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip())
        if text.lower() in _RATIO_SAMPLERS and not 0 <= ratio <= 1:
            yield "OTEL_TRACES_SAMPLER_ARG", "is no number from 0 to 1, so every trace is recorded"
    for name, text in _given(environ, ("OTEL_RESOURCE_ATTRIBUTES",)):
        if not _is_list_of_pairs(text):
            yield name, "is no list of key=value pairs; what is none is left out"
    # Their values are secrets.
    for name, text in _given(environ, _HEADERS):
        if not _is_list_of_pairs(text):
            yield name, "is no list of name=value pairs; what is none is left out"
    for name, text in _given(environ, _FILES):
        if not Path(text).is_file():
            yield name, "names no file"
    for name, text in _given(environ, ("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS",)):
        for detector in filter(None, map(str.strip, text.split(","))):
            group = "opentelemetry_resource_detector"
            if detector != "*" and not entry_points(group=group, name=detector):
                yield name, "names a detector that is not installed; it is left out"


def _given(environ: Mapping[str, str], names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for name in names:
        text = environ.get(name, "").strip()
        if text:
            yield name, text


def _is_whole(text: str, least: int) -> bool:
    digits = text.isascii() and text.isdecimal() and len(text) <= len(str(_HIGHEST_LIMIT))
    return digits and least <= int(text) <= _HIGHEST_LIMIT


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _is_list_of_pairs(text: str) -> bool:
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    return all(key.strip() and equals for key, equals, _ in pairs)
