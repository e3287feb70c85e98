# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Capsules: one file for each failed release, no secret in it, and never more than a few."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.whitestar.deploy.plugins.module_utils.capsule import CAPSULES_KEPT, write_capsule
from ansible_collections.whitestar.deploy.plugins.module_utils.ledger import Ledger
from ansible_collections.whitestar.deploy.plugins.module_utils.state import State

FACTS = {"config": "c", "schema_required": "1", "schema_tolerates": "1", "version": "1", "by": "a", "why": "deploy"}


def test_secrets_are_taken_out_line_by_line(tmp_path: Path) -> None:
    state = State(tmp_path)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "password").write_text("open sesame")
    (tmp_path / "secrets" / "write_tokens").write_text("first-token\nsecond-token\n")
    (tmp_path / "secrets" / "short").write_text("to")
    _, entry = Ledger().add(release="img-1", image="img", outcome="failed", **FACTS)
    evidence = {"last output": "told second-token to open sesame"}
    path = write_capsule(state, entry, "refused first-token", evidence, {"a": 1}, {"a": "open sesame"})
    text = path.read_text()
    assert "told [write_tokens] to [password]" in text
    assert "refused [write_tokens]" in text
    assert '-  "a": 1' in text
    assert '+  "a": "[password]"' in text
    assert not any(secret in text for secret in ("open sesame", "first-token", "second-token"))


def test_the_newest_are_kept(tmp_path: Path) -> None:
    ledger = Ledger()
    for _ in range(CAPSULES_KEPT + 3):
        ledger, entry = ledger.add(release="img-1", image="img", outcome="failed", **FACTS)
        newest = write_capsule(State(tmp_path), entry, "", {}, {}, {})
    kept = sorted(State(tmp_path).capsules.iterdir())
    assert len(kept) == CAPSULES_KEPT
    assert kept[-1] == newest
