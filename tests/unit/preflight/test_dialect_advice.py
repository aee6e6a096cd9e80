"""What the check says of the dialects that servers are spoken to in."""

from __future__ import annotations

import http.server
import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from ai_ticket_daemon.config.backends import BackendKind, Dialect, ServerConfig
from ai_ticket_daemon.preflight.finding import Weight
from ai_ticket_daemon.preflight.servers import recommend

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def server_that_says(props: object) -> Iterator[str]:
    """Serve these properties, or none, on a port of loopback."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(props).encode()
            self.send_response(200 if props is not None and self.path == "/props" else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("props", "dialect", "kind", "advised"),
    [
        ({"chat_template": "{{ x }}"}, Dialect.KOBOLD, BackendKind.KOBOLDCPP, True),
        ({"chat_template": "{{ x }}"}, Dialect.OPENAI_COMPLETIONS, BackendKind.OPENAI, True),
        ({"chat_template": "{{ x }}"}, Dialect.OPENAI_CHAT, BackendKind.KOBOLDCPP, False),
        ({"chat_template": ""}, Dialect.KOBOLD, BackendKind.KOBOLDCPP, False),
        (["odd"], Dialect.KOBOLD, BackendKind.KOBOLDCPP, False),
        (None, Dialect.KOBOLD, BackendKind.KOBOLDCPP, False),
    ],
)
def test_the_chat_api_is_recommended_where_the_model_has_a_template(
    props: object, dialect: Dialect, kind: BackendKind, advised: bool
) -> None:
    with server_that_says(props) as url:
        found = recommend([ServerConfig(name="primary", url=url, dialect=dialect, kind=kind)])
    assert [finding.weight for finding in found] == ([Weight.NOTE] if advised else [])
    if advised:
        assert 'use `dialect = "openai-chat"`' in found[0].text


def test_a_server_that_is_down_gets_no_advice() -> None:
    servers = [ServerConfig(name="p", url="http://127.0.0.1:9", dialect=Dialect.KOBOLD)]
    assert recommend(servers) == []
