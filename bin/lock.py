"""Resolves requirements/*.in and the service's requirements to hash-locked files for every Python from 3.11 on.

Called by ``make lock``; ``make lock ARGS=--upgrade`` takes the newest versions allowed. The locks name no address and
no path of this machine: where packages come from is for the machine that installs them to say.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = [
    *("--universal", "--generate-hashes", "--no-emit-index-url", "--no-emit-find-links"),
    *("--no-header", "--quiet"),
    # Only the script is used of the package that asks for Playwright, which is a browser's driver of 50 MB.
    *("--no-emit-package", "playwright"),
]
PYTHON = ["--python-version", "3.11"]
# What is downloaded and not installed: the file alone, for the Python that it asks for.
ALONE = {"wheel.txt": ["--no-deps", "--python-version", "3.13"]}
# Directory, output and inputs, in an order in which each lock can constrain the next.
LOCKS = [
    ("service", "requirements.txt", ["pyproject.toml"]),
    ("service/image", "requirements.txt", ["requirements.in"]),
    ("service/image", "sbom.txt", ["sbom.in"]),
    ("roles/lab_images/files/caddy", "requirements.txt", ["requirements.in"]),
    ("roles/lab_cluster/files/programs", "requirements.txt", ["requirements.in"]),
    ("roles/lab_object_store/files", "requirements.txt", ["requirements.in"]),
    ("requirements", "bootstrap.txt", ["bootstrap.in"]),
    ("requirements", "deploy.txt", ["deploy.in"]),
    ("requirements", "collections.txt", ["collections.in"]),
    ("requirements", "wheel.txt", ["wheel.in"]),
    ("requirements", "test.txt", ["test.in", "../service/pyproject.toml"]),
    ("requirements", "bench.txt", ["bench.in", "../service/pyproject.toml"]),
]


def main(arguments: list[str]) -> int:
    """Compiles each lock whose inputs are there; returns uv's status at the first failure, else 0."""
    for directory, output, inputs in LOCKS:
        if not all((ROOT / directory / name).is_file() for name in inputs):
            continue
        options = [*OPTIONS, *ALONE.get(output, PYTHON), *arguments]
        command = ["uv", "pip", "compile", *options, *inputs, "--output-file", output]
        print(f"+ cd {directory} && {' '.join(command)}", flush=True)
        status = subprocess.run(command, cwd=ROOT / directory, stdout=subprocess.DEVNULL).returncode
        if status != 0:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
