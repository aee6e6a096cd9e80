from __future__ import annotations

import os
import struct
from typing import Any

import h2.connection
import h2.events
import h2.settings
import pytest
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from ai_ticket_daemon.server.listen.http2 import Http2
from ai_ticket_daemon.server.listen.remote_settings import MAX_TABLE_BYTES

TABLE_SIZE = h2.settings.SettingCodes.HEADER_TABLE_SIZE
LARGEST = 2**32 - 1
SETTINGS_FRAME = b"\x04"
UNKNOWN = range(0x100, 0x100 + 2_000)


@pytest.fixture
def server() -> h2.connection.H2Connection:
    """What answers an HTTP/2 client, without a socket."""
    unused: Any = None
    config = Config()
    http2 = Http2(
        unused, config, WorkerContext(None), unused, ConnectionState({}), False, None, None, unused,
        on_malformed=lambda: None,
    )  # fmt: skip
    http2.connection.initiate_connection()
    return http2.connection


@pytest.fixture
def client(server: h2.connection.H2Connection) -> h2.connection.H2Connection:
    client = h2.connection.H2Connection()
    client.initiate_connection()
    exchange(client, server)
    return client


def exchange(client: h2.connection.H2Connection, server: h2.connection.H2Connection) -> None:
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())


def set_table_size(
    client: h2.connection.H2Connection, server: h2.connection.H2Connection, *sizes: int
) -> None:
    for size in sizes:
        client.update_settings({TABLE_SIZE: size})
        exchange(client, server)


def answer(client: h2.connection.H2Connection, server: h2.connection.H2Connection) -> str:
    """Have one request answered with headers that nothing else has; the client reads them."""
    stream_id = client.get_next_available_stream_id()
    request = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/live")]
    client.send_headers(stream_id, request, end_stream=True)
    server.receive_data(client.data_to_send())
    sent = os.urandom(200).hex()
    server.send_headers(stream_id, [(":status", "200"), ("x-id", sent)], end_stream=True)
    (answered,) = [
        event
        for event in client.receive_data(server.data_to_send())
        if isinstance(event, h2.events.ResponseReceived)
    ]
    assert dict(answered.headers or ())[b"x-id"] == sent.encode()
    return sent


def test_a_client_cannot_have_the_table_of_our_headers_grow(
    client: h2.connection.H2Connection, server: h2.connection.H2Connection
) -> None:
    set_table_size(client, server, LARGEST)
    for _ in range(100):
        answer(client, server)
    table = server.encoder.header_table
    assert table._current_size <= MAX_TABLE_BYTES
    assert sum(len(name) + len(value) for name, value in table.dynamic_entries) <= MAX_TABLE_BYTES


@pytest.mark.parametrize(
    "sizes",
    [(0,), (100, 100), (0, LARGEST), (LARGEST, 0), (LARGEST, 50, LARGEST), (50, 70, 60)],
)
def test_a_client_that_changes_the_size_can_read_all_headers(
    client: h2.connection.H2Connection, server: h2.connection.H2Connection, sizes: tuple[int, ...]
) -> None:
    answer(client, server)
    set_table_size(client, server, *sizes)
    for _ in range(3):
        answer(client, server)
    assert server.encoder.header_table_size == min(sizes[-1], MAX_TABLE_BYTES)


def test_changes_of_the_size_do_not_pile_up_until_the_next_answer(
    client: h2.connection.H2Connection, server: h2.connection.H2Connection
) -> None:
    set_table_size(client, server, *[30 + number % 9 for number in range(500)])
    assert server.encoder.table_size_changes == [30, server.encoder.header_table_size]
    answer(client, server)


def test_settings_that_nobody_knows_are_not_kept(
    client: h2.connection.H2Connection, server: h2.connection.H2Connection
) -> None:
    before = len(server.remote_settings)
    settings = b"".join(struct.pack(">HL", number, 7) for number in UNKNOWN)
    head = struct.pack(">L", len(settings))[1:] + SETTINGS_FRAME + bytes(5)
    server.receive_data(head + settings)
    assert len(server.remote_settings) == before
    client.receive_data(server.data_to_send())
    answer(client, server)


def test_settings_that_are_known_count_as_before(
    client: h2.connection.H2Connection, server: h2.connection.H2Connection
) -> None:
    code = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE
    client.update_settings({code: 12_345})
    exchange(client, server)
    assert server.remote_settings.initial_window_size == 12_345
