# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tells one state of a host from another: secrets by a keyed hash, and all parts for a plan."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import stable_hash, write_atomically
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State


def reality(state: State, running: Mapping[str, str]) -> dict[str, str]:
    """Parts by name, each with what tells it from another: the last attempt of a release, settings, ``running`` parts.

    What users write is not part of it. Raises OSError, ValueError.
    """
    entries = state.ledger().entries
    files = sorted(str(path) for path in (state.root / "secrets").rglob("[a-z]*") if path.is_file())
    found = {
        "the last release in the ledger": str(entries[-1]) if entries else "none",
        "the secrets": fingerprint(state, files, check=True) if files else "none",
        "the settings on the target": _files(state.root / "Caddyfile", *sorted((state.root / "project").rglob("*"))),
        "the installed programs": _links(state.root / "tools"),
    }
    return {**found, **running}


def _files(*paths: Path) -> str:
    """A hash of these files' contents and names; the project's own directories hold no secret."""
    files = [path for path in paths if path.is_file() and path.name[0] != "."]
    return stable_hash({str(path): path.read_bytes().hex() for path in files})


def _links(directory: Path) -> str:
    return ", ".join(f"{path.name} {path.readlink()}" for path in sorted(directory.glob("*")) if path.is_symlink())


def fingerprint(state: State, paths: Sequence[str], *, check: bool) -> str:
    """A keyed hash (hex) of these files' contents, which tells that a secret changed and nothing about it.

    The key is random and stays in the state directory's ``secrets`` folder. With ``check`` none is made: empty then.
    """
    key_file = state.root / "secrets" / ".fingerprint-key"
    if not key_file.exists():
        if check:
            return ""
        key_file.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomically(key_file, secrets.token_bytes(32), 0o600)
    digest = hmac.new(key_file.read_bytes(), digestmod="sha256")
    for path in sorted(paths):
        # In check mode a stage before may only have said that it would write it.
        content = b"" if check and not Path(path).exists() else Path(path).read_bytes()
        digest.update(f"{len(content)} ".encode() + content)
    return digest.hexdigest()
