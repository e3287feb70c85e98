# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where Python packages come from: read once as pip reads it, for uv and for the build of an image.

Only the standard library is used: ``bin/bootstrap.py`` of the checkout loads this file as well. An index may hold a
password, so what is found here goes into environments and files of mode 0600, never into a command line.
"""

from __future__ import annotations

import configparser
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

# How uv calls what pip has been told. pip separates several values by blanks; so does uv, but for find-links.
TO_UV = {
    "index-url": ("UV_DEFAULT_INDEX",),
    "extra-index-url": ("UV_INDEX",),
    "find-links": ("UV_FIND_LINKS",),
    "trusted-host": ("UV_INSECURE_HOST",),
    "cert": ("SSL_CERT_FILE",),
    "client-cert": ("SSL_CLIENT_CERT",),
    "proxy": ("HTTP_PROXY", "HTTPS_PROXY"),
}
# What the build of an image takes over as it is, and what names a file of this machine.
FOR_A_BUILD = ("index-url", "extra-index-url", "trusted-host", "proxy")
FILES = ("cert", "client-cert")
SECRETS = "/run/secrets"


def configuration_files(environment: Mapping[str, str]) -> list[Path]:
    """The files that pip reads, the strongest last: the machine's, the account's, the environment's, the one named.

    ``PIP_CONFIG_FILE`` names one more, or by the null device none at all.
    """
    named = environment.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    home = Path(environment.get("HOME") or Path.home())
    shared = environment.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    places = [Path(place, "pip") for place in reversed(shared.split(os.pathsep)) if place]
    places += [Path("/etc"), home / ".pip", Path(environment.get("XDG_CONFIG_HOME") or home / ".config", "pip")]
    if sys.platform == "darwin":
        support = Path("Library/Application Support/pip")
        places = [Path("/") / support, *places, home / support]
    files = [place / "pip.conf" for place in (*places, Path(sys.prefix))]
    return [*files, Path(named).expanduser()] if named else files


def pip_options(environment: Mapping[str, str]) -> dict[str, str]:
    """What pip has been told about where packages come from, by its option; several values are separated by blanks.

    Of the same option ``[install]`` is stronger than ``[global]``, and a variable ``PIP_…`` than both. A file that
    cannot be read says nothing.
    """
    told: dict[tuple[str, str], str] = {}
    for file in configuration_files(environment):
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue
        for section in parser.sections():
            told |= {(section, name.lower().replace("_", "-")): value for name, value in parser.items(section)}
    found = {}
    for name in TO_UV:
        named = environment.get(f"PIP_{name.replace('-', '_').upper()}")
        value = named or told.get(("install", name)) or told.get(("global", name)) or ""
        if words := value.split():
            found[name] = " ".join(words)
    return found


def uv_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The same as variables for uv, without those that the environment already has."""
    found: dict[str, str] = {}
    for name, value in pip_options(environment).items():
        text = value
        if name == "find-links":
            # uv fails where a directory is not there, and wants commas.
            text = ",".join(place for place in value.split() if "://" in place or Path(place).expanduser().is_dir())
        found |= dict.fromkeys(TO_UV[name], text)
    present = {name.upper() for name in environment}
    return {name: text for name, text in found.items() if text and name not in present}


def build_secrets(environment: Mapping[str, str], directory: Path) -> list[str]:
    """Options of ``docker buildx build`` that hand the same to ``RUN --mount=type=secret,id=pip_conf`` and the like.

    The files are written to ``directory``, which is to be removed afterwards: a ``pip.conf``, and copies of the
    certificates that it names (``pip_cert``, ``pip_client_cert``). None if pip has been told nothing.
    """
    options = pip_options(environment)
    lines = [f"{name} = {options[name]}" for name in FOR_A_BUILD if name in options]
    words = []
    for name in FILES:
        file = Path(options.get(name, "")).expanduser()
        if name in options and file.is_file():
            secret = f"pip_{name.replace('-', '_')}"
            # A comma in its path would end it.
            shutil.copy(file, directory / secret)
            words += ["--secret", f"id={secret},src={directory / secret}"]
            lines.append(f"{name} = {SECRETS}/{secret}")
    if not lines:
        return []
    written = directory / "pip.conf"
    with os.fdopen(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file_:
        file_.write("\n".join(["[global]", *lines, ""]))
    return [*words, "--secret", f"id=pip_conf,src={written}"]
