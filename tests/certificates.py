"""Certificates for tests: made here, for a name, good for a day unless said otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


@dataclass(frozen=True)
class Certificate:
    """A certificate that vouches for itself, and its key, both as PEM."""

    certificate: str
    key: str
    serial: int

    @property
    def settings(self) -> dict[str, dict[str, str]]:
        """The variable of the collection that gives it to a front door."""
        return {"titanic_secrets_tls": {"certificate": self.certificate, "key": self.key}}


def new_certificate(*names: str, days: float = 1) -> Certificate:
    """One for these names, the first of which it is called by; a negative ``days`` makes one that has expired."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    now = datetime.now(UTC)
    serial = x509.random_serial_number()
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), serial)
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Certificate(made.public_bytes(Encoding.PEM).decode(), private.decode(), serial)
