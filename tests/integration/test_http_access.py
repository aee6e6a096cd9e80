"""Tokens, scopes and the limit of requests, over real sockets and under reloads."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from ai_ticket_daemon.config.auth import AuthConfig
from ai_ticket_daemon.config.http import HttpConfig
from ai_ticket_daemon.config.rate_limit import RateLimitConfig
from ai_ticket_daemon.config.values.addresses import TcpBind, UnixBind
from ai_ticket_daemon.config.values.rules import network
from ai_ticket_daemon.config.values.tokens import Tokens, parse_tokens
from ai_ticket_daemon.errors import ErrorCode
from ai_ticket_daemon.testing.http import Served, serving
from ai_ticket_daemon.testing.pipeline import GUARD_SECONDS, succeeded

if TYPE_CHECKING:
    from ai_ticket_daemon.testing.pipeline import ScriptedPipeline

BOT, OPS = "bot-token-bot-token", "ops-token-ops-token"
OPEN_PATHS = ("/health", "/live", "/ready", "/openapi.json")


def auth(text: str = f"bot:{BOT}\nops:{OPS} operate") -> AuthConfig:
    return AuthConfig(Tokens(Path("/tokens"), parse_tokens(text)))


def client_of(served: Served) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=served.url, timeout=GUARD_SECONDS)


async def post(client: httpx.AsyncClient, **headers: str) -> httpx.Response:
    return await client.post(
        "/event",
        json={"content": "a"},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def submitted(pipeline: ScriptedPipeline) -> int:
    return len(pipeline.submissions)


async def test_events_need_a_token_and_probes_do_not() -> None:
    async with serving(auth=auth()) as served, client_of(served) as client:
        refused = await post(client)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == 'Bearer realm="ai-ticket-daemon"'
        assert refused.json()["error"] == "unauthorised"
        assert refused.json()["event_id"] is None
        wrong = await post(client, authorization="Bearer wrong-token")
        assert wrong.status_code == 401
        assert "wrong-token" not in wrong.text
        assert submitted(served.pipeline) == 0
        for path in OPEN_PATHS:
            assert (await client.get(path)).status_code == 200
            # A wrong token is no reason to refuse what needs none.
            assert (
                await client.get(path, headers={"authorization": "Bearer nonsense"})
            ).status_code == 200
        assert (await client.get("/nothing")).status_code == 404
        assert (await post(client, authorization=f"Bearer {BOT}")).status_code == 200
        assert (await post(client, x_api_key=BOT)).status_code == 200
        assert submitted(served.pipeline) == 2
    errors = [recorded.end.error for recorded in served.observer.requests if recorded.end]
    assert errors[:2] == [ErrorCode.UNAUTHORISED] * 2


async def test_a_token_without_the_scope_is_forbidden() -> None:
    async with serving(auth=auth()) as served, client_of(served) as client:
        reply = await post(client, authorization=f"Bearer {OPS}")
        assert reply.status_code == 403
        assert reply.json()["error"] == "forbidden"
        assert reply.json()["details"] == {"needed": ["submit"]}
        assert 'error="insufficient_scope"' in reply.headers["www-authenticate"]
        assert submitted(served.pipeline) == 0


async def test_the_body_of_a_refused_request_is_not_waited_for() -> None:
    async with serving(auth=auth()) as served:
        client = await served.connect()
        await client.send(
            b"POST /event HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            b"content-length: 1000000\r\n\r\n"
        )
        reply = await client.reply()
        assert reply.status == 401
        assert reply.headers["connection"] == "close"


async def test_a_reload_changes_tokens_and_limits_on_open_connections() -> None:
    async with serving(auth=auth()) as served, client_of(served) as client:
        assert (await post(client, authorization=f"Bearer {BOT}")).status_code == 200
        served.auth = auth("bot:another-token-entirely")
        assert (await post(client, authorization=f"Bearer {BOT}")).status_code == 401
        served.auth = AuthConfig()
        assert (await post(client)).status_code == 200
        served.rate_limit = RateLimitConfig(1, 60.0)
        assert (await post(client)).status_code == 200
        assert (await post(client)).status_code == 429
        served.rate_limit = RateLimitConfig(0, 60.0)
        assert (await post(client)).status_code == 200


async def test_every_answer_tells_what_is_left_and_the_last_one_when_to_come_back() -> None:
    limit = RateLimitConfig(3, 3600.0)
    async with serving(auth=auth(), rate_limit=limit) as served, client_of(served) as client:
        headers = {"authorization": f"Bearer {BOT}"}
        good = await post(client, **headers)
        bad = await client.post("/event", content=b"{", headers=headers)
        streamed = await client.post(
            "/event", json={"content": "a", "stream": True}, headers=headers
        )
        assert (good.status_code, bad.status_code, streamed.status_code) == (200, 415, 200)
        for left, reply in ((2, good), (1, bad), (0, streamed)):
            assert reply.headers["ratelimit-limit"] == "3"
            assert reply.headers["ratelimit-remaining"] == str(left)
            assert reply.headers["ratelimit-reset"] == str((3 - left) * 1200)
            assert reply.headers["ratelimit-policy"] == "3;w=3600"
        refused = await post(client, **headers)
        assert refused.status_code == 429
        assert refused.json()["error"] == "rate_limited"
        assert refused.headers["retry-after"] == "1200"
        assert refused.headers["ratelimit-remaining"] == "0"
        for path in OPEN_PATHS:
            reply = await client.get(path)
            assert reply.status_code == 200
            assert "ratelimit-limit" not in reply.headers
        assert submitted(served.pipeline) == 2


@pytest.mark.parametrize("trusted", [False, True])
async def test_clients_behind_a_trusted_proxy_are_told_apart(trusted: bool) -> None:
    http = HttpConfig(bind=(TcpBind("127.0.0.1", 0),))
    if trusted:
        http = dataclasses.replace(http, trusted_proxies=(network.read("127.0.0.1"),))
    async with (
        serving(http, rate_limit=RateLimitConfig(1, 3600.0)) as served,
        client_of(served) as client,
    ):
        replies = [
            await post(client, x_forwarded_for=f"203.0.113.9, 198.51.100.{host}")
            for host in (1, 2, 1)
        ]
    expected = [200, 200, 429] if trusted else [200, 429, 429]
    assert [reply.status_code for reply in replies] == expected


async def test_clients_over_a_unix_socket_are_told_apart_by_their_proxy(tmp_path: Path) -> None:
    http = HttpConfig(bind=(UnixBind(tmp_path / "http"),))
    transport = httpx.AsyncHTTPTransport(uds=str(tmp_path / "http"))
    async with (
        serving(http, rate_limit=RateLimitConfig(1, 3600.0)),
        httpx.AsyncClient(transport=transport, base_url="http://a", timeout=60) as client,
    ):
        replies = [await post(client, x_forwarded_for=f"198.51.100.{host}") for host in (1, 2, 1)]
        assert [reply.status_code for reply in replies] == [200, 200, 429]
        assert [(await post(client)).status_code for _ in range(2)] == [200, 429]


async def test_a_wrong_token_never_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with serving(auth=auth()) as served, client_of(served) as client:
        await post(client, authorization="Bearer wrong-token-wrong")
        await post(client, authorization=f"Bearer {BOT}")
        await client.get("/health")
    # httpx logs its own requests; what the daemon logged must not hold a header.
    text = json.dumps([record.getMessage() for record in caplog.records])
    assert "wrong-token" not in text
    assert BOT not in text


async def test_guessing_on_tells_nothing_and_harms_nobody_at_the_same_address() -> None:
    async with serving(auth=auth()) as served, client_of(served) as client:
        assert (await post(client, x_api_key=BOT)).status_code == 200
        replies = [await post(client, x_api_key=f"guess-{number:02}") for number in range(12)]
        statuses = [reply.status_code for reply in replies]
        assert statuses[:10] == [401] * 10
        assert statuses[-1] == 429
        assert replies[-1].json()["details"] == {"reason": "unknown_tokens"}
        assert 1 <= int(replies[-1].headers["retry-after"]) <= 6
        assert (await post(client, x_api_key=BOT)).status_code == 200
        assert submitted(served.pipeline) == 2


async def test_events_are_limited_by_their_number_however_they_are_sent() -> None:
    limit = RateLimitConfig(0, 3600.0, events=5)
    async with serving(auth=auth(), rate_limit=limit) as served, client_of(served) as client:

        async def post_batch(count: int) -> httpx.Response:
            return await client.post(
                "/events", json=[{"content": "a"}] * count, headers={"x-api-key": BOT}
            )

        never = await post_batch(6)
        assert (never.status_code, never.json()["error"]) == (413, "batch_too_large")
        assert "retry-after" not in never.headers
        assert (await post_batch(4)).status_code == 200
        later = await post_batch(2)
        assert (later.status_code, later.json()["error"]) == (429, "rate_limited")
        assert 700 <= int(later.headers["retry-after"]) <= 720
        assert (await post(client, x_api_key=BOT)).status_code == 200
        assert (await post(client, x_api_key=BOT)).status_code == 429
        assert submitted(served.pipeline) == 5
        served.rate_limit = RateLimitConfig(0, 3600.0)
        assert (await post_batch(6)).status_code == 200


async def test_a_priority_better_than_usual_takes_a_scope() -> None:
    text = f"bot:{BOT}\nops:{OPS} submit,priority:1"
    async with serving(auth=auth(text)) as served, client_of(served) as client:

        async def post_at(token: str, priority: int | None) -> httpx.Response:
            body = {"content": "a", "priority": priority}
            return await client.post("/event", json=body, headers={"x-api-key": token})

        assert [(await post_at(BOT, value)).status_code for value in (None, 9, 5)] == [200] * 3
        refused = await post_at(BOT, 4)
        assert (refused.status_code, refused.json()["error"]) == (403, "forbidden")
        assert refused.json()["details"]["needed"] == ["priority:4"]
        assert (await post_at(OPS, 1)).status_code == 200
        assert (await post_at(OPS, 0)).status_code == 403
        batch = [{"content": "a", "priority": 0}, {"content": "a"}]
        reply = await client.post("/events", json=batch, headers={"x-api-key": BOT})
        assert [item["status"] for item in reply.json()] == [403, 200]
        served.auth = AuthConfig()
        assert (await post_at("", 0)).status_code == 200


@pytest.mark.parametrize("protocol", ["http1", "http2"])
async def test_a_token_that_may_only_submit_reads_no_completion_by_cancelling(
    protocol: str,
) -> None:
    tokens = f"bot:{BOT} submit\nbot:{OPS} submit,read"
    async with (
        serving(auth=auth(tokens)) as served,
        httpx.AsyncClient(
            base_url=served.url, timeout=GUARD_SECONDS, http2=protocol == "http2",
            http1=protocol == "http1",
        ) as client,
    ):  # fmt: skip
        served.pipeline.answer = succeeded("the secret of the ticket")
        only_submit, may_read = ({"authorization": f"Bearer {token}"} for token in (BOT, OPS))
        taken = await client.post(
            "/event", json={"content": "a"}, headers={**only_submit, "prefer": "respond-async"}
        )
        path = f"/event/{taken.json()['event_id']}"
        assert (await client.get(path, headers=only_submit)).status_code == 403
        for _ in range(2):
            told = await client.delete(path, headers=only_submit)
            assert told.status_code == 200
            assert told.json()["state"] == "succeeded"
            assert told.json()["outcome"] is None
            assert "secret" not in told.text
        read = await client.delete(path, headers=may_read)
        assert read.json()["outcome"]["completion"] == "the secret of the ticket"
