from __future__ import annotations

import inspect
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import msgspec
import pytest

from ai_ticket_daemon.config.events import EventsConfig
from ai_ticket_daemon.config.http import HttpConfig
from ai_ticket_daemon.errors import HTTP_STATUS, ErrorCode
from ai_ticket_daemon.events.limits import MAX_STOP_CHARACTERS
from ai_ticket_daemon.events.parse import parse_event
from ai_ticket_daemon.server.answers import delta_frame
from ai_ticket_daemon.server.openapi.document import openapi_document, openapi_json
from ai_ticket_daemon.server.openapi.examples import EVENT_ID
from ai_ticket_daemon.server.openapi.schemas import shape_ref
from ai_ticket_daemon.server.route_table import GET_LIVE, ROUTES
from ai_ticket_daemon.server.routes import (
    BEFORE_ANY_ROUTE,
    EVERYWHERE,
    OTHER_METHOD,
    UNMATCHED,
    Answer,
    Body,
    Routes,
    method_label,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = openapi_document(ROUTES)
STOP = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARACTERS}


def walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)


def values_of(media_type: str, example: dict[str, Any]) -> list[Any]:
    """Return what has to keep to the schema: of NDJSON each line, of a stream each frame."""
    value = target_of(example["$ref"])["value"] if "$ref" in example else example["value"]
    if media_type == "application/x-ndjson":
        return [json.loads(line) for line in value.splitlines()]
    if media_type == "text/event-stream":
        lines = [line for line in value.splitlines() if line.startswith("data: ")]
        return [{"data": line.removeprefix("data: ")} for line in lines]
    return [value]


def target_of(reference: str) -> Any:
    target: Any = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        target = target[step]
    return target


def problems(schema: dict[str, Any], value: Any) -> list[str]:
    whole = {**schema, "components": DOCUMENT["components"]}
    validator = jsonschema_rs.Draft202012Validator(whole)
    return [str(error) for error in validator.iter_errors(value)]


def operations() -> Iterator[dict[str, Any]]:
    for item in DOCUMENT["paths"].values():
        yield from item.values()


def test_it_is_an_openapi_31_document() -> None:
    assert json.loads(openapi_json(ROUTES)) == DOCUMENT
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
        assert target_of(reference)


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
    codes = [code.value for code in ErrorCode]
    assert DOCUMENT["components"]["schemas"]["ErrorCode"]["enum"] == codes
    assert list(DOCUMENT["components"]["examples"]) == codes


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


def test_the_parts_of_every_shape_have_names_that_a_generated_client_keeps() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for name, schema in schemas.items():
        assert schema["title"] == name
        for node in walk(schema):
            if node is not schema:
                assert node.get("type") != "object" or "properties" not in node, (name, node)
            for member in [*node.get("oneOf", []), *node.get("allOf", [])]:
                scalar = member.get("type") in {"string", "null"}
                items = member.get("items", {})
                assert scalar or "$ref" in member or "$ref" in items or items == STOP, (name, node)
    frames = [member["$ref"].rpartition("/")[2] for member in schemas["StreamEvent"]["oneOf"]]
    assert frames == ["StreamDelta", "StreamEnd", "StreamError", "StreamReasoning"]


def test_each_error_is_of_one_class_and_its_codes_stand_beside_it() -> None:
    for operation in operations():
        for response in operation["responses"].values():
            schema = response["content"].get("application/json", {}).get("schema", {})
            for shape in schema.get("oneOf", [schema]):
                assert shape["$ref"].startswith("#/components/schemas/")
                if shape["$ref"].endswith("/Error"):
                    assert shape["properties"]["error"]["enum"]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation)
def test_each_answer_that_is_given_before_the_route_is_known_is_described(route: Any) -> None:
    responses = DOCUMENT["paths"][route.path][route.method.lower()]["responses"]
    for status, code in BEFORE_ANY_ROUTE:
        examples = responses[str(status)]["content"]["application/json"]["examples"]
        assert code.value in examples


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation)
def test_every_route_has_examples_that_keep_to_its_shapes(route: Any) -> None:
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    bodies = [operation["requestBody"]] if "requestBody" in operation else []
    for part in [*bodies, *operation["responses"].values()]:
        for media_type, media in part["content"].items():
            assert media["examples"]
            for example in media["examples"].values():
                for value in values_of(media_type, example):
                    assert problems(media["schema"], value) == []
    for parameter in operation.get("parameters", []):
        assert parameter["description"]
        assert problems(parameter["schema"], parameter["example"]) == []


