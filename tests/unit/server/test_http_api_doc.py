from __future__ import annotations

import re

from ai_ticket_daemon.errors import HTTP_STATUS, ErrorCode
from ai_ticket_daemon.events.limits import (
    FIELDS,
    MAX_METADATA_BYTES,
    MAX_STOP_CHARACTERS,
    MAX_STOP_STRINGS,
    RANGES,
)
from ai_ticket_daemon.server.openapi.document import openapi_document
from ai_ticket_daemon.server.route_table import ROUTES
from ai_ticket_daemon.server.routes import EVERYWHERE
from tests.support.project import ROOT

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
    for field in openapi_document(ROUTES)["components"]["schemas"]["EventRequest"]["properties"]:
        assert f"\n| `{field}` |" in DOC


def test_the_page_tells_the_limits_and_defaults_of_the_fields() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \| [^|]* \|", DOC, re.MULTILINE))
    defaults = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|", DOC, re.MULTILINE))
    for field, allowed in RANGES.items():
        start = "above 0" if allowed.above_least else f"{allowed.least:g}"
        assert defaults[field] == str(allowed.default).removesuffix(".0"), field
        assert re.sub(r" \((first|last)\)", "", rows[field]).startswith(
            f"{'integer' if allowed.whole else 'number'}, {start} to "
        ), field
        if field != "max_tokens":  # the conf file says what is the most
            assert f" to {str(allowed.most).removesuffix('.0')}" in rows[field], field
    assert f"at most {MAX_STOP_STRINGS} strings" in rows["stop"]
    assert f"{MAX_STOP_CHARACTERS} characters" in rows["stop"]
    assert f"at most {MAX_METADATA_BYTES} bytes" in rows["metadata"]


def test_the_description_tells_the_limits_of_the_fields() -> None:
    fields = openapi_document(ROUTES)["components"]["schemas"]["EventRequest"]["properties"]
    assert list(FIELDS) == sorted(fields, key=FIELDS.index)
    for field, allowed in RANGES.items():
        assert fields[field].items() >= allowed.schema().items()
