from __future__ import annotations

import re
from dataclasses import replace

import pytest

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.server.route_table import (
    DELETE_EVENT,
    GET_EVENT,
    GET_LIVE,
    POST_EVENT,
    POST_EVENTS,
    ROUTES,
)
from ai_ticket_daemon.server.routes import UNMATCHED, Route, Routes

FOUND = Routes(ROUTES)


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("GET", "/live", GET_LIVE),
        ("HEAD", "/live", GET_LIVE),
        ("POST", "/event", POST_EVENT),
        ("POST", "/events", POST_EVENTS),
        ("GET", "/event/x", GET_EVENT),
        ("HEAD", "/event/x", GET_EVENT),
        ("DELETE", "/event/%2e", DELETE_EVENT),
    ],
)
def test_a_route_is_found_by_its_method_and_path(method: str, path: str, route: Route) -> None:
    place = FOUND.at(path)
    assert place.route(method) is route
    assert place.label == route.path
    assert place.parameters == (
        {"event_id": path.removeprefix("/event/")} if "{" in route.path else {}
    )


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "//live",
        "/live/",
        "/LIVE",
        "/live;a",
        "/event/",
        "/event/a/b",
    ],
)
def test_other_paths_are_no_routes(path: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        FOUND.at(path).route("GET")
    assert refused.value.code is ErrorCode.NOT_FOUND


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("get", "/live", ["GET", "HEAD"]),
        ("hEAD", "/live", ["GET", "HEAD"]),
        ("GET", "/event", ["POST"]),
        ("PUT", "/event/x", ["DELETE", "GET", "HEAD"]),
    ],
)
def test_another_method_is_told_those_that_are_taken(
    method: str, path: str, allowed: list[str]
) -> None:
    with pytest.raises(RequestRefused) as refused:
        FOUND.at(path).route(method)
    assert refused.value.code is ErrorCode.METHOD_NOT_ALLOWED
    assert refused.value.details == {"allowed": allowed}


@pytest.mark.parametrize(
    ("template", "path", "parameters"),
    [
        ("/queue/{name}", "/queue/a.b", {"name": "a.b"}),
        ("/queue/{name}/events", "/queue/a/events", {"name": "a"}),
        ("/{first}/{second}", "/a/b", {"first": "a", "second": "b"}),
    ],
)
def test_a_new_path_with_parameters_is_found_and_named(
    template: str, path: str, parameters: dict[str, str]
) -> None:
    route = replace(GET_EVENT, path=template)
    routes = Routes([*ROUTES, route])
    assert routes.at(path).route("GET") is route
    assert routes.at(path).label == template
    assert routes.at(path).parameters == parameters
    assert routes.at(path + "/").label == routes.at("/queue/").label == UNMATCHED


def test_every_route_is_found_where_it_says_to_be() -> None:
    for route in ROUTES:
        path = re.sub(r"{\w+}", "x", route.path)
        assert FOUND.at(path).route(route.method) is route, f"{route.path} leads somewhere else."
