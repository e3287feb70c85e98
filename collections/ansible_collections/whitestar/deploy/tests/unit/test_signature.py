# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cosign and the signed provenance say decides, and nothing else does.

A program stands in for cosign here, which answers as it does. The repository's
tests/end_to_end/image/test_signature.py has the real one.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.release.signature import (
    SignatureError,
    require_source,
    source_digest,
    verified_image,
    wrong_provenance,
)

REPOSITORY, REF, BUILDER = "https://git.example.org/titanic", "refs/heads/main", "https://ci.example.org/runner"
DIGEST = "sha256:" + "ab" * 32
# Notes how it was called and with which configuration; fails where a file of the command's name holds a reason.
STAND_IN = """#!/bin/sh
here=$(dirname "$0")
echo "$@" >> "$here/calls"
if [ -n "${DOCKER_CONFIG:-}" ]; then cat "$DOCKER_CONFIG/config.json" >> "$here/config"; fi
if [ -f "$here/$1.error" ]; then echo "WARNING: something"; cat "$here/$1.error" >&2; exit 1; fi
if [ -f "$here/$1.json" ]; then cat "$here/$1.json"; fi
"""


def statement(repository: str = REPOSITORY, ref: str = REF, builder: str = BUILDER) -> dict[str, Any]:
    dependency = {"uri": f"git+{repository}@{ref}", "digest": {"gitCommit": "0123"}}
    return {
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {"resolvedDependencies": [{"name": "context"}, dependency]},
            "runDetails": {"builder": {"id": builder}},
        },
    }


def envelope(content: dict[str, Any]) -> dict[str, str]:
    return {"payload": base64.b64encode(json.dumps(content).encode()).decode()}


class Cosign:
    """A stand-in for cosign and its answers."""

    def __init__(self, place: Path) -> None:
        self.place = place
        program = place / "cosign"
        program.write_text(STAND_IN)
        program.chmod(0o755)
        self.signed(DIGEST)
        self.attested(statement())

    def wanted(self, **more: str) -> dict[str, str]:
        return {"program": str(self.place / "cosign"), "key": "cosign.pub", **more}

    def signed(self, *digests: str, kind: str = "https://sigstore.dev/cosign/sign/v1") -> None:
        entries = [{"critical": {"image": {"docker-manifest-digest": digest}, "type": kind}} for digest in digests]
        (self.place / "verify.json").write_text(json.dumps(entries) + "\n")

    def attested(self, *statements: dict[str, Any]) -> None:
        lines = [json.dumps(envelope(one)) for one in statements]
        (self.place / "verify-attestation.json").write_text("\n".join(lines) + "\n")

    def refuses(self, command: str, reason: str) -> None:
        (self.place / f"{command}.error").write_text(reason)

    @property
    def calls(self) -> list[str]:
        path = self.place / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def cosign(place: Path) -> Cosign:
    return Cosign(place)


def test_an_image_is_known_by_the_digest_that_was_signed(cosign: Cosign) -> None:
    name = "registry.example.org:5000/team/titanic:0123"
    assert verified_image(name, cosign.wanted()) == f"registry.example.org:5000/team/titanic@{DIGEST}"
    (call,) = cosign.calls
    assert call == f"verify --key=cosign.pub --insecure-ignore-tlog=true --output=json {name}"


def test_an_identity_needs_the_transparency_log(cosign: Cosign) -> None:
    wanted = cosign.wanted(identity="https://ci/a.yml", issuer="https://tokens") | {"key": ""}
    verified_image("r.example.org/a:1", wanted)
    assert "--certificate-identity=https://ci/a.yml --certificate-oidc-issuer=https://tokens" in cosign.calls[0]
    assert "tlog" not in cosign.calls[0]


def test_what_cosign_refuses_is_refused_with_its_word(cosign: Cosign) -> None:
    cosign.refuses(
        "verify", "WARNING: x\nError: no signatures found\nerror during command execution: no signatures found\n"
    )
    with pytest.raises(SignatureError, match=r"r\.example\.org/a:1 is refused: no signatures found. Sign it"):
        verified_image("r.example.org/a:1", cosign.wanted())


@pytest.mark.parametrize("digests", [[], [DIGEST, "sha256:" + "cd" * 32]])
def test_a_name_with_no_digest_or_two_is_refused(cosign: Cosign, digests: list[str]) -> None:
    cosign.signed(*digests)
    with pytest.raises(SignatureError, match="has no signature on one digest"):
        verified_image("r.example.org/a:1", cosign.wanted())


