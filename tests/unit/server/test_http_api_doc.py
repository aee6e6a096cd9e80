from __future__ import annotations

import re

from project import ROOT

from ai_ticket_daemon.errors import HTTP_STATUS, ErrorCode
from ai_ticket_daemon.server.openapi.document import openapi_document
from ai_ticket_daemon.server.routes import EVERYWHERE, ROUTES

DOC = (ROOT / "docs" / "http-api.md").read_text()


def test_the_page_lists_every_code_with_its_status_and_says_which_are_answered() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| ([^|]*) \|", DOC, re.MULTILINE)
    assert {code: int(status) for code, status, _ in rows} == {
        code.value: status for code, status in HTTP_STATUS.items()
    }
    answered = {code for code, _, meaning in rows if not meaning.startswith("reserved")}
    codes = {code.value for route in ROUTES for code in route.errors}
    assert answered == codes | {code.value for code in EVERYWHERE}
    assert len(rows) == len(ErrorCode)


def test_the_page_shows_every_route_and_every_field() -> None:
    for route in ROUTES:
        assert f"## {route.method} {route.path}\n" in DOC
        path = route.path.replace("/event/{event_id}", "$location")
        method = "-X DELETE " if route.method == "DELETE" else ""
        shown = rf'curl -sS {method}"?http://127.0.0.1:5000{re.escape(path)}\b'
        assert re.search(shown, DOC), route
    for field in openapi_document()["components"]["schemas"]["EventRequest"]["properties"]:
        assert f"\n| `{field}` |" in DOC
