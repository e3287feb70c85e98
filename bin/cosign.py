"""Finds Sigstore's cosign, fetches Debian's where there is none, and prints its path.

Called by ``make cosign``; needs no root. Debian has it from forky on. It is fetched with an apt state of its own, its
signature checked by apt, and kept in the cache; nothing is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

SUITE = "forky"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
SECONDS = 600


class FetchError(RuntimeError):
    """There is no cosign; the message says why and what to do."""


def cache() -> Path:
    """Where it is kept: with the lab's programs as root, else with those of the account."""
    return Path("/var/cache/titanic-lab/cosign") if os.geteuid() == 0 else Path("~/.cache/titanic/cosign").expanduser()


def run(command: list[str], place: Path, environment: Mapping[str, str]) -> str:
    """Standard output of a command. Raises FetchError with its last words."""
    try:
        done = subprocess.run(
            command, cwd=place, env={**os.environ, **environment}, capture_output=True, text=True, timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError(f"cosign: {command[0]} could not be run ({error}): install cosign yourself") from error
    if done.returncode:
        words = (done.stderr or done.stdout).strip()[-300:]
        raise FetchError(f"cosign: {command[0]} failed ({words}): install cosign yourself")
    return done.stdout


def archive() -> str:
    """Address of the Debian archive that this machine uses. Raises FetchError where there is none."""
    found = run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Component: main"], Path("/"), {}
    ).split()
    usual = [address for address in found if not re.search(r"security|updates", address)]
    if not usual:
        raise FetchError("cosign: apt knows no archive of Debian: run apt-get update, or install cosign yourself")
    return usual[0]


def fetch(target: Path) -> None:
    """Fetch the package and unpack the program. Raises FetchError."""
    partial = target.with_name("cosign.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in ("debs", "lists/partial", "cache/archives/partial", "none", "root"):
        (partial / name).mkdir(parents=True)
    (partial / "sources.list").write_text(f"deb [signed-by={KEYS}] {archive()} {SUITE} main\n")
    settings = {
        "Dir::State::lists": partial / "lists",
        "Dir::Cache": partial / "cache",
        "Dir::Etc::sourcelist": partial / "sources.list",
        "Dir::Etc::sourceparts": partial / "none",
        "Dir::Etc::preferencesparts": partial / "none",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        "Acquire::Retries": 3,
    }
    (partial / "apt.conf").write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()))
    own = {"APT_CONFIG": str(partial / "apt.conf")}
    run(["apt-get", "update", "-qq"], partial, own)
    run(["apt-get", "download", "-qq", "cosign"], partial / "debs", own)
    (package,) = (partial / "debs").glob("cosign_*.deb")
    run(["dpkg-deb", "--extract", str(package), str(partial / "root")], partial, {})
    target.unlink(missing_ok=True)
    (partial / "root/usr/bin/cosign").rename(target)
    shutil.rmtree(partial)


def program() -> Path:
    """The program, fetched if need be. Raises FetchError."""
    if found := shutil.which("cosign"):
        return Path(found)
    target = cache() / "cosign"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        fetch(target)
    return target


def main() -> int:
    """Prints the path."""
    try:
        print(program())
    except FetchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
