# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a provider stands on and is not there, or too old or too new, is told by name and version with one command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from ansible_collections.whitestar.deploy.plugins.plugin_utils.required_collections import (
    collection_version,
    installed_version,
    missing,
)

PACKAGES = {"kubernetes": "35.0.0", "jsonpatch": "1.33"}
NEEDED = "titanic_provider: kubernetes needs the collection kubernetes.core from 6.6.0 to before 7.0.0; found: "
REMEDY = (
    "In a checkout run: bin/run collections; elsewhere: "
    "ansible-galaxy collection install 'kubernetes.core:>=6.6.0,<7.0.0'"
)


DOCKER = "titanic_provider: compose needs the collection community.docker from 5.4.0 to before 6.0.0; found: "
DOCKER_REMEDY = (
    "In a checkout run: bin/run collections; elsewhere: "
    "ansible-galaxy collection install 'community.docker:>=5.4.0,<6.0.0'"
)


def told(version: str, **packages: str) -> list[str]:
    have = PACKAGES | packages
    return missing("kubernetes", collection=lambda _: version, package=lambda name: have[name])


@pytest.mark.parametrize("version", ["6.6.0", "6.10.1", "6.99"])
def test_a_version_within_the_bounds_is_taken(version: str) -> None:
    assert told(version) == []


@pytest.mark.parametrize(("version", "found"), [("", "none"), ("6.5.9", "6.5.9"), ("7.0.0", "7.0.0"), ("*", "*")])
def test_any_other_is_told_with_the_command_that_brings_it(version: str, found: str) -> None:
    assert told(version) == [f"{NEEDED}{found}. {REMEDY}"]


@pytest.mark.parametrize(
    ("version", "found"), [("", "none"), ("5.3.9", "5.3.9"), ("6.0.0", "6.0.0"), ("5.4.0", ""), ("5.10.0", "")]
)
def test_containers_need_a_collection_and_no_package(version: str, found: str) -> None:
    seen = missing("compose", collection=lambda _: version, package=lambda _: "")
    assert seen == ([f"{DOCKER}{found}. {DOCKER_REMEDY}"] if found else [])


def test_python_packages_are_told_too() -> None:
    needed = "titanic_provider: kubernetes needs the Python package "
    remedy = "In a checkout run: bin/run collections; elsewhere: pip install "
    assert told("6.6.0", kubernetes="", jsonpatch="0.9") == [
        f"{needed}kubernetes from 24.2.0 on, beside Ansible; found: none. {remedy}'kubernetes>=24.2.0'",
        f"{needed}jsonpatch from 1 on, beside Ansible; found: 0.9. {remedy}'jsonpatch>=1'",
    ]
    assert missing("kubernetes", packages=False, collection=lambda _: "6.6.0", package=lambda _: "") == []


@pytest.mark.parametrize("provider", ["local", "docker", ""])
def test_other_providers_need_nothing(provider: str) -> None:
    assert missing(provider, collection=lambda _: "", package=lambda _: "") == []


def test_versions_are_read_where_ansible_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "ansible_collections/unit/things"
    home.mkdir(parents=True)
    monkeypatch.setattr(sys.modules["ansible_collections"], "__path__", [str(tmp_path / "ansible_collections")])
    assert collection_version("unit.nothing") == ""
    assert collection_version("unit.things") == "", "nobody has installed it"
    (home / "MANIFEST.json").write_text(json.dumps({"collection_info": {"version": "1.2.3"}}))
    assert collection_version("unit.things") == "1.2.3"
    assert installed_version("ansible-core")
    assert installed_version("no-such-package") == ""
