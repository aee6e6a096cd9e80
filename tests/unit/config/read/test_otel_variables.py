from __future__ import annotations

import pytest

from ai_ticket_daemon.config.read.errors import ConfigError
from ai_ticket_daemon.config.read.load import load_config
from ai_ticket_daemon.config.read.otel_variables import problems, warnings

URL = {"KOBOLDCPP_API_URL": "http://127.0.0.1:5001"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-1"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "1.5"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "abc"),
        ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", "٣"),
        ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "unset"),
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "9" * 5000),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "1_0"),
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "-0"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "abc"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "nan"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "-1"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip"),
        ("OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER", "nobody"),
    ],
)
def test_a_value_that_no_exporter_can_be_made_with_is_a_mistake_with_traces_on_or_off(
    name: str, value: str
) -> None:
    for traces in ("none", "console"):
        with pytest.raises(ConfigError) as raised:
            load_config(None, {**URL, "OTEL_TRACES_EXPORTER": traces, name: value})
        (problem,) = raised.value.problems
        assert problem.source == f"environment variable {name}"
        assert "unset it" in problem.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ("OTEL_SDK_DISABLED", "yes"),
        ("OTEL_TRACES_SAMPLER", "nonsense"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=b,rubbish"),
        ("OTEL_RESOURCE_ATTRIBUTES", "=b"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "s3cret"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere"),
        ("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "nobody"),
    ],
)
def test_a_value_that_is_not_taken_as_it_stands_is_a_warning_that_does_not_repeat_it(
    name: str, value: str
) -> None:
    load_config(None, {**URL, name: value})
    (sentence,) = warnings({name: value})
    assert sentence.startswith(f"environment variable {name}: ")
    assert "s3cret" not in sentence


def test_a_sampler_by_ratio_needs_its_ratio() -> None:
    sampler = {"OTEL_TRACES_SAMPLER": "traceidratio"}
    assert len(warnings(sampler)) == 1
    assert len(warnings(sampler | {"OTEL_TRACES_SAMPLER_ARG": "7"})) == 1
    assert warnings(sampler | {"OTEL_TRACES_SAMPLER_ARG": "0.5"}) == []


def test_sensible_values_and_empty_ones_pass() -> None:
    environ = {
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": " 0 ",
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2.5",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "GZIP",
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        "OTEL_SDK_DISABLED": "True",
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        "OTEL_RESOURCE_ATTRIBUTES": "a=b,c=,",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Basic%20x",
    }
    assert list(problems(environ)) == []
    assert warnings(environ) == []
