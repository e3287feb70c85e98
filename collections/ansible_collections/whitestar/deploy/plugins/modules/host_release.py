#!/usr/bin/python
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a release serve on a host without a dropped request, and record it in the ledger."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_release
short_description: Switch to a release and record it
description:
  - Starts the release as the idle colour, waits until it is ready, drains the old one by its readiness and stops it.
  - A release that does not become ready gets no traffic, is recorded as failed, and the old one serves on.
  - A switch that was cut off is brought to its end by the next run.
version_added: 1.0.0
author: The Titanic team (@whitestar)
extends_documentation_fragment: [whitestar.deploy.engine, whitestar.deploy.twins.release, whitestar.deploy.twins.target]
options:
  drain_seconds:
    description: How long the old release may take to finish what it has, in seconds.
    type: float
    default: 25
attributes:
  check_mode: {description: "Says whether the release would change, and which settings.", support: full}
  diff_mode: {description: Compares the workloads., support: full}
"""

EXAMPLES = r"""
- name: Deploy the release
  whitestar.deploy.host_release:
    state_directory: /var/lib/titanic
    workload: "{{ settings | whitestar.deploy.workload }}"
    by: alice@laptop
    why: deploy
"""

RETURN = r"""
release: {description: The release that serves., returned: success, type: str}
entry: {description: Its entry in the ledger., returned: success, type: dict}
action:
  description: >-
    What was done, or would be: none, restarted (the release had ended), resumed (a deployment was cut off), deployed.
  returned: success
  type: str
pruned:
  description: Releases that were removed because no rollback needs them.
  returned: success
  type: list
  elements: str
"""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.checksums import record_checksums
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    exclusively,
    json_bytes,
    make_directory,
    write_atomically,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import DockerClient, EngineError
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.runtime import ComposeRuntime
from ansible_collections.whitestar.deploy.plugins.module_utils.host.fingerprint import fingerprint
from ansible_collections.whitestar.deploy.plugins.module_utils.host.runtime import Runtime, recorded_workload
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.local.runtime import LocalRuntime
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import (
    COLOURS,
    ReleaseError,
    other,
    take_over,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.release.failure_report import (
    reason_of,
    redacted,
    write_failure_report,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.release.http_checks import Checks
from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import Entry, images_in_use
from ansible_collections.whitestar.deploy.plugins.module_utils.release.options import RELEASE
from ansible_collections.whitestar.deploy.plugins.module_utils.release.rotation import with_login
from ansible_collections.whitestar.deploy.plugins.module_utils.release.smoke_test import Analysis


class Deployment:
    """One request to make a release serve."""

    def __init__(self, state: State, host: Runtime, options: dict[str, Any], *, check: bool) -> None:
        self.state = state
        self.host = host
        self.options = options
        self.ledger = state.ledger()
        self.restores: int | None = options["restore"]
        self.recorded = options["workload"] if self.restores is None else self._recorded(self.restores)
        self.workload = with_login(self.recorded, state.rotation().login)
        self.release: str = self.workload["release"]
        self.secrets = fingerprint(state, list(self.workload["secret_files"].values()), check=check)
        limits = (options["ready_seconds"], options["drain_seconds"], Analysis(**options["analysis"]))
        self.colours = host.colours(self.workload, self.secrets, *limits)
        if self.restores is None:
            self.colours.checks = Checks.of(self.workload, options["reverse_proxy"])

    def _recorded(self, number: int) -> dict[str, Any]:
        entry = next((entry for entry in self.ledger.entries if entry.number == number), None)
        found: str = recorded_workload(self.state, self.host, entry)["release"]
        return self.state.recorded(found)

    def plan(self) -> str:
        """What has to be done: none, restarted (it died), resumed (a deployment was cut off), deployed."""
        current = self.ledger.current()
        recorded = current is not None and current.release == self.release
        right = [colour for colour in COLOURS if self._is_right(colour)]
        if not right:
            running = any(self.colours.running(colour) for colour in COLOURS)
            return "restarted" if recorded and not running else "deployed"
        alone = not self.colours.running(other(right[0]))
        return "none" if alone and recorded else "resumed"

    def _is_right(self, colour: str) -> bool:
        facts = self.colours.facts(colour)
        same = (facts.get("release"), facts.get("fingerprint")) == (self.release, self.secrets)
        return same and not self.colours.altered(colour) and self.colours.serving(colour)

    def served_by(self, entry: Entry | None) -> dict[str, Any]:
        """The workload of a ledger entry, for comparison; empty if there is none."""
        return self.state.workload(entry.release) if entry else {}

    def apply(self, plan: str) -> tuple[dict[str, Any], list[str]]:
        """Do it and record it: the ledger's entry, and the releases pruned. Raises ReleaseError."""
        for directory in (self.state.run, self.state.logs, self.state.configurations):
            make_directory(directory, 0o755)
        # Somebody may have stopped it; whoever deploys starts it again.
        self.state.forget_stopped()
        if plan == "restarted":
            self._switch()
            current = self.ledger.current()
            return (vars(current) if current else {}), []
        point = self._point()
        content = json_bytes(self.recorded)
        write_atomically(self.state.configurations / f"{self.release}.json", content, 0o644)
        record_checksums(self.state.configurations, {f"{self.release}.json": content})
        image = self.workload["image_facts"]
        self.ledger, entry = self.ledger.add(
            release=self.release,
            image=image["identity"],
            config=self.workload["config"],
            schema_required=image["schema"]["required"],
            schema_tolerates=image["schema"]["oldest_tolerated"],
            version=image["version"],
            by=self.options["by"],
            why=self.options["why"],
            outcome="started",
            restores=self.restores,
            point=point.get("name", ""),
            backup=(self.ledger.last_event("backup") or {}).get("label", ""),
        )
        self.state.write_ledger(self.ledger)
        before = self.served_by(self.ledger.current())
        try:
            self._switch()
        except (ReleaseError, EngineError, OSError) as error:
            reason = redacted(self.state, reason_of(str(error)))
            self.ledger = self.ledger.finish(entry.number, "failed", reason)
            self.state.write_ledger(self.ledger)
            last = self.ledger.entries[-1]
            failure_report = write_failure_report(
                self.state, last, str(error), self.colours.evidence, before, self.workload
            )
            raise ReleaseError(f"{error}\nevidence: {failure_report}") from error
        self.ledger = self.ledger.finish(entry.number, "succeeded")
        self.state.write_ledger(self.ledger)
        return vars(self.ledger.entries[-1]), self._prune()

    def _point(self) -> Mapping[str, Any]:
        """The restore point of before this release: that of its migration, or one of now. Raises ReleaseError."""
        if point := self.ledger.open_point():
            return point
        if point := self.host.restore_point():
            self.ledger = self.ledger.with_event("point", **point)
        return point or {}

    def _switch(self) -> None:
        right = next((colour for colour in COLOURS if self._is_right(colour)), None)
        if right is None:
            self._undrain_if_nothing_else_serves()
            before = self.colours.in_charge()
            if before is not None:
                # Otherwise the reverse proxy has nobody to ask, and holds each question for a while.
                self.colours.checks.look()
            take_over(self.colours, before)
        elif self.colours.running(other(right)):
            self.colours.drain(other(right))
            self.colours.stop(other(right))

    def _undrain_if_nothing_else_serves(self) -> None:
        if self.colours.in_charge() is None:
            self.colours.hold_nobody()

    def _prune(self) -> list[str]:
        keep = self.ledger.releases_to_keep(self.options["keep"])
        images = images_in_use(self.ledger.entries, keep)
        for directory in self.state.images.iterdir():
            if directory.name not in images:
                self.host.discard_image(directory.name)
        pruned = [path for path in self.state.configurations.glob("*.json") if path.stem not in keep]
        for path in pruned:
            path.unlink()
        record_checksums(self.state.configurations, {path.name: None for path in pruned})
        return sorted(path.stem for path in pruned)


