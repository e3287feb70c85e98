# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How services are defined in the Compose file: names, addresses, networks, variables, and what none may do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import COLOURS

# Where the reverse proxy meets the releases, and where they meet the database, which has no way out.
NETWORKS: dict[str, dict[str, Any]] = {"front": {}, "data": {"internal": True}}
# What the client gives containers, also in lower case, where its config.json has proxies. No proxy knows ours.
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY")
# What nobody in a container of ours needs.
HARDENED = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
}


def service_of(colour: str) -> str:
    """The Compose service of a colour."""
    return f"api-{colour}"


def upstreams(project: str, replicas: int, port: int) -> list[str]:
    """Every address that the reverse proxy may find a release at: both colours, all replicas (a text will do)."""
    numbers = range(1, int(replicas) + 1)
    return [f"{project}-{service_of(colour)}-{number}:{port}" for colour in COLOURS for number in numbers]


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` laid on it, mappings recursively."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def without_proxies(environment: Any) -> dict[str, Any]:
    """The ``environment`` of a service with every proxy in both spellings: as it names that, set to nothing otherwise.

    Programs differ in which of the two they prefer, and the client adds the one that is not there.
    """
    given = variables_of(environment)
    named = {name.lower(): value for name, value in given.items()}
    both = {name: named.get(upper.lower(), "") for upper in PROXIES for name in (upper, upper.lower())}
    return both | given


def variables_of(environment: Any) -> dict[str, Any]:
    """Variables by name, of a mapping or of a list of ``NAME=value``, as Compose takes both."""
    if isinstance(environment, Mapping):
        return dict(environment)
    pairs = (str(entry).partition("=") for entry in environment or [])
    return {name: value if equals else None for name, equals, value in pairs}
