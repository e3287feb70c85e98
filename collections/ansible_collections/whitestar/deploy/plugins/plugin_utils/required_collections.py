# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which collections and Python packages a provider stands on: whether they are there, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path

from ansible.module_utils.compat.version import LooseVersion

# Name -> the oldest version, and the first that is too new. As in galaxy.yml, which an installed collection has not.
REQUIRED = {"kubernetes.core": ("6.6.0", "7.0.0"), "community.docker": ("5.4.0", "6.0.0")}
# What each provider's roles call.
COLLECTIONS = {"kubernetes": ["kubernetes.core"], "compose": ["community.docker"]}
# Name -> the oldest version of a Python package on the controller; as kubernetes.core asks for.
PACKAGES = {"kubernetes": {"kubernetes": "24.2.0", "jsonpatch": "1"}}
REMEDY = "In a checkout run: bin/run collections; elsewhere:"


def collection_version(name: str) -> str:
    """The version of a collection that this run finds; empty where there is none."""
    try:
        (place, *_) = import_module(f"ansible_collections.{name}").__path__
        found = json.loads((Path(place) / "MANIFEST.json").read_text(encoding="utf-8"))
        return str(found["collection_info"]["version"])
    except (ImportError, OSError, ValueError, KeyError):
        return ""


def installed_version(name: str) -> str:
    """The version of a Python package that this run finds; empty where there is none."""
    try:
        return package_version(name)
    except PackageNotFoundError:
        return ""


def is_within(known: str, least: str, below: str = "") -> bool:
    """Whether a version is one of those; one that is no number, as of a collection taken from git, is not."""
    try:
        return LooseVersion(least) <= LooseVersion(known) and not (below and LooseVersion(below) <= LooseVersion(known))
    except TypeError:
        return False


def missing(
    provider: str,
    *,
    packages: bool = True,
    collection: Callable[[str], str] = collection_version,
    package: Callable[[str], str] = installed_version,
) -> list[str]:
    """One sentence for each thing that a provider needs and that is not there in a version that it works with.

    ``packages`` says whether modules run where this process does.
    """
    found = []
    for name in COLLECTIONS.get(provider, ()):
        least, below = REQUIRED[name]
        known = collection(name)
        if not known or not is_within(known, least, below):
            needs = f"{provider} needs the collection {name} from {least} to before {below}"
            remedy = f"ansible-galaxy collection install '{name}:>={least},<{below}'"
            found.append(f"titanic_provider: {needs}; found: {known or 'none'}. {REMEDY} {remedy}")
    for name, least in (PACKAGES.get(provider, {}) if packages else {}).items():
        known = package(name)
        if not known or not is_within(known, least):
            needs = f"{provider} needs the Python package {name} from {least} on, beside Ansible"
            found.append(f"titanic_provider: {needs}; found: {known or 'none'}. {REMEDY} pip install '{name}>={least}'")
    return found
