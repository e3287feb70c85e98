"""Prints what the roles' tasks on each provider would be given, as JSON; its input is the service that is deployed.

A program of its own, since a process can set up Ansible's plugins once. The filters and templates are those of a run;
nothing is run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar

COLLECTIONS = Path(__file__).resolve().parents[1] / "collections"
COLLECTION = COLLECTIONS / "ansible_collections/whitestar/deploy"
ROLES = ("api", "maintenance", "rollback", "rotate", "schema", "seed", "status", "target", "teardown", "verify")
IMAGE = {
    "reference": "registry.example.org/shop@sha256:ab",
    "identity": "ab",
    "description": {"version": "1", "schema": {"required": "1", "oldest_tolerated": "1"}},
}
# What a playbook hands over, and what an earlier task would have found.
HANDED: dict[str, Any] = {
    "ansible_playbook_python": sys.executable,
    "titanic_state_directory": "/srv/state",
    "titanic_image_result": IMAGE,
    "__titanic_api_image": IMAGE,
    "__titanic_rollback_target": {"entry": {"number": 1}, "serving": "other"},
    "__titanic_rotate_live": {"number": 1},
    "__titanic_schema_always": False,
    "__titanic_schema_image": "ab",
    "__titanic_schema_release": IMAGE,
    "__titanic_seed_always": False,
    "__titanic_seed_image": "ab",
    "__titanic_seed_sha256": "ab",
    "__titanic_teardown_state": "absent",
    "__titanic_verify_release": "ab",
}


def rendered(loader: Any, provider: str, service: dict[str, Any]) -> dict[str, str]:
    """The arguments of each task of ours on a provider, as JSON, by the task's name; of the API also the container."""
    # Only now that Ansible knows where collections lie.
    from ansible_collections.whitestar.deploy.plugins.module_utils.docker.runtime import api_part
    from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State

    known: dict[str, Any] = {}
    for kind in ("defaults", "vars"):
        for path in COLLECTION.glob(f"roles/*/{kind}/main.yml"):
            known |= loader.load_from_file(str(path), trusted_as_template=True) or {}
    known |= HANDED | {"titanic_provider": provider, "__titanic_common_service": service}
    found: dict[str, str] = {}
    for role in (COLLECTION / "roles" / f"titanic_{name}" for name in ROLES):
        templar = Templar(loader, known | {"role_path": str(role), "ansible_search_path": [str(role)]})
        for path in (role / f"tasks/{name}.yml" for name in (f"{provider}_front", provider, "objects")):
            for task in loader.load_from_file(str(path), trusted_as_template=True) if path.is_file() else []:
                given = {key: value for key, value in task.items() if "." in key or key == "vars"}
                given = templar.template(given)
                found[task["name"]] = json.dumps(given, default=str)
                workload = given.get("whitestar.deploy.host_release", {}).get("workload")
                if workload and provider == "compose":
                    found["container"] = json.dumps(api_part(workload, "blue", State(Path("/state")), 25))
    return found


if __name__ == "__main__":
    init_plugin_loader([str(COLLECTIONS)])
    given = json.load(sys.stdin)
    print(json.dumps({name: rendered(DataLoader(), name, given) for name in ("local", "compose", "kubernetes")}))
