# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""validate_inputs refuses a target where the collection that deploys to it is missing, and no other."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.whitestar.deploy.tests.helpers import run_ansible


def said(place: Path, provider: str, *, deploys: bool = True) -> str:
    """What validate_inputs says where there is no other collection than ours."""
    task = {"whitestar.deploy.validate_inputs": {"tags": [], "deploys": deploys}}
    variables = {"titanic_provider": provider, "titanic_image_repository": "registry.example.org/titanic"}
    return " ".join(run_ansible(place, {"vars": variables, "tasks": [task]}).stdout.split())


def test_a_run_that_deploys_without_it_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    told = said(tmp_path, "kubernetes")
    assert "Refused before anything was touched:" in told
    assert (
        "titanic_provider: kubernetes needs the collection kubernetes.core from 6.6.0 to before 7.0.0; found: " in told
    )
    assert "In a checkout run: bin/run collections; elsewhere: ansible-galaxy collection install" in told
    told = said(tmp_path, "compose")
    assert "titanic_provider: compose needs the collection community.docker from 5.4.0 to before 6.0.0; found: " in told
    assert "bin/run collections; elsewhere: ansible-galaxy collection install 'community.docker:" in told
    for provider, deploys in (("kubernetes", False), ("compose", False), ("local", True)):
        assert "failed=0" in said(tmp_path, provider, deploys=deploys)
