# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A state directory holds all of its paths, and its fingerprints of secrets tell nothing of them."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.whitestar.deploy.plugins.module_utils.host.fingerprint import fingerprint
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State


def test_the_fingerprint_tells_that_a_secret_changed_and_nothing_else(state: State) -> None:
    one, two = state.root / "one", state.root / "two"
    one.write_text("ab")
    two.write_text("c")
    paths = [str(one), str(two)]
    assert fingerprint(state, paths, check=True) == ""
    assert not (state.root / "secrets").exists()
    first = fingerprint(state, paths, check=False)
    assert fingerprint(state, paths[::-1], check=True) == first
    one.write_text("a")
    two.write_text("bc")
    assert fingerprint(state, paths, check=False) != first
    key = state.root / "secrets" / ".fingerprint-key"
    assert key.stat().st_mode & 0o7777 == 0o600
    one.write_text("ab")
    two.write_text("c")
    key.unlink()
    assert fingerprint(state, paths, check=False) != first, "it can be guessed from the secret alone"


def test_every_path_of_a_state_directory_lies_in_it(state: State) -> None:
    paths = [state.run, state.logs, state.images, state.configurations, state.database, state.lock]
    paths += [state.drain_file("blue"), state.longest_socket(), Path(state.address("green").removeprefix("unix:"))]
    assert all(path.is_relative_to(state.root) for path in paths)
    assert len(set(paths)) == len(paths)
