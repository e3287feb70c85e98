# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuse bad input on the controller, before any target is asked anything."""

from __future__ import annotations

import sys
from collections.abc import Collection, Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.common.yaml import yaml_load
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.whitestar.deploy.plugins.plugin_utils import in_process  # noqa: F401 (loads once what workers use)
from ansible_collections.whitestar.deploy.plugins.plugin_utils.certificates import wrong_certificates
from ansible_collections.whitestar.deploy.plugins.plugin_utils.names import REFUSED_FROM, RENAMED, following
from ansible_collections.whitestar.deploy.plugins.plugin_utils.option_values import suggestion, wrong_values
from ansible_collections.whitestar.deploy.plugins.plugin_utils.required_collections import missing
from ansible_collections.whitestar.deploy.plugins.plugin_utils.validation import (
    asked_of_a_cluster,
    wrong_address,
    wrong_environment,
    wrong_rotation,
    wrong_together,
)

ROLES = Path(__file__).resolve().parents[2] / "roles"
PREFIX = "titanic_"
# What roles have for themselves and what playbooks hand them.
INTERNAL = "__titanic_"
# The stages that have a tag of their own.
STAGES = ("target", "secrets", "database", "schema", "seed", "api")
# The tags of titanic_image beside api, which needs it.
MAKES_THE_RELEASE = ("image", "schema")
# What goes the other way than a deployment, and what may go along.
ALONE = {
    "rollback": ("verify", "status", "drift"),
    "rotate": ("verify", "status", "drift"),
    "backup": ("status",),
    "restore": ("verify", "status"),
    "drill": ("status",),
    "stop": ("status",),
    "start": ("verify", "status", "drift"),
    "teardown": (),
}
# What ansible-core itself gives a meaning to, and what Molecule skips in every scenario.
SPECIAL_TAGS = {"all", "always", "never", "tagged", "untagged"}
SPECIAL_TAGS |= {"notest", "molecule-notest", "molecule-idempotence-notest"}
# Variables with a path that nobody reads on this provider, and those whose path is on the target.
UNREAD = {"local": {"titanic_image_dockerfile"}, "compose": {"titanic_image_requirements"}}
UNREAD["kubernetes"] = UNREAD["compose"]
ON_TARGET = {
    "local": {"titanic_seed_csv", "titanic_image_context", "titanic_image_requirements"},
    "compose": {"titanic_seed_csv"},
}


def role_options() -> dict[str, dict[str, Any]]:
    """Every public variable of the collection with its option as ``meta/argument_specs.yml`` has it."""
    options: dict[str, dict[str, Any]] = {}
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        for entry in yaml_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            options.update(entry.get("options", {}))
    return options


def internal(inventory: Mapping[str, Any]) -> list[str]:
    """One sentence for each variable of an inventory that is a role's own, and would be overruled without a word.

    What a task of an earlier play has registered is none.
    """
    return [
        f"{name}: this variable is the collection's own. Leave it out."
        for name, value in sorted(inventory.items())
        if name.startswith(INTERNAL) and not (isinstance(value, Mapping) and {"changed", "skipped"} & set(value))
    ]


