from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ai_ticket_daemon.config.events import EventsConfig
from ai_ticket_daemon.errors import HTTP_STATUS, ErrorCode
from ai_ticket_daemon.events.parse import parse_event
from ai_ticket_daemon.server.openapi import openapi_document, openapi_json
from ai_ticket_daemon.server.routes import (
    EVERYWHERE,
    OTHER_METHOD,
    ROUTES,
    UNMATCHED,
    method_label,
    route_label,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = openapi_document()


def walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)


def operations() -> Iterator[dict[str, Any]]:
    for item in DOCUMENT["paths"].values():
        yield from item.values()


def test_it_is_an_openapi_31_document() -> None:
    assert json.loads(openapi_json()) == DOCUMENT
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert {"title", "version"} <= DOCUMENT["info"].keys()
    ids = [operation["operationId"] for operation in operations()]
    assert len(ids) == len(set(ids)) == len(ROUTES)
    for operation in operations():
        assert operation["responses"]
        for status, response in operation["responses"].items():
            assert status.isdigit()
            assert response["description"]
            for media in response["content"].values():
                assert "schema" in media


def test_every_reference_leads_somewhere() -> None:
    references = {node["$ref"] for node in walk(DOCUMENT) if "$ref" in node}
    assert references
    for reference in references:
        target: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]


def test_what_is_required_is_described() -> None:
    for node in walk(DOCUMENT["components"]):
        if isinstance(node.get("required"), list):
            assert set(node["required"]) <= node["properties"].keys()


def test_it_knows_every_route_and_no_other() -> None:
    described = {
        (path, method.upper()) for path, item in DOCUMENT["paths"].items() for method in item
    }
    assert described == {(route.path, route.method) for route in ROUTES}


def test_it_knows_every_code() -> None:
    assert DOCUMENT["components"]["schemas"]["Error"]["properties"]["error"]["enum"] == [
        code.value for code in ErrorCode
    ]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation)
def test_each_code_of_a_route_stands_under_its_status(route: Any) -> None:
    responses = DOCUMENT["paths"][route.path][route.method.lower()]["responses"]
    for code in (*EVERYWHERE, *route.errors):
        assert code.value in json.dumps(responses[str(HTTP_STATUS[code])])


def test_each_field_it_names_is_read_and_no_other() -> None:
    class Recorder(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            seen.add(key)
            return super().get(key, default)

    seen: set[str] = set()
    parse_event(
        Recorder(content="a"), limits=EventsConfig(), now=0.0, event_id="id", trace_context={}
    )
    assert seen == DOCUMENT["components"]["schemas"]["EventRequest"]["properties"].keys()


def test_labels_never_hold_what_a_client_made_up() -> None:
    assert route_label("/event") == "/event"
    for path in ("/event/0192-secret", "/event/%20", "/event/{event_id}"):
        assert route_label(path) == "/event/{event_id}"
    for path in ("/event/", "/event/a/b", "/eventual", "/events/a", "/event/a/"):
        assert route_label(path) == UNMATCHED
    assert method_label("POST") == "POST"
    assert method_label("EVIL") == OTHER_METHOD
