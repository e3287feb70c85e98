"""Signs a release and attests what it was made of: an image, or the source of a local release.

Called by ``make sign`` and ``make sign-source``. The image is the one that ``make image`` has left in
.reports/image.json. With ``COSIGN_KEY``, a file or a key service's name, that key signs, and no transparency log is
needed. Without, a workflow's own identity signs (OIDC), and no key is kept anywhere. ``REGISTRY_USER`` and
``REGISTRY_TOKEN`` are for a registry that docker is not logged in to.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bin import cosign

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / ".reports"
IMAGE = REPORTS / "image.json"
SOURCE = ROOT / "service"
BUNDLE = ROOT / "service.sigstore.json"
DEFAULTS = ROOT / "collections/ansible_collections/whitestar/deploy/roles/titanic_image/defaults/main.yml"
BUILD_TYPE = "https://titanic.invalid/source/v1"
SLSA = "slsaprovenance1"


class SupplyError(RuntimeError):
    """A step could not be done; the message says why and what to do."""


def git(*arguments: str) -> str:
    """What git says of this checkout, empty where it says nothing."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def origin(environment: Mapping[str, str]) -> dict[str, Any]:
    """The repository, reference and commit of this checkout, as a dependency of SLSA provenance."""
    if environment.get("GITHUB_ACTIONS"):
        repository = f"{environment['GITHUB_SERVER_URL']}/{environment['GITHUB_REPOSITORY']}"
        reference, commit = environment["GITHUB_REF"], environment["GITHUB_SHA"]
    else:
        repository = git("remote", "get-url", "origin").removesuffix(".git") or "unknown"
        reference, commit = git("symbolic-ref", "--quiet", "HEAD") or "detached", git("rev-parse", "HEAD")
    return {"uri": f"git+{repository}@{reference}", "digest": {"gitCommit": commit}}


def builder(environment: Mapping[str, str]) -> str:
    """Who builds: the workflow, as GitHub names it in certificates, or this account on this machine."""
    if workflow := environment.get("GITHUB_WORKFLOW_REF"):
        return f"{environment['GITHUB_SERVER_URL']}/{workflow}"
    return f"{os.uname().nodename}:{environment.get('USER') or os.geteuid()}"


def require_committed() -> None:
    """Provenance names a commit, so what is built must be of it. Raises SupplyError."""
    if changed := git("status", "--porcelain", "--", "service", "Dockerfile", "Dockerfile.dockerignore"):
        raise SupplyError(f"the release is not what the commit has: commit first\n{changed}")


def predicate(recorded: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """SLSA provenance 1.0: what the build has recorded, and besides where the source is from and who built it."""
    definition = dict(recorded.get("buildDefinition") or {"buildType": BUILD_TYPE, "externalParameters": {}})
    details = dict(recorded.get("runDetails") or {})
    definition["resolvedDependencies"] = [*definition.get("resolvedDependencies", []), origin(environment)]
    details["builder"] = {**details.get("builder", {}), "id": builder(environment)}
    return {"buildDefinition": definition, "runDetails": details}


@contextlib.contextmanager
def registry_environment(reference: str) -> Iterator[dict[str, str]]:
    """The environment in which cosign may write to the registry; a login is in a file that is removed again."""
    user, token = os.environ.get("REGISTRY_USER"), os.environ.get("REGISTRY_TOKEN")
    if not (user and token):
        yield dict(os.environ)
        return
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "config.json")
        path.touch(0o600)
        entry = base64.b64encode(f"{user}:{token}".encode()).decode()
        path.write_text(json.dumps({"auths": {reference.partition("/")[0]: {"auth": entry}}}))
        yield {**os.environ, "DOCKER_CONFIG": place}


def run(words: Sequence[str], environment: Mapping[str, str]) -> None:
    """Runs cosign as it is called here. Raises SupplyError."""
    key = os.environ.get("COSIGN_KEY", "")
    signer = [f"--key={key}", "--tlog-upload=false", "--use-signing-config=false"] if key else []
    command = [str(cosign.program()), words[0], "--yes", *signer, *words[1:]]
    if subprocess.run(command, env=dict(environment), stdin=subprocess.DEVNULL).returncode:
        raise SupplyError(f"cosign {words[0]} failed: its own words above say why")


def built() -> dict[str, Any]:
    """What ``make image`` has left. Raises SupplyError when there is none."""
    if not IMAGE.is_file():
        raise SupplyError("there is no .reports/image.json: run make image first")
    found: dict[str, Any] = json.loads(IMAGE.read_text())
    return found


def sign() -> None:
    """Sign the image, and attest its provenance and its bill of materials."""
    require_committed()
    image = built()
    reference, directory = str(image["reference"]), Path(image["directory"])
    recorded = directory / "provenance.json"
    if "@sha256:" not in reference or not recorded.is_file():
        raise SupplyError(f"{reference} was not built and pushed here, so there is nothing to state: run make image")
    with tempfile.TemporaryDirectory() as place, registry_environment(reference) as environment:
        stated = Path(place, "provenance.json")
        stated.write_text(json.dumps(predicate(json.loads(recorded.read_text())["predicate"], os.environ)))
        run(["sign", reference], environment)
        run(["attest", f"--type={SLSA}", f"--predicate={stated}", reference], environment)
        if (bill := directory / "sbom.cdx.json").is_file():
            run(["attest", "--type=cyclonedx", f"--predicate={bill}", reference], environment)
    print(f"signed: {reference}")


def sign_source() -> None:
    """Attest the source of a local release, beside it."""
    require_committed()
    sys.path.insert(0, str(ROOT / "collections"))
    from ansible_collections.whitestar.deploy.plugins.module_utils.release.signature import source_digest

    exclude = yaml.safe_load(DEFAULTS.read_text())
    digest = source_digest(SOURCE, SOURCE / "requirements.txt", exclude["titanic_image_exclude"])
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "source", "digest": {"sha256": digest}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": predicate({}, os.environ),
    }
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "statement.json")
        path.write_text(json.dumps(statement))
        run(["attest-blob", f"--statement={path}", f"--type={SLSA}", f"--bundle={BUNDLE}"], os.environ)
    print(f"signed: source {digest} in {BUNDLE.name}")


def main(arguments: list[str]) -> int:
    """Does what the first argument names."""
    try:
        {"sign": sign, "sign-source": sign_source}[arguments[0]]()
    except (SupplyError, cosign.FetchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
