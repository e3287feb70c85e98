# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What image_signature_info asks cosign for, on which side, and that check mode is no other run.

A program stands in for cosign; the repository's tests/end_to_end/image/test_signature.py has the real one. In a play
it is the action plugin that names the image.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.plugin_utils.build_context import BuildContext
from ansible_collections.whitestar.deploy.tests.helpers import build_context, run_ansible, run_module

DIGEST = "sha256:" + "ab" * 32
SIGNED = [{"critical": {"image": {"docker-manifest-digest": DIGEST}, "type": "https://sigstore.dev/cosign/sign/v1"}}]


@pytest.fixture
def cosign(place: Path) -> Path:
    """A cosign that believes everybody, and notes what it was asked."""
    program = place / "cosign"
    program.write_text(f"#!/bin/sh\necho \"$@\" >> {place}/asked\necho '{json.dumps(SIGNED)}'\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("check", [False, True])
def test_a_directory_is_held_to_its_provenance(place: Path, cosign: Path, check: bool) -> None:
    (place / "requirements.txt").write_text("flask==1\n")
    verify = {"key": "cosign.pub", "program": str(cosign), "provenance": str(place / "source.sigstore.json")}
    arguments: dict[str, Any] = {
        "kind": "directory",
        "context": str(build_context(place)),
        "requirements": str(place / "requirements.txt"),
        "verify": verify,
    }
    refused = run_module("image_signature_info", arguments, check=check)
    assert refused["failed"]
    assert refused["msg"].startswith("Refused before anything was touched:\ntitanic_image_verify: ")
    (place / "source.sigstore.json").write_text("{}")
    found = run_module("image_signature_info", arguments, check=check)
    assert (found["changed"], found["reference"]) == (False, "")
    assert "verify-blob-attestation --key=cosign.pub" in (place / "asked").read_text()


def test_an_image_is_named_by_its_inputs_on_the_controller(place: Path, cosign: Path) -> None:
    inputs: dict[str, Any] = {
        "context": str(build_context(place)),
        "dockerfile": str(place / "Dockerfile"),
        "exclude": ["tests"],
    }
    options: dict[str, Any] = {**inputs, "kind": "image", "repository": "registry.example.org/a"}
    options |= {"verify": {"key": "cosign.pub", "program": str(cosign)}}
    tasks: list[dict[str, Any]] = [
        {"whitestar.deploy.image_signature_info": options, "register": "found"},
        {"ansible.builtin.debug": {"var": "found.reference"}},
    ]
    done = run_ansible(place, {"tasks": tasks})
    assert f"registry.example.org/a@{DIGEST}" in done.stdout
    assert f"registry.example.org/a:{BuildContext.of(inputs).identity()}" in (place / "asked").read_text()


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        ("cosign.pub", "titanic_image_verify: "),
        ({"keyy": "cosign.pub"}, "titanic_image_verify: there is no key keyy. Did you mean key?"),
        ({"identity": "someone"}, "titanic_image_verify: an identity counts with who has vouched for it"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(place: Path, wanted: Any, problem: str) -> None:
    role = {"name": "whitestar.deploy.titanic_image", "tasks_from": "verify"}
    settings = {
        "titanic_provider": "local",
        "titanic_image_context": str(build_context(place)),
        "titanic_image_requirements": str(place / "Dockerfile"),
        "titanic_image_verify": wanted,
    }
    done = run_ansible(place, {"vars": settings, "tasks": [{"ansible.builtin.import_role": role}]})
    assert "failed=1" in done.stdout
    assert f"Refused before anything was touched:\\n{problem}" in done.stdout, done.stdout
