# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write down what a run would do, and hold a run to what was written down, on the controller."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible_collections.whitestar.deploy.plugins.action.validate_inputs import ActionModule as ValidateInputs
from ansible_collections.whitestar.deploy.plugins.action.validate_inputs import role_options
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import exclusively, stable_hash, write_json

FORMAT = 1
MODE = 0o600
# What is to be done of a release, by the action that its module foresees.
RELEASE_STEPS = {
    "awaited": "wait for the pods of release {}",
    "restarted": "start release {} again",
    "resumed": "finish the deployment of release {}",
    "deployed": "deploy release {}",
}
# Of the preflight, the plan itself, the questions afterwards and who pushes the image: they say how a run goes about
# it, not what it does.
# A pipeline's token for its registry is another one in each job.
LEFT_OUT = ("titanic_preflight_", "titanic_plan", "titanic_verify_", "titanic_image_registry_login")
# Interactive logins' parameters of RFC 7914, 2: 16 MiB and some 50 ms for each guess.
SCRYPT = {"n": 2**14, "r": 8, "p": 1}


def fingerprints(values: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]], salt: str) -> dict[str, str]:
    """A hash of each setting, by name; of a data set on this machine, of its content. Raises OSError."""
    found = {}
    for name, value in sorted(values.items()):
        if name.startswith(LEFT_OUT):
            continue
        text = json.dumps(value, sort_keys=True, default=str).encode()
        if name.endswith("_csv") and (path := Path(str(value)).expanduser()).is_file():
            text = path.read_bytes()
        secret = options[name].get("no_log")
        found[name] = (
            hashlib.scrypt(text, salt=salt.encode(), **SCRYPT).hex()[:32] if secret else stable_hash(text.hex())
        )
    return found


def changed_settings(planned: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Names of what is not as it was planned."""
    return sorted(name for name in {*planned, *found} if planned.get(name) != found.get(name))


def steps(stages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What the stages would do, in their order and in words; empty when that is nothing."""
    found = []
    image, schema, seed, api = (stages.get(name) or {} for name in ("image", "schema", "seed", "api"))
    if not (image.get("description") or {}):
        found.append(f"image: build {image.get('identity', 'the image')}")
    for name in ("target", "secrets", "database", "backup"):
        found += [f"{name}: {step}" for step in (stages.get(name) or {}).get("steps", [])]
    if not schema:
        found.append("schema: migrate to what the release needs, as it will say once it is built")
    elif schema.get("changed"):
        found.append(f"schema: migrate from {schema.get('from') or 'nothing'} to {schema.get('to')}")
    if not seed:
        found.append("seed: load the data set, as the release will say")
    elif seed.get("changed"):
        found.append(f"seed: insert {seed['inserted']} and update {seed['updated']} rows")
    found += [f"api: {step}" for step in api.get("front", [])]
    if words := RELEASE_STEPS.get(api.get("action", "none")):
        found.append(f"api: {words.format(api['release'])}")
    return found


class ActionModule(ValidateInputs):
    """See the module's documentation."""

    _VALID_ARGS = frozenset({"state", "file", "reality", "settings", "stages", "run"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """What O(state) asks for: ``settings``, or ``steps`` and ``image`` of this host. Raises AnsibleActionFail."""
        super(ValidateInputs, self).run(tmp, task_vars)
        arguments, variables = self._task.args, task_vars or {}
        path = Path(str(arguments.get("file", ""))).expanduser()
        host = str(variables["inventory_hostname"])
        ways = {"noted": self._note, "written": self._write, "compared": self._compare}
        try:
            return {"changed": False} | ways[arguments["state"]](path, host, variables)
        except (OSError, ValueError) as error:
            raise AnsibleActionFail(f"titanic_plan: {path}: {error}") from error

    def _note(self, path: Path, _host: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Take note of the settings. Raises OSError, and ValueError for a file that is no plan and must stay."""
        earlier(path)
        return {"settings": self._settings(variables, secrets.token_hex(16))}

    def _compare(self, path: Path, host: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Find all as it was planned. Raises OSError, and ValueError naming each thing that has moved since."""
        if [*variables.get("ansible_run_tags", ["all"])] != ["all"] or variables.get("ansible_skip_tags"):
            raise ValueError("a plan is of the whole site. Leave out --tags and --skip-tags.")
        part: dict[str, Any] | None = read(path)["targets"].get(host)
        if part is None:
            raise ValueError(f"the plan has no part for {host}. Write a new plan with this host in it.")
        now = self._settings(variables, part["settings"]["salt"])
        names = [
            *changed_settings(part["settings"], now),
            *changed_settings(part["reality"], dict(self._task.args["reality"])),
        ]
        if names:
            what = f"changed since the plan was made at {part['made']}: {', '.join(names)}"
            raise ValueError(f"{what}. Look at the changes and write a new plan.")
        return {"steps": part["steps"], "image": part["image"]}

    def _settings(self, variables: Mapping[str, Any], salt: str) -> dict[str, str]:
        """A hash of each setting of this run, by name, and the salt that they were made with. Raises OSError."""
        options = role_options()
        return {"salt": salt} | fingerprints(self._values(variables, options), options, salt)

    def _write(self, path: Path, host: str, _variables: Mapping[str, Any]) -> dict[str, Any]:
        """Add this host's part to the plan of this run. Raises OSError."""
        arguments = self._task.args
        stages = dict(arguments["stages"])
        part = {
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": dict(arguments["settings"]),
            "reality": dict(arguments["reality"]),
            "image": (stages.get("image") or {}).get("identity", ""),
            "steps": steps(stages),
        }
        run = stable_hash(dict(arguments["run"]))
        # Several hosts write at once.
        with exclusively(path.parent):
            plan = earlier(path)
            if plan.get("run") != run:
                plan = {"format": FORMAT, "run": run, "targets": {}}
            plan["targets"][host] = part
            write_json(path, plan, MODE)
        return {"steps": part["steps"], "image": part["image"]}


def earlier(path: Path) -> dict[str, Any]:
    """The plan that a new one takes the place of; empty if there is none. Raises as :func:`read`."""
    return read(path) if path.is_file() and path.stat().st_size else {}


def read(path: Path) -> dict[str, Any]:
    """A plan. Raises OSError, and ValueError for a file that is none."""
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        known = plan["format"] == FORMAT and isinstance(plan["targets"], dict)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise ValueError("not a plan that the playbook plan of this version wrote. Name another file, or write one.")
    return dict(plan)
