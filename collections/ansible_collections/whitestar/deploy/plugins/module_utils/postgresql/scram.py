# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL's password verifiers, so that a server never sees a password in clear and an unchanged one is known.

The form is PostgreSQL's (documentation of pg_authid), the computation RFC 5802, section 3.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import unicodedata

ITERATIONS = 4096  # PostgreSQL's default, scram_iterations
_FORM = re.compile(r"SCRAM-SHA-256\$(?P<iterations>\d+):(?P<salt>[^$]+)\$(?P<stored>[^:]+):(?P<server>.+)")


def verifier(password: str, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """What ``ALTER ROLE … PASSWORD`` takes instead of the password: ``SCRAM-SHA-256$4096:salt$stored:server``."""
    salt = salt or secrets.token_bytes(16)
    prepared = unicodedata.normalize("NFKC", password).encode()
    salted = hashlib.pbkdf2_hmac("sha256", prepared, salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    text = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{text[0]}${text[1]}:{text[2]}"


def matches(password: str, kept: str) -> bool:
    """Whether ``kept``, as pg_authid has it, is a verifier of ``password``."""
    form = _FORM.fullmatch(kept)
    if not form:
        return False
    again = verifier(password, base64.b64decode(form["salt"]), int(form["iterations"]))
    return hmac.compare_digest(again, kept)
