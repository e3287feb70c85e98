# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A state directory is removed with what deployments made in it, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.checksums import record_checksums
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import write_atomically
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.modules.host_lifecycle import OURS, deployed


def test_what_deployments_make_is_theirs(tmp_path: Path) -> None:
    for name in OURS:
        (tmp_path / name).mkdir()
    record_checksums(tmp_path, {"Caddyfile": b"{}"})
    assert deployed(State(tmp_path))


@pytest.mark.parametrize("name", ["ledger.json", ".written"])
def test_what_a_write_that_was_cut_off_leaves_is_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with monkeypatch.context() as patch:
        # As where the power fails: neither is the file replaced nor the new one removed.
        patch.setattr(Path, "replace", lambda *_: 1 / 0)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(ZeroDivisionError):
            write_atomically(tmp_path / name, b"{}", 0o644)
    assert [path.name for path in tmp_path.iterdir()] != []
    assert deployed(State(tmp_path))


@pytest.mark.parametrize("name", ["thesis.tex", ".profile", ".ssh", ".ledger", ".caddyfile.swp"])
def test_what_somebody_else_has_put_there_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "ledger.json").write_text("{}")
    (tmp_path / name).write_text("years of work")
    with pytest.raises(ValueError, match=f"holds what no deployment made \\({name}\\)\\. Move that away first"):
        deployed(State(tmp_path))