def renamed(variables: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """One sentence for each old name that is used, and one for each that says something else than the new name does.

    ``variables`` are all with their values, ``values`` those of the settings.
    """
    used = {old: new for old, new in RENAMED.items() if old in variables}
    clashing = {old: new for old, new in used.items() if variables[old] != values.get(new)}
    return (
        [f"{old}: this setting is called {new} now. Rename it." for old, new in used.items() if old not in clashing],
        [f"{old}: {new}, its new name, has another value. Leave {old} out." for old, new in clashing.items()],
    )


def unknown_tags(asked: Iterable[str], known: Iterable[str]) -> list[str]:
    """One sentence for each tag that nothing has."""
    names = sorted(known)
    return [
        f"--tags {tag}: there is no such tag.{suggestion(tag, names)} The tags are {', '.join(names)}."
        for tag in asked
        if tag not in SPECIAL_TAGS and tag not in names
    ]


def clashing_tags(run: Collection[str], skip: Collection[str], *, deploys: bool) -> list[str]:
    """One sentence for each choice of tags with which a run could not do what it is asked for.

    ``deploys`` is whether the run may start a release.
    """
    problems = []
    for tag, beside in ALONE.items():
        others = sorted(set(run) - {tag, *beside, "always"})
        if tag in run and others:
            problems.append(
                f"--tags {','.join(run)}: {tag} does not go together with {', '.join(others)}. Run one after the other."
            )
    made_by = sorted(set(skip) & set(MAKES_THE_RELEASE))
    serves = deploys and "api" not in skip and {"all", "api"} & set(run or ["all"])
    if made_by and serves:
        what = (
            f"--skip-tags {','.join(made_by)}: the release is made under this tag too, and api would have none to serve"
        )
        stages = ",".join(stage for stage in STAGES if stage not in skip)
        problems.append(f"{what}. Say what is to run instead, as with --tags {stages}.")
    return problems


def unknown_variables(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """One sentence for each ``titanic_*`` variable that no role has; a role gives back ``titanic_ROLE_result``."""
    options = sorted(known)
    results = {f"{role.name}_result" for role in ROLES.iterdir()}
    return [
        f"{name}: {following(name) or 'there is no such variable.' + suggestion(name, options)}"
        for name in sorted(names)
        if name.startswith(PREFIX) and name not in options and name not in results and name not in RENAMED
    ]


class ActionModule(ActionBase):
    """Compare tags and variables of this run with what the collection knows, and say what it asks of a target."""

    _requires_connection = False
    _VALID_ARGS = frozenset({"tags", "deploys", "rotates"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """``{"changed": False}``, or ``failed`` with one line for each problem."""
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        options = role_options()
        run_tags, skip_tags = (list(variables.get(f"ansible_{kind}_tags", [])) for kind in ("run", "skip"))
        problems = unknown_tags([*run_tags, *skip_tags], self._task.args.get("tags", []))
        deploys = boolean(self._task.args.get("deploys", True))
        problems += clashing_tags(run_tags, skip_tags, deploys=deploys)
        problems += unknown_variables(map(str, variables), options)
        problems += internal(self._inventory(variables))
        values = self._values(variables, options)
        old, clashing = renamed(self._values(variables, RENAMED), values)
        problems += clashing
        for message in old:
            self._display.deprecated(message, version=REFUSED_FROM, collection_name="whitestar.deploy")
        provider = values.pop("titanic_provider", "")
        problems += wrong_values({"titanic_provider": provider}, options)
        elsewhere = set(UNREAD.get(str(provider), ()))
        if self._connection.transport != "local":
            elsewhere |= ON_TARGET.get(str(provider), set())
        together = {**values, "titanic_provider": provider}
        problems += wrong_values(values, options, elsewhere) or [
            *wrong_address(together),
            *wrong_environment(together),
            *wrong_certificates(together),
            *wrong_together(together),
            *(wrong_rotation(together) if boolean(self._task.args.get("rotates", False)) else []),
        ]
        # A run that applies nothing needs none.
        problems += missing(str(provider), packages=self._is_here(variables)) if deploys else []
        result.update(changed=False, problems=problems)
        if not problems:
            result.update(redirect_port=values.get("titanic_api_redirect_port", 0), **asked_of_a_cluster(values))
        if problems:
            result.update(failed=True, msg="Refused before anything was touched:\n" + "\n".join(problems))
        return dict(result)

    def _is_here(self, variables: Mapping[str, Any]) -> bool:
        """Whether modules find the Python packages that this process finds."""
        interpreter = self._templar.template(variables.get("ansible_python_interpreter"))
        return bool(self._connection.transport == "local" and interpreter == sys.executable)

    def _inventory(self, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        """What an inventory says of this target, and what was given as extra variables, as it is written there."""
        found = variables["hostvars"].raw_get(variables["inventory_hostname"]) if "hostvars" in variables else {}
        return found if isinstance(found, Mapping) else {}

    def _values(self, variables: Mapping[str, Any], options: Container[str]) -> dict[str, Any]:
        """Every setting that is known now, by name."""
        values = {}
        for name in sorted(name for name in variables if name in options):
            try:
                values[name] = self._templar.template(variables[name])
            except AnsibleError:
                # It rests on what a later stage gives back.
                continue
        return values