def test_an_attestation_is_no_signature(cosign: Cosign) -> None:
    cosign.signed(DIGEST, kind="https://slsa.dev/provenance/v1")
    with pytest.raises(SignatureError, match="has no signature on one digest"):
        verified_image("r.example.org/a:1", cosign.wanted())


def test_a_missing_program_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match="there is no program /none/cosign"):
        verified_image("r.example.org/a:1", {"key": "a", "program": "/none/cosign"})


def test_provenance_is_asked_of_the_digest_and_one_statement_is_enough(cosign: Cosign) -> None:
    cosign.attested(statement(repository="https://git.example.org/other"), statement())
    wanted = cosign.wanted(repository=REPOSITORY, ref=REF, builder=BUILDER)
    assert verified_image("r.example.org/a:1", wanted).endswith(DIGEST)
    assert cosign.calls[1].endswith(f"--type=slsaprovenance1 --output=json r.example.org/a@{DIGEST}")


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (
            {"repository": "https://git.example.org/other"},
            f"its repository is https://git.example.org/other, not {REPOSITORY}",
        ),
        ({"ref": "refs/heads/mine"}, f"its ref is refs/heads/mine, not {REF}"),
        ({"builder": "laptop"}, f"its builder is laptop, not {BUILDER}"),
        ({"builder": ""}, "its builder is not told"),
    ],
)
def test_provenance_that_says_otherwise_is_refused(cosign: Cosign, said: dict[str, str], problem: str) -> None:
    cosign.attested(statement(**said))
    wanted = cosign.wanted(repository=REPOSITORY, ref=REF, builder=BUILDER)
    with pytest.raises(SignatureError, match=r"the provenance of r\.example\.org/a:1 does not hold") as refused:
        verified_image("r.example.org/a:1", wanted)
    assert problem in str(refused.value)


def test_provenance_that_nobody_signed_is_refused(cosign: Cosign) -> None:
    cosign.attested()
    with pytest.raises(SignatureError, match="nobody has signed any"):
        verified_image("r.example.org/a:1", cosign.wanted(ref=REF))


def test_an_address_with_an_account_is_still_a_repository() -> None:
    said = statement(repository="ssh://git@git.example.org/titanic")
    assert wrong_provenance(said, {"repository": "ssh://git@git.example.org/titanic", "ref": REF}) == []


def test_a_statement_without_anything_says_nothing_that_is_asked_for() -> None:
    problems = wrong_provenance({}, {"repository": REPOSITORY, "ref": REF, "builder": BUILDER})
    assert len(problems) == 3


def test_a_login_is_in_a_configuration_of_its_own_and_in_no_argument(cosign: Cosign, place: Path) -> None:
    verified_image("r.example.org/a:1", cosign.wanted(), {"username": "someone", "password": "planted-word"})
    assert "planted-word" not in cosign.calls[0]
    auths = json.loads((place / "config").read_text())["auths"]
    assert base64.b64decode(auths["r.example.org"]["auth"]) == b"someone:planted-word"


@pytest.fixture
def project(place: Path) -> Path:
    project = place / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text("[project]\n")
    (project / "requirements.txt").write_text("flask==1\n")
    return project


def test_a_source_is_named_by_its_tree_and_what_it_needs(project: Path) -> None:
    names = {source_digest(project, project / "requirements.txt", [])}
    (project / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    names.add(source_digest(project, project / "requirements.txt", []))
    other = project.parent / "requirements.txt"
    other.write_text("flask==2\n")
    names.add(source_digest(project, other, []))
    assert len(names) == 3
    assert all(len(name) == 64 for name in names)


def test_a_source_is_held_to_the_statement_that_was_signed(cosign: Cosign, place: Path) -> None:
    bundle = place / "service.sigstore.json"
    wanted = cosign.wanted(provenance=str(bundle), repository=REPOSITORY, ref=REF)
    with pytest.raises(SignatureError, match="has no signed provenance"):
        require_source("0123", wanted)
    bundle.write_text(json.dumps({"dsseEnvelope": envelope(statement())}))
    require_source("0123", wanted)
    assert f"--bundle={bundle} --digest=0123 --digestAlg=sha256" in cosign.calls[-1]
    with pytest.raises(SignatureError, match="its ref is refs/heads/main, not refs/heads/other"):
        require_source("0123", wanted | {"ref": "refs/heads/other"})
    cosign.refuses(
        "verify-blob-attestation", "Error: provided artifact digest does not match any digest in statement\n"
    )
    with pytest.raises(SignatureError, match="does not match any digest"):
        require_source("0123", wanted)
