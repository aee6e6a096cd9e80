"""What the daemon is measured against: a quart-trio handler that forwards with httpx, no more."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import httpx
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import request
from quart_trio import QuartTrio

if TYPE_CHECKING:
    from quart.typing import ResponseReturnValue


async def main(backend_url: str) -> None:
    app = QuartTrio(__name__)
    client = httpx.AsyncClient(base_url=backend_url, timeout=30)

    @app.post("/event")
    async def forward() -> ResponseReturnValue:
        event = await request.get_json()
        answer = await client.post(
            "/v1/chat/completions",
            json={
                "messages": [{"role": "user", "content": event["content"]}],
                "max_tokens": event["max_tokens"],
            },
        )
        return {"completion": answer.json()["choices"][0]["message"]["content"]}

    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(serve, app, config)
        print(f"ready on {address}", flush=True)


trio.run(main, sys.argv[1])
