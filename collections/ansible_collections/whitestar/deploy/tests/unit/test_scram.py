# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A password verifier matches its password alone and tells nothing of it."""

from __future__ import annotations

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.scram import ITERATIONS, matches, verifier


def test_the_salt_differs_each_time() -> None:
    assert verifier("secret") != verifier("secret")
    assert f"${ITERATIONS}:" in verifier("secret")


def test_the_same_salt_gives_the_same() -> None:
    assert verifier("secret", b"salt", 10) == verifier("secret", b"salt", 10)


@pytest.mark.parametrize("kept", ["", "md5abc", "secret", "SCRAM-SHA-1$4096:a$b:c"])
def test_other_forms_match_nothing(kept: str) -> None:
    assert not matches("secret", kept)


def test_a_verifier_tells_nothing_of_the_password() -> None:
    assert "secret" not in verifier("secret")
