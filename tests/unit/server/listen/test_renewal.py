"""A renewed certificate is taken once it is whole; until then the one before is served."""

from __future__ import annotations

import io
import json
import ssl
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trustme

from ai_ticket_daemon.config.http import HttpConfig
from ai_ticket_daemon.config.log import LogFormat
from ai_ticket_daemon.config.values.addresses import TcpBind
from ai_ticket_daemon.config.values.certificate import CertificateUnusable
from ai_ticket_daemon.host.exhaustion import Exhaustion
from ai_ticket_daemon.server.listen import renewal
from ai_ticket_daemon.server.listen.tls import ServedCertificate, signature_of
from ai_ticket_daemon.telemetry.logs.logs import Logs
from ai_ticket_daemon.testing.http import RawClient, Served, serving
from ai_ticket_daemon.testing.pipeline import ScriptedPipeline, succeeded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NOW = datetime.now(UTC).replace(microsecond=0)


class House:
    """Files as certbot keeps them: links to what is valid now, which it puts in place anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.certificate, self.key = folder / "fullchain.pem", folder / "privkey.pem"
        self.issued = 0
        self.renew(90)
        self.http = HttpConfig(tls_cert=self.certificate, tls_key=self.key)
        self.served = ServedCertificate(lambda: self.http)
        self.shown: list[float] = []
        self._looked = trio.Event()
        self.now = NOW.timestamp()
        self._stream = io.StringIO()
        self.log = Logs(log_format=LogFormat.JSON, stream=self._stream).logger()
        self.exhaustion = Exhaustion()

    def renew(self, days: int, *, certificate: bool = True, key: bool = True) -> float:
        """Put another pair, or half of one, in place; return when it expires."""
        self.issued += 1
        expires = NOW + timedelta(days=days)
        leaf = self.authority.issue_cert("localhost", not_after=expires)
        for link, pem, wanted in (
            (self.certificate, leaf.cert_chain_pems[0], certificate),
            (self.key, leaf.private_key_pem, key),
        ):
            if wanted:
                file = self.folder / f"{link.stem}{self.issued}.pem"
                file.write_bytes(pem.bytes())
                draft = link.with_suffix(".new")
                draft.symlink_to(file)
                draft.replace(link)
        return expires.timestamp()

    @property
    def expires_at(self) -> float:
        assert self.served.chain is not None
        return self.served.chain.expires_at

    def lines(self, event: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self._stream.getvalue().splitlines()]
        return [line for line in found if line["event"] == event]

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        self.served.start()
        async with trio.open_nursery() as nursery:
            await nursery.start(self._run)
            yield
            nursery.cancel_scope.cancel()

    def _show(self, expires_at: float) -> None:
        self.shown.append(expires_at)
        self._looked.set()

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        await renewal.run(
            certificate=self.served,
            shown=self._show,
            log=self.log,
            exhaustion=self.exhaustion,
            now=lambda: self.now,
            look_seconds=0.001,
            task_status=task_status,
        )

    async def looks(self, count: int) -> None:
        """Wait until the files have been looked at so often."""
        for _ in range(count):
            self._looked = trio.Event()
            await self._looked.wait()


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def test_renewed_files_are_taken_by_themselves(house: House) -> None:
    async with house.watching():
        await house.looks(1)
        before = house.served.context
        expires_at = house.renew(180)
        await house.looks(4)

        assert house.expires_at == house.shown[-1] == expires_at
        assert house.served.context is not before
        assert [line["expires_at"] for line in house.lines("certificate_taken")] == [expires_at]


async def test_an_open_connection_and_its_stream_outlive_a_renewal(house: House) -> None:
    house.http = replace(house.http, bind=(TcpBind("127.0.0.1", 0),))
    pipeline = ScriptedPipeline()
    pipeline.answer = None
    body = json.dumps({"content": "a", "stream": True}).encode()
    head = "POST /event HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    async with (
        house.watching(),
        serving(house.http, pipeline=pipeline, certificate=house.served) as served,
    ):
        before = house.expires_at
        client, shown = await connect(served, house.authority)
        assert shown == before
        await client.send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        submission = await pipeline.submission()
        submission.say("early")
        await client.until(b'"early"')

        after = house.renew(180)
        await house.looks(4)
        newcomer, shown = await connect(served, house.authority)
        assert shown == house.expires_at == after != before

        submission.say("late")
        await client.until(b'"late"')
        submission.end(succeeded())
        await client.until(b'"done":true')
        await client.until(b"0\r\n\r\n")
        for one in (client, newcomer):
            await one.send(b"GET /live HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert (await one.reply()).json() == {"live": True}


async def connect(served: Served, authority: trustme.CA) -> tuple[RawClient, float]:
    """Return a connection over TLS, and when the certificate expires that it was shown."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    tcp = await trio.open_tcp_stream("127.0.0.1", served.port)
    stream = trio.SSLStream(tcp, context, server_hostname="localhost", https_compatible=True)
    with trio.fail_after(30):
        await stream.do_handshake()
    return served.client(stream), ssl.cert_time_to_seconds(stream.getpeercert()["notAfter"])


async def test_half_a_pair_is_not_taken_and_said_once_until_it_is_whole(house: House) -> None:
    async with house.watching():
        await house.looks(1)
        before, expires_before = house.served.context, house.expires_at
        house.renew(180, key=False)
        await house.looks(6)

        assert house.served.context is before
        assert house.expires_at == expires_before
        assert "the certificate from before is served" in house.served.warnings(house.now)[0]
        [refused] = house.lines("certificate_refused")
        assert "is not the private key" in refused["reason"]

        expires_at = house.renew(200)
        await house.looks(4)
        assert house.expires_at == expires_at
        assert house.served.warnings(house.now) == []


async def test_files_that_are_gone_leave_the_one_before_in_place(house: House) -> None:
    async with house.watching():
        await house.looks(1)
        before = house.served.context
        house.certificate.unlink()
        await house.looks(4)

        assert house.served.context is before
        assert len(house.lines("certificate_refused")) == 1


async def test_an_end_that_is_near_is_said_once_a_day(house: House) -> None:
    house.renew(10)
    async with house.watching():
        await house.looks(4)
        assert len(house.lines("certificate_expires")) == 1
        assert "expires in 10 days" in house.lines("certificate_expires")[0]["detail"]
        house.now += renewal.WARN_EVERY_SECONDS
        await house.looks(2)
        assert len(house.lines("certificate_expires")) == 2

        house.renew(90)
        await house.looks(4)
        house.now += renewal.WARN_EVERY_SECONDS
        await house.looks(2)
        assert len(house.lines("certificate_expires")) == 2


def test_files_that_change_from_look_to_look_are_not_touched(house: House) -> None:
    house.served.start()
    house.renew(180)
    first = signature_of(house.served.paths)
    house.renew(200)
    second = signature_of(house.served.paths)

    assert not house.served.should_take(first)
    assert not house.served.should_take(second)
    assert house.served.should_take(second)


def test_a_reload_takes_them_at_once_and_may_take_tls_away(house: House) -> None:
    house.served.start()
    expires_at = house.renew(180)

    renewal.take(house.served, house.log)
    assert house.expires_at == expires_at
    assert len(house.lines("certificate_taken")) == 1

    house.http = HttpConfig()
    renewal.take(house.served, house.log)
    assert house.served.context is None


def test_what_cannot_be_used_is_not_taken_by_a_reload_either(house: House) -> None:
    house.served.start()
    before = house.served.context
    house.key.write_text("nonsense")

    with pytest.raises(CertificateUnusable):
        house.served.take()

    assert house.served.context is before
