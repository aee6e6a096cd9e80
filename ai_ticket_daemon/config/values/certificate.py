"""A certificate and its private key: whether they can be used together, and until when."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WARN_SECONDS = 14 * 86400.0
"""How long before its end a certificate deserves a word."""

_DAY_SECONDS = 86400.0
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _VERSION, _UTC_TIME = 0x30, 0xA0, 0x17


class CertificateUnusable(Exception):
    """A certificate cannot be served.

    Args:
        key: the key of the conf file that is at fault, ``tls_cert`` or ``tls_key``.
        reason: what is wrong, and what to do.
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key


@dataclass(frozen=True, slots=True)
class Chain:
    """What is known of a certificate and the ones that vouch for it.

    Args:
        begins_at: from when on all of them are valid, seconds since the Unix epoch.
        expires_at: when the first of them expires, likewise.
        is_linked: whether each was issued by the one that follows it in the file.
    """

    begins_at: float
    expires_at: float
    is_linked: bool

    def warning(self, now: float) -> str | None:
        """Return what deserves a word at the time ``now``; None if nothing does."""
        until = datetime.fromtimestamp(self.expires_at, UTC).isoformat(timespec="minutes")
        left_seconds = self.expires_at - now
        if left_seconds <= 0:
            return f"http.tls_cert: the certificate expired at {until}; clients refuse it: renew it"
        if now < self.begins_at:
            begins = datetime.fromtimestamp(self.begins_at, UTC).isoformat(timespec="minutes")
            return f"http.tls_cert: the certificate is valid only from {begins} on"
        if left_seconds < WARN_SECONDS:
            days = int(left_seconds / _DAY_SECONDS)
            return f"http.tls_cert: the certificate expires in {days} days, at {until}; renew it"
        if not self.is_linked:
            return (
                "http.tls_cert: the certificates are not in the order of a chain, each followed by "
                "the one that issued it; many clients will refuse them"
            )
        return None


def load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> Chain:
    """Have ``context`` serve this certificate, and return what is known of it.

    Raises:
        CertificateUnusable: it cannot be served; the context is not to be used then.
    """
    try:
        certificate_text, key_text = certificate.read_bytes(), key.read_bytes()
    except OSError as error:
        at_fault = "tls_key" if error.filename == str(key) else "tls_cert"
        raise CertificateUnusable(
            at_fault, f"the file cannot be read: {error.strerror or error}"
        ) from error
    if b"CERTIFICATE" not in _PEM.findall(certificate_text):
        raise CertificateUnusable(
            "tls_cert", "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
        )
    kinds = [kind for kind in _PEM.findall(key_text) if kind.endswith(b"PRIVATE KEY")]
    if not kinds:
        raise CertificateUnusable(
            "tls_key", "holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)"
        )
    if b"ENCRYPTED" in kinds[0] or b"Proc-Type: 4,ENCRYPTED" in key_text:
        raise CertificateUnusable(
            "tls_key", "is encrypted with a passphrase that nobody is there to type; decrypt it "
            "with `openssl pkey`, for the service alone to read",
        )  # fmt: skip
    try:
        chain = _chain(certificate_text.decode("ascii", "replace"))
    except (ValueError, IndexError) as error:
        raise CertificateUnusable("tls_cert", "holds a certificate that is damaged") from error
    try:
        # The callback keeps OpenSSL from asking the terminal, whatever is in the file.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            reason = f"is not the private key of the certificate in {certificate}"
            raise CertificateUnusable("tls_key", reason) from error
        reason = f"cannot be used with its key: {error.reason or error}"
        raise CertificateUnusable("tls_cert", reason) from error
    except OSError as error:
        reason = f"the file cannot be read: {error.strerror or error}"
        raise CertificateUnusable("tls_cert", reason) from error
    return chain


def check_pair(certificate: Path, key: Path) -> Chain:
    """Return what is known of the certificate, if it can be served with this key.

    Raises:
        CertificateUnusable: it cannot.
    """
    return load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), certificate, key)


def _chain(text: str) -> Chain:
    found = [_fields(ssl.PEM_cert_to_DER_cert(pem)) for pem in _CERTIFICATE.findall(text)]
    if not found:
        raise ValueError
    begins, ends, issuers, subjects = zip(*found, strict=True)
    linked = all(
        issuer == subject for issuer, subject in zip(issuers[:-1], subjects[1:], strict=True)
    )
    return Chain(max(begins), min(ends), linked)


def _fields(der: bytes) -> tuple[float, float, bytes, bytes]:
    """Return from when and until when a certificate is valid, its issuer and its subject.

    RFC 5280, section 4.1. Python's ssl module tells them of the certificate of a peer only.
    """
    [(_, certificate)] = _elements(der)
    _, signed = next(_elements(certificate))
    fields = [element for element in _elements(signed) if element[0] != _VERSION]
    # In front: the serial number and the algorithm of the signature.
    (_, issuer), (kind, validity), (_, subject) = fields[2:5]
    if kind != _SEQUENCE:
        raise ValueError
    begins, ends = (_time(*element) for element in _elements(validity))
    return begins, ends, issuer, subject


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the tag and the content of each element of DER-encoded ``data``."""
    position = 0
    while position < len(data):
        tag, length = data[position], data[position + 1]
        position += 2
        if length & 0x80:
            octets = length & 0x7F
            length = int.from_bytes(data[position : position + octets], "big")
            position += octets
        if position + length > len(data):
            raise ValueError
        yield tag, data[position : position + length]
        position += length


def _time(tag: int, content: bytes) -> float:
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        # Two digits of the year, of which 50 to 99 are of the last century.
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
