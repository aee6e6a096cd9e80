from __future__ import annotations

import pytest

from ai_ticket_daemon.errors import ErrorCode, RequestRefused
from ai_ticket_daemon.server.routes import (
    DELETE_EVENT,
    GET_EVENT,
    GET_LIVE,
    POST_EVENT,
    POST_EVENTS,
    Route,
    find_route,
)


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
    found, parts = find_route(method, path)
    assert found is route
    assert parts == ({"event_id": path.removeprefix("/event/")} if "{" in route.path else {})


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
        find_route("GET", path)
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
        find_route(method, path)
    assert refused.value.code is ErrorCode.METHOD_NOT_ALLOWED
    assert refused.value.details == {"allowed": allowed}
