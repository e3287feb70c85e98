# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program that cannot be talked to is named, and what the cluster keeps for itself is taken away."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.whitestar.deploy.plugins.doc_fragments.cluster import ModuleDocFragment
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes import (
    CLUSTER_OPTION,
    fields,
    stripped,
)
from ansible_collections.whitestar.deploy.tests.cluster_helpers import refusal
from ansible_collections.whitestar.deploy.tests.helpers import COLLECTION, MODULES


def test_a_program_that_is_not_there_is_named(place: Path) -> None:
    said = refusal({"kubectl": f"{place}/kubectl", "namespace": "n"})
    assert said == f"the program {place}/kubectl cannot be run (No such file or directory)"


def test_a_program_that_does_not_listen_is_told_by_its_words(place: Path) -> None:
    program = place / "kubectl"
    program.write_text("#!/bin/sh\necho 'error: no such luck' >&2\nexit 1\n")
    program.chmod(0o755)
    assert refusal({"kubectl": str(program), "namespace": "n"}) == "kubectl cannot talk to the cluster: no such luck"


def test_what_the_cluster_keeps_is_stripped() -> None:
    kept = {"kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}}, "spec": {"x": 1}}
    own = {"resourceVersion": "7", "uid": "u", "generation": 1, "creationTimestamp": "now", "managedFields": []}
    full = kept | {"metadata": {"name": "p", "labels": {"a": "b"}, **own}, "status": {"phase": "Running"}}
    assert stripped(full) == kept
    assert stripped(None) == {}


def test_fields_are_taken_where_they_are() -> None:
    assert fields([{"a": {"b": 1}}, {"a": 2}, {}, {"a": {"b": 0}}], "a", "b") == [1, 0]


def test_the_documented_cluster_is_the_one_that_modules_take() -> None:
    documented = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]["cluster"]["suboptions"]
    options: Any = CLUSTER_OPTION["options"]
    assert {name: option.get("default") for name, option in documented.items()} == {
        name: option.get("default") for name, option in options.items()
    }
    takers = sorted(path.stem for path in (COLLECTION / "plugins" / "modules").glob("kubernetes_*.py"))
    assert len(takers) >= 8
    for name in takers:
        text = importlib.import_module(f"{MODULES}.{name}").DOCUMENTATION
        assert "whitestar.deploy.cluster" in yaml.safe_load(text)["extends_documentation_fragment"]