def test_the_examples_of_requests_are_accepted() -> None:
    for operation in operations():
        body = operation.get("requestBody", {"content": {}})
        for media_type, media in body["content"].items():
            for example in media["examples"].values():
                for value in values_of(media_type, example):
                    for event in value if isinstance(value, list) else [value]:
                        parse_event(
                            event, limits=EventsConfig(), now=0.0, event_id="id", trace_context={}
                        )


def test_the_frames_of_a_stream_keep_to_their_shapes() -> None:
    response = DOCUMENT["paths"]["/event"]["post"]["responses"]["200"]
    example = response["content"]["text/event-stream"]["examples"]["frames"]
    frames = [json.loads(frame["data"]) for frame in values_of("text/event-stream", example)]
    # As the daemon writes them:
    frames.append(json.loads(delta_frame("a").removeprefix(b"data: ")))
    failed = {**DOCUMENT["components"]["examples"]["api_stalled"]["value"], "done": True}
    for frame in [*frames, failed]:
        assert problems({"$ref": "#/components/schemas/StreamEvent"}, frame) == []
    assert problems({"$ref": "#/components/schemas/StreamEvent"}, {"delta": "a"}) != []


@pytest.mark.parametrize(("path", "pointer"), [("/event", "/event_id"), ("/events", "/0/event_id")])
def test_who_was_told_an_id_is_led_to_its_event(path: str, pointer: str) -> None:
    ids = {operation["operationId"] for operation in operations()}
    answer = DOCUMENT["paths"][path]["post"]["responses"]["202"]
    links = answer["links"]

    assert {link["operationId"] for link in links.values()} == {"getEvent", "deleteEvent"} <= ids
    for link in links.values():
        assert link["parameters"] == {"event_id": f"$response.body#{pointer}"}
    value: Any = answer["content"]["application/json"]["examples"]["queued"]["value"]
    for step in pointer.split("/")[1:]:
        value = value[int(step) if step.isdigit() else step]
    assert value == EVENT_ID


def test_the_servers_are_this_one_and_the_default_address() -> None:
    here, default = DOCUMENT["servers"]
    assert here["url"] == "/"
    values = {name: variable["default"] for name, variable in default["variables"].items()}
    [bind] = HttpConfig().bind
    assert default["url"].format(**values) == f"http://{bind}"


def test_labels_never_hold_what_a_client_made_up() -> None:
    assert Routes(ROUTES).at("/event").label == "/event"
    for path in ("/event/0192-secret", "/event/%20", "/event/{event_id}"):
        assert Routes(ROUTES).at(path).label == "/event/{event_id}"
    for path in ("/event/", "/event/a/b", "/eventual", "/events/a", "/event/a/"):
        assert Routes(ROUTES).at(path).label == UNMATCHED
    assert method_label("POST") == "POST"
    assert method_label("EVIL") == OTHER_METHOD


class Version(msgspec.Struct):
    """Which program serves."""

    version: str


def test_a_route_that_is_added_is_described_from_its_value_alone() -> None:
    answer = Answer("The version.", {"application/json": Body(Version, {"one": {"version": "1"}})})
    route = replace(GET_LIVE, path="/version", operation="getVersion", answers={200: answer})
    described = openapi_document([*ROUTES, route])

    operation = described["paths"]["/version"]["get"]
    media = operation["responses"]["200"]["content"]["application/json"]
    assert media["schema"] == {"$ref": "#/components/schemas/Version"}
    assert media["examples"] == {"one": {"value": {"version": "1"}}}
    assert described["components"]["schemas"]["Version"]["required"] == ["version"]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation)
def test_no_part_of_the_description_of_a_route_is_forgotten(route: Any) -> None:
    name = f"{route.method} {route.path}"
    assert route.answers, f"{name} has no answer; say in its Route what it answers."
    for status, answer in route.answers.items():
        assert answer.description, f"{name} does not say what its answer {status} means."
        for media_type, body in answer.bodies.items():
            assert body.examples, f"{name} shows no example of {media_type} with status {status}."
            shape = shape_ref(body.shape)["$ref"].rpartition("/")[2]
            assert shape in DOCUMENT["components"]["schemas"], f"{name} has no shape {shape}."
    in_path = set(re.findall(r"{(\w+)}", route.path))
    described = {p.name for p in route.parameters if p.place == "path"}
    assert described == in_path, f"{name} does not describe each parameter of its path."
    taken = list(inspect.signature(route.handler).parameters)[2:]
    assert set(taken) == in_path, f"The handler of {name} does not take what its path names."
