"""Writes the image's bill of materials, as CycloneDX 1.6 in JSON, from the trees that the image is made of.

Called in the Dockerfile as ``python sbom.py IMAGE WHEELS FILE``: below IMAGE lie the trees, below WHEELS the wheels
that were installed into them. It lists each Python package by its ``dist-info``, with the SHA-256 of its wheel, each
Debian package that a library comes from by dpkg's notes, and the interpreter. The same trees give the same file: it
bears no time.
"""

from __future__ import annotations

import hashlib
import platform
import re
import sys
from collections.abc import Iterator
from email.parser import HeaderParser
from importlib.metadata import PathDistribution
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.contrib.this.builders import this_component
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

SERVICE = "titanic-api"


def normalized(name: str) -> str:
    """A package's name as it is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wheel_hashes(wheels: Path) -> dict[str, HashType]:
    """SHA-256 of each wheel, by the ``NAME-VERSION`` that its name and its ``dist-info`` begin with."""
    return {
        "-".join(path.name.split("-")[:2]).lower(): HashType(
            alg=HashAlgorithm.SHA_256, content=hashlib.sha256(path.read_bytes()).hexdigest()
        )
        for path in wheels.rglob("*.whl")
    }


def python_packages(image: Path, hashes: dict[str, HashType]) -> Iterator[tuple[Component, list[str]]]:
    """Each Python package, with the names of those that it requires whatever its extras."""
    for path in sorted(image.rglob("*.dist-info")):
        package = PathDistribution(path)
        name, about = normalized(package.name), package.metadata
        licence = about.get("License-Expression") or about.get("License") or ""
        found = hashes.get(path.name.removesuffix(".dist-info").lower())
        purl = PackageURL("pypi", None, name, package.version)
        yield (
            Component(
                type=ComponentType.APPLICATION if name == SERVICE else ComponentType.LIBRARY,
                bom_ref=str(purl),
                name=package.name,
                version=package.version,
                description=about.get("Summary"),
                licenses=[LicenseFactory().make_from_string(licence)] if licence and "\n" not in licence else [],
                hashes=[found] if found else [],
                purl=purl,
            ),
            [
                normalized(match[0])
                for text in package.requires or []
                if (match := re.match(r"[\w.-]+", text)) and "extra ==" not in text
            ],
        )


def system_packages(image: Path) -> Iterator[Component]:
    """The distribution, and each of its packages that dpkg's notes in the image name."""
    release = next(image.glob("*/etc/os-release")).read_text()
    distribution = dict(re.findall(r'^(ID|VERSION_ID)="?([^"\n]*)', release, re.MULTILINE))
    system, version = distribution["ID"], distribution.get("VERSION_ID", "")
    yield Component(type=ComponentType.OPERATING_SYSTEM, bom_ref=f"{system}-{version}", name=system, version=version)
    for path in sorted(image.glob("*/var/lib/dpkg/status.d/*")):
        notes = HeaderParser().parsestr(path.read_text())
        qualifiers = {"arch": notes["Architecture"], "distro": f"{system}-{version}"}
        purl = PackageURL("deb", system, notes["Package"], notes["Version"], qualifiers)
        yield Component(name=notes["Package"], version=notes["Version"], bom_ref=str(purl), purl=purl)


def interpreter() -> Component:
    """The interpreter that runs this, which is the one in the image."""
    version = platform.python_version()
    return Component(
        type=ComponentType.PLATFORM,
        bom_ref=f"pkg:generic/python@{version}",
        name="python",
        version=version,
        cpe=f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*",
        purl=PackageURL("generic", None, "python", version),
    )


def main(image: Path, wheels: Path, file: Path) -> None:
    """Write the bill of materials. Exits with a message if the service itself is not in the image."""
    packages = list(python_packages(image, wheel_hashes(wheels)))
    by_name = {normalized(component.name): component for component, _ in packages}
    if SERVICE not in by_name:
        raise SystemExit(f"{SERVICE} is not in the image")
    parts = [component for name, component in by_name.items() if name != SERVICE]
    bom = Bom(components=[*parts, *system_packages(image), interpreter()])
    bom.metadata.component = by_name[SERVICE]
    bom.metadata.tools.components.add(this_component())
    # What CycloneDX's taxonomy calls a bill without time and serial number.
    bom.metadata.properties.add(Property(name="cdx:reproducible", value="true"))
    bom.metadata.timestamp = bom.serial_number = None
    for component, required in packages:
        bom.register_dependency(component, [by_name[name] for name in required if name in by_name])
    file.write_text(JsonV1Dot6(bom).output_as_string(indent=2) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
