# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where packages come from is read as pip reads it, and a release's environment is made from there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.package_index import (
    build_secrets,
    pip_options,
    uv_variables,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.local.venv import BuildError, Environment
from ansible_collections.whitestar.deploy.tests.index_helpers import PASSWORD, WHEEL, private_index, without_index

OWN = "[global]\nindex_url = https://own.example/simple\ntrusted-host =\n    a.example\n    b.example\n"
INSTALL = "[install]\nindex-url = https://install.example/simple\n"


@pytest.fixture
def account(tmp_path: Path) -> dict[str, str]:
    (tmp_path / ".config/pip").mkdir(parents=True)
    (tmp_path / ".config/pip/pip.conf").write_text(OWN)
    found = without_index(os.environ) | {"HOME": str(tmp_path)}
    return {name: text for name, text in found.items() if not name.upper().endswith(("_PROXY", "SSL_CERT_FILE"))}


def as_pip_has_it(environment: dict[str, str]) -> str:
    """The index that pip itself says it would ask, for one package that no index has."""
    words = ["download", "--no-deps", "--retries", "0", "--timeout", "0.1", "--verbose", "titanic-nowhere"]
    command = [sys.executable, "-m", "pip", *words]
    closed = {"https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    said = subprocess.run(command, env=environment | closed, capture_output=True, text=True, cwd="/tmp").stdout
    lines = [line for line in said.splitlines() if "ooking in indexes" in line]
    return lines[0].rpartition(": ")[2] if lines else ""


def test_it_is_read_as_pip_reads_it(account: dict[str, str], tmp_path: Path) -> None:
    named = tmp_path / "named.conf"
    legacy = tmp_path / ".pip"
    legacy.mkdir()
    (legacy / "pip.conf").write_text("[global]\nindex-url = https://legacy.example/simple\n")
    named.write_text("[global]\nindex-url = https://named.example/simple\n")
    cases = {
        "own": {},
        "named": {"PIP_CONFIG_FILE": str(named)},
        "said": {"PIP_INDEX_URL": "https://said.example/simple"},
    }
    for case, more in cases.items():
        expected = f"https://{case}.example/simple"
        assert pip_options(account | more)["index-url"] == expected
        assert as_pip_has_it(account | more) == expected
    (tmp_path / ".config/pip/pip.conf").write_text(OWN + INSTALL)
    assert pip_options(account)["index-url"] == "https://install.example/simple"
    assert pip_options(account | cases["said"])["index-url"] == "https://said.example/simple"
    assert "index-url" not in pip_options(account | {"PIP_CONFIG_FILE": os.devnull})
    (tmp_path / ".config/pip/pip.conf").write_text("no section")
    assert pip_options(account)["index-url"] == "https://legacy.example/simple"


def test_uv_and_a_build_are_told_the_same(account: dict[str, str], tmp_path: Path) -> None:
    authority = tmp_path / "authority, own.pem"
    authority.write_text("certificate")
    links = {"PIP_FIND_LINKS": f"{tmp_path} /nowhere https://links.example/"}
    account |= links | {"PIP_CERT": str(authority), "PIP_PROXY": "http://proxy.example:3128"}
    told = uv_variables(account | {"https_proxy": "http://own.example"})
    assert told == {
        "UV_DEFAULT_INDEX": "https://own.example/simple",
        "UV_INSECURE_HOST": "a.example b.example",
        "UV_FIND_LINKS": f"{tmp_path},https://links.example/",
        "SSL_CERT_FILE": str(authority),
        "HTTP_PROXY": "http://proxy.example:3128",
    }
    place = tmp_path / "secrets"
    place.mkdir()
    words = build_secrets(account, place)
    assert words == [
        "--secret",
        f"id=pip_cert,src={place / 'pip_cert'}",
        "--secret",
        f"id=pip_conf,src={place / 'pip.conf'}",
    ]
    assert (place / "pip.conf").stat().st_mode & 0o777 == 0o600
    assert (place / "pip.conf").read_text().splitlines() == [
        "[global]",
        "index-url = https://own.example/simple",
        "trusted-host = a.example b.example",
        "proxy = http://proxy.example:3128",
        "cert = /run/secrets/pip_cert",
    ]
    assert (place / "pip_cert").read_text() == "certificate"
    assert build_secrets({"PIP_CONFIG_FILE": os.devnull, "HOME": str(tmp_path)}, place) == []


def test_a_release_comes_from_the_index_of_pips_configuration(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = place / "requirements.txt"
    with private_index() as index:
        lock.write_text(index.lock)
        monkeypatch.setattr(os, "environ", index.account(place / "home"))
        made = Environment(place / "images", lock, sys.executable)
        made.build()
        assert f"/{WHEEL}" in index.asked
        assert list(made.directory().glob("lib/python*/site-packages/titanic_mirrored.py"))
        files = [path for path in made.directory().rglob("*") if path.is_file() and not path.is_symlink()]
        assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]
        # The hash counts all the same, and what goes wrong does not tell the password.
        for wrong in (index.lock[:-6] + "00000\n", "titanic-nowhere==1 --hash=sha256:" + "0" * 64 + "\n"):
            lock.write_text(wrong)
            with pytest.raises(BuildError) as failed:
                Environment(place / "images", lock, sys.executable).build()
            assert "pip install" in str(failed.value)
            assert PASSWORD not in str(failed.value)
