"""Certificates and authorities for tests: made here, good for a day unless said otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, both as PEM."""

    certificate: str
    key: str
    serial: int

    @property
    def settings(self) -> dict[str, dict[str, str]]:
        """The variable of the collection that gives it to a reverse proxy."""
        return {"titanic_secrets_tls": {"certificate": self.certificate, "key": self.key}}


def new_certificate(*names: str, days: float = 1, authority: Certificate | None = None) -> Certificate:
    """One for these names, the first of which it is called by; a negative ``days`` makes one that has expired.

    ``authority`` vouches for it; without one it does so itself. Every one of them may be an authority.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    issuer, signing = subject, key
    if authority:
        issuer = x509.load_pem_x509_certificate(authority.certificate.encode()).subject
        loaded = load_pem_private_key(authority.key.encode(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signing = loaded
    now = datetime.now(UTC)
    serial = x509.random_serial_number()
    made = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), serial)
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .sign(signing, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Certificate(made.public_bytes(Encoding.PEM).decode(), private.decode(), serial)
