# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in Secrets of ours, and the hash of it that their names end with."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import HASH_DIGITS

# The key of the hashes in names; it stays where the secrets are.
KEY = ".name-key"


def decoded(found: Mapping[str, Any] | None) -> dict[str, str]:
    """What is in a Secret."""
    return {name: base64.b64decode(value).decode() for name, value in ((found or {}).get("data") or {}).items()}


def keyed(key: str, values: Mapping[str, str]) -> str:
    """A hash that tells that a secret changed and nothing about it."""
    digest = hmac.new(key.encode(), digestmod=hashlib.sha256)
    for name, value in sorted(values.items()):
        digest.update(f"{name} {len(value)} {value}".encode())
    return digest.hexdigest()[:HASH_DIGITS]