def _secrets_are_there(state: State, workload: dict[str, Any]) -> bool:
    """Whether a stage before has made what a release reads."""
    found = with_login(workload, state.rotation().login)
    return all(Path(path).exists() for path in found["secret_files"].values())


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=RELEASE
        | {
            "state_directory": {"type": "path", "required": True},
            "engine": DockerClient.OPTION,
            "drain_seconds": {"type": "float", "default": 25},
        },
        required_one_of=[("workload", "restore")],
        mutually_exclusive=[("workload", "restore")],
        supports_check_mode=True,
    )
    state = State(Path(module.params["state_directory"]))
    workload = module.params["workload"]
    if module.check_mode and workload and not _secrets_are_there(state, workload):
        module.exit_json(changed=True, action="deployed", release=workload["release"], entry={}, pruned=[])
    try:
        with nullcontext() if module.check_mode else exclusively(state.run):
            engine = module.params["engine"]
            host: Runtime = ComposeRuntime(DockerClient.of(engine), state) if engine else LocalRuntime(state)
            deployment = Deployment(state, host, module.params, check=module.check_mode)
            plan = deployment.plan()
            if plan != "none" and (again := deployment.ledger.earlier_failure(deployment.release)):
                module.warn(again)
            current = deployment.ledger.current()
            entry: dict[str, Any] = vars(current) if current else {}
            before = deployment.served_by(current)
            pruned: list[str] = []
            if plan != "none" and not module.check_mode:
                entry, pruned = deployment.apply(plan)
    except (ReleaseError, EngineError, OSError, ValueError) as error:
        name = workload["release"] if workload else f"of entry {module.params['restore']}"
        why = redacted(state, str(error))
        module.fail_json(msg=f"release {name} did not take over, what served before serves on: {why}")
    module.exit_json(
        changed=plan != "none",
        action=plan,
        release=deployment.release,
        entry=entry,
        pruned=pruned,
        diff={"before": json_bytes(before).decode(), "after": json_bytes(deployment.workload).decode()},
    )


if __name__ == "__main__":
    main()
