"""An OpenAI-compatible server whose streams come at an even pace: 50 deltas a second each.

paced_backend.py PORT    streams until the client leaves
"""

from __future__ import annotations

import sys
from functools import partial

import trio

DELTAS_PER_SECOND = 50
DELTA_TEXT = b"word"
_MODELS = b'{"object":"list","data":[{"id":"bench","object":"model","owned_by":"bench"}]}'
_DELTA = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"bench",'
    b'"choices":[{"index":0,"delta":{"content":" %s"},"finish_reason":null}]}\n\n'
) % DELTA_TEXT
_CHUNK = b"%x\r\n%s\r\n" % (len(_DELTA), _DELTA)
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


async def serve(client: trio.SocketStream) -> None:
    data = b""
    try:
        while chunk := await client.receive_some(65_536):
            data += chunk
            if data.startswith(b"GET"):
                await client.send_all(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d"
                    b"\r\n\r\n%s" % (len(_MODELS), _MODELS)
                )
                data = b""
            elif b'"stream"' in data:
                await stream(client)
    except trio.BrokenResourceError:
        return


async def stream(client: trio.SocketStream) -> None:
    await client.send_all(_HEAD)
    next_at = trio.current_time()
    while True:
        await client.send_all(_CHUNK)
        next_at += 1 / DELTAS_PER_SECOND
        await trio.sleep_until(next_at)


if __name__ == "__main__":
    trio.run(partial(trio.serve_tcp, serve, int(sys.argv[1]), host="127.0.0.1"))
