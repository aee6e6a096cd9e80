"""What a start, a reload and the check say of a certificate and its key."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trustme

from ai_ticket_daemon.config.read.errors import ConfigError
from ai_ticket_daemon.config.read.load import load_config
from ai_ticket_daemon.config.values.certificate import CertificateUnusable, Chain, check_pair

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86400.0
CONF = '[[backends.server]]\nname = "primary"\nurl = "http://127.0.0.1:5001"\n'


def write(folder: Path, name: str, *pems: bytes) -> Path:
    path = folder / name
    path.write_bytes(b"".join(pems))
    return path


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def issued(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("localhost")


def pair(folder: Path, leaf: trustme.LeafCert) -> tuple[Path, Path]:
    chain = [blob.bytes() for blob in leaf.cert_chain_pems]
    return write(folder, "c.pem", *chain), write(folder, "k.pem", leaf.private_key_pem.bytes())


def test_when_a_certificate_expires_is_read_from_it(authority: trustme.CA, tmp_path: Path) -> None:
    expires = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    leaf = authority.issue_cert("localhost", not_after=expires)

    chain = check_pair(*pair(tmp_path, leaf))

    assert chain.expires_at == expires.timestamp()
    assert chain.is_linked


def test_dates_from_the_year_2050_on_are_read_as_well(
    authority: trustme.CA, tmp_path: Path
) -> None:
    """They are written in another way (RFC 5280, section 4.1.2.5)."""
    ca = trustme.CA()
    late = datetime(2061, 1, 2, tzinfo=UTC)
    chain = check_pair(*pair(tmp_path, ca.issue_cert("localhost", not_after=late)))

    assert chain.expires_at == late.timestamp()


def test_the_first_of_a_chain_to_expire_counts(tmp_path: Path) -> None:
    root = trustme.CA()
    middle = root.create_child_ca()
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    leaf = middle.issue_cert("localhost", not_after=soon)
    certificate, key = pair(tmp_path, leaf)
    assert certificate.read_bytes().count(b"BEGIN CERTIFICATE") == 2

    chain = check_pair(certificate, key)

    assert chain.expires_at == soon.timestamp()
    assert chain.is_linked


def test_a_chain_in_the_wrong_order_deserves_a_word(tmp_path: Path) -> None:
    leaf = trustme.CA().issue_cert("localhost")
    stranger = trustme.CA().cert_pem.bytes()
    certificate = write(tmp_path, "c.pem", leaf.cert_chain_pems[0].bytes(), stranger)
    key = write(tmp_path, "k.pem", leaf.private_key_pem.bytes())

    chain = check_pair(certificate, key)

    assert not chain.is_linked
    told = chain.warning(chain.expires_at - 100 * DAY)
    assert told is not None
    assert "not in the order of a chain" in told


def test_a_key_of_another_certificate_is_refused(
    authority: trustme.CA, issued: trustme.LeafCert, tmp_path: Path
) -> None:
    certificate, key = pair(tmp_path, issued)
    other = authority.issue_cert("localhost").private_key_pem.bytes()
    key.write_bytes(other)

    with pytest.raises(CertificateUnusable, match="is not the private key of the certificate"):
        check_pair(certificate, key)


def test_files_that_hold_something_else_are_refused_by_the_name_of_their_key(
    issued: trustme.LeafCert, tmp_path: Path
) -> None:
    certificate, key = pair(tmp_path, issued)
    damaged = write(tmp_path, "d.pem", certificate.read_bytes().replace(b"MII", b"MIJ", 1))
    for files, at_fault, told in (
        ((key, key), "tls_cert", "holds no certificate"),
        ((certificate, certificate), "tls_key", "holds no private key"),
        ((damaged, key), "tls_cert", "damaged"),
        ((tmp_path / "gone", key), "tls_cert", "No such file"),
        ((certificate, tmp_path / "gone"), "tls_key", "No such file"),
    ):
        with pytest.raises(CertificateUnusable, match=told) as caught:
            check_pair(*files)
        assert caught.value.key == at_fault


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(
    issued: trustme.LeafCert, tmp_path: Path
) -> None:
    certificate, key = pair(tmp_path, issued)
    locked = tmp_path / "locked.pem"
    subprocess.run(
        ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", locked],
        check=True, timeout=30,
    )  # fmt: skip

    with pytest.raises(CertificateUnusable, match="encrypted with a passphrase"):
        check_pair(certificate, locked)


def test_a_mistake_names_the_line_of_the_key_in_the_conf_file(
    authority: trustme.CA, issued: trustme.LeafCert, tmp_path: Path
) -> None:
    certificate, key = pair(tmp_path, issued)
    key.write_bytes(authority.issue_cert("localhost").private_key_pem.bytes())
    conf = tmp_path / "ai-ticket.conf"
    conf.write_text(f'[http]\ntls_cert = "{certificate}"\ntls_key = "{key}"\n{CONF}')

    with pytest.raises(ConfigError) as caught:
        load_config(conf, {})

    assert str(caught.value) == (
        f"{conf}:3: http.tls_key: is not the private key of the certificate in {certificate}"
    )


@pytest.mark.parametrize(
    ("left_days", "told"),
    [
        (15, None),
        (13.5, "expires in 13 days, at 2031-01-01T00:00+00:00; renew it"),
        (0.5, "expires in 0 days"),
        (-1, "expired at 2031-01-01T00:00+00:00; clients refuse it"),
        (400, "is valid only from 2030-01-01T00:00+00:00 on"),
    ],
)
def test_a_certificate_deserves_a_word_two_weeks_before_its_end(
    left_days: float, told: str | None
) -> None:
    begins, ends = (datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in (2030, 2031))

    warning = Chain(begins, ends, is_linked=True).warning(ends - left_days * DAY)

    assert warning is None if told is None else warning is not None and told in warning
