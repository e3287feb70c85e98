# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the certificates and keys that are given can be used."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key


def wrong_certificates(values: Mapping[str, Any]) -> list[str]:
    """Why the reverse proxy or the database could not use the certificate and key that it is given, if so."""
    found = []
    if values.get("titanic_api_tls") == "given":
        name = str(values.get("titanic_api_hostname") or "localhost")
        found += wrong_certificate(values, "titanic_secrets_tls", name, told="titanic_api_hostname")
    if boolean(values.get("titanic_database_tls", False)):
        if values.get("titanic_provider") == "local":
            return [*found, "titanic_database_tls: the local database is reached by a socket. Leave it out."]
        name = "titanic-database" if values.get("titanic_provider") == "kubernetes" else "database"
        found += wrong_certificate(values, "titanic_secrets_database_tls", name)
    return found


def wrong_certificate(values: Mapping[str, Any], variable: str, name: str, told: str = "") -> list[str]:
    """Why a certificate and key cannot be used under this name, if so; nothing of the key is said.

    ``told`` is the variable that the name comes from, where one does.
    """
    given = values.get(variable) or {}
    try:
        certificate = x509.load_pem_x509_certificates(str(given.get("certificate")).encode())[0]
    except ValueError:
        return [f"{variable}: certificate is no certificate. Give it as PEM (-----BEGIN CERTIFICATE-----)."]
    try:
        key = load_pem_private_key(str(given.get("key")).encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return [f"{variable}: key is no private key. Give it as PEM, without a passphrase."]
    found = []
    if key.public_key() != certificate.public_key():
        found.append(f"{variable}: key is not the one of certificate. Give the one it was made with.")
    if certificate.not_valid_after_utc < datetime.now(UTC):
        ended = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
        found.append(f"{variable}: certificate was valid until {ended}. Give a newer one.")
    names = certificate_names(certificate)
    if not any(matches(name, pattern) for pattern in names):
        its = ", ".join(names) or "no name"
        remedy = "Give another name or certificate." if told else "Give one that is."
        found.append(f"{told or variable}: the certificate is for {its}, not for {name}. {remedy}")
    return found


def certificate_names(certificate: x509.Certificate) -> list[str]:
    """The names and addresses that a certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]


def matches(name: str, pattern: str) -> bool:
    """Whether a certificate's name, which may begin with ``*.`` (RFC 9525, 6.3), is for this name."""
    first, _, rest = pattern.partition(".")
    return name.lower() == pattern.lower() or (first == "*" and name.lower().partition(".")[2] == rest.lower())
