"""Builds the collection's tarball for a tag, with its bill of materials and its changelog, signs it, and publishes it.

Called by ``make dist`` and ``make publish``. The tag (``GITHUB_REF_NAME``, else the version of galaxy.yml) has to be
the version of the collection. Signs as bin/image.py does: by ``COSIGN_KEY``, or as the workflow itself. Publishing
needs ``ANSIBLE_GALAXY_TOKEN`` and the program gh.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from bin import cosign, image

ROOT = image.ROOT
COLLECTION = ROOT / "collections/ansible_collections/whitestar/deploy"
DIST = ROOT / ".reports/dist"


def version() -> str:
    """The collection's version. Raises SupplyError when the tag is another one."""
    found = str(yaml.safe_load((COLLECTION / "galaxy.yml").read_text())["version"])
    tag = os.environ.get("GITHUB_REF_NAME", f"v{found}")
    if tag != f"v{found}":
        raise image.SupplyError(f"the tag is {tag}, the collection's version {found}: tag v{found}, or set the version")
    return found


def notes(text: str, wanted: str) -> str:
    """The section of the changelog (Markdown) about a version. Raises SupplyError when there is none."""
    parts = re.split(r"^## (?=v?\d)", text, flags=re.MULTILINE)
    for part in parts[1:]:
        if part.split(maxsplit=1)[0].replace("\\", "").lstrip("v") == wanted:
            return f"## {part.strip()}\n"
    raise image.SupplyError(f"the changelog has no section {wanted}: run antsibull-changelog release")


def bill(tarball: Path, name: str, wanted: str) -> dict[str, object]:
    """A CycloneDX bill of materials: the tarball, and the collections that it asks for."""
    needs = yaml.safe_load((COLLECTION / "galaxy.yml").read_text()).get("dependencies") or {}
    digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
    component = {
        "type": "library",
        "name": name,
        "version": wanted,
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "licenses": [{"license": {"id": "GPL-3.0-or-later"}}],
    }
    parts = [{"type": "library", "name": other, "version": versions} for other, versions in sorted(needs.items())]
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "metadata": {"component": component}, "components": parts}


def build() -> None:
    """Everything of a release in .reports/dist. Raises SupplyError."""
    wanted = version()
    text = notes((COLLECTION / "CHANGELOG.md").read_text(), wanted)
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir(parents=True)
    command = ["ansible-galaxy", "collection", "build", "--output-path", str(DIST), str(COLLECTION)]
    if subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
        raise image.SupplyError("ansible-galaxy failed: its own words above say why")
    (tarball,) = DIST.glob("*.tar.gz")
    (DIST / "CHANGELOG.md").write_text(text)
    (DIST / "sbom.cdx.json").write_text(json.dumps(bill(tarball, "whitestar.deploy", wanted), indent=2) + "\n")
    image.run(["sign-blob", f"--bundle={tarball}.sigstore.json", str(tarball)], os.environ)
    print("\n".join(sorted(path.name for path in DIST.iterdir())))


def publish() -> None:
    """Galaxy first: what is there cannot be taken back, so it is the step that must not be left half done."""
    wanted = version()
    (tarball,) = DIST.glob("*.tar.gz")
    files = [str(path) for path in sorted(DIST.iterdir()) if path.name != "CHANGELOG.md"]
    page = ["gh", "release", "create", f"v{wanted}", "--verify-tag", "--notes-file", str(DIST / "CHANGELOG.md"), *files]
    for command in (["ansible-galaxy", "collection", "publish", str(tarball)], page):
        if subprocess.run(command, cwd=ROOT).returncode:
            raise image.SupplyError(f"{command[0]} failed: its own words above say why")


def main(arguments: list[str]) -> int:
    """Does what the first argument names."""
    try:
        {"build": build, "publish": publish}[arguments[0]]()
    except (image.SupplyError, cosign.FetchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
