# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells a webhook of each deployment: that it has started, and what has become of it."""

from __future__ import annotations

DOCUMENTATION = r"""
name: notify
type: notification
short_description: Tell a webhook of each deployment
version_added: 1.1.0
author: The Titanic team (@whitestar)
description:
  - Posts JSON to a webhook when a run that may change a deployment starts, and when it ends, with what it does, who
    runs it, the release, the address and the first error. A run in check mode, and one that only looks, is not told of.
  - A webhook that is not reached fails no run; a warning tells of that, without the address.
requirements:
  - enabled by C(callbacks_enabled = whitestar.deploy.notify) in the configuration
options:
  url:
    description: Address of the webhook. Nothing is sent if empty. An address of this kind is a secret.
    type: str
    default: ""
    env: [{name: TITANIC_NOTIFY_URL}]
  template:
    description: What the listener takes. V(json) has every field by name.
    type: str
    choices: [json, slack, teams, matrix]
    default: json
    env: [{name: TITANIC_NOTIFY_TEMPLATE}]
    ini: [{section: titanic_notify, key: template}]
  events:
    description: What is told of.
    type: list
    elements: str
    choices: [start, success, failure, rollback]
    default: [start, success, failure, rollback]
    env: [{name: TITANIC_NOTIFY_EVENTS}]
    ini: [{section: titanic_notify, key: events}]
  environment:
    description: What the deployment is called. The directory of the inventory if empty.
    type: str
    default: ""
    env: [{name: TITANIC_NOTIFY_ENVIRONMENT}]
    ini: [{section: titanic_notify, key: environment}]
  link:
    description: Where the run and its failure report can be read, such as the page of a workflow's run.
    type: str
    default: ""
    env: [{name: TITANIC_NOTIFY_LINK}]
"""

from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase
from ansible_collections.whitestar.deploy.plugins.filter.workload import identity_text, run_identity
from ansible_collections.whitestar.deploy.plugins.plugin_utils.notification import Notification, send
from ansible_collections.whitestar.deploy.plugins.plugin_utils.run_report import (
    COLLECTION,
    RunReport,
    Stage,
    TaskFacts,
    debugged,
    error_lines,
    short_name,
    text_lines,
)
from ansible_collections.whitestar.deploy.plugins.plugin_utils.task_facts import DEBUG, is_rescued, role_of

# Runs with these tags alone, and those of these playbooks, look and change nothing.
LOOKING = {"status", "drift", "verify"}
LOOKING_PLAYBOOKS = {"find drift", "show status", "plan", "render manifests"}
ROLLBACK = f"{COLLECTION}titanic_rollback"


class CallbackModule(CallbackBase):
    """See DOCUMENTATION."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "whitestar.deploy.notify"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._report = RunReport()
        self._began = False
        self._rolled_back = False
        self._error = ""
        self._what = ""

    def set_options(self, task_keys: Any = None, var_options: Any = None, direct: Any = None) -> None:
        """Take the options, and take no part in a run that has no listener."""
        super().set_options(task_keys=task_keys, var_options=var_options, direct=direct)
        self.disabled = not self.get_option("url")

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._what = run_name(Path(str(playbook._file_name)).stem, list(context.CLIARGS.get("tags") or []))

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:  # noqa: ARG002 - Ansible passes it by name
        role = role_of(task)
        self._rolled_back = self._rolled_back or role == ROLLBACK
        tags = set(context.CLIARGS.get("tags") or ["all"])
        looks = tags <= LOOKING or self._what in LOOKING_PLAYBOOKS
        changes = not context.CLIARGS.get("check") and not task.get_play().check_mode and not looks
        if role.startswith(f"{COLLECTION}titanic_") and changes and not self._began:
            self._began = True
            self._tell("start")

    def v2_runner_on_ok(self, result: Any) -> None:
        host = result.host.get_name()
        stage = Stage("", role_of(result.task), 0.0, 0.0)
        facts = TaskFacts(str(result.task.action), stage.role, result.task.get_name())
        self._report.record(host, stage, facts, result.result, "ok")
        if result.task.action in DEBUG and (text := debugged(result.result)):
            self._report.say(host, stage, text_lines(text), inline=False)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if not ignore_errors and not is_rescued(result.task):
            self._take(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        if not result.task.ignore_unreachable:
            self._take(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if self._began:
            failed = stats.failures or stats.dark
            self._tell("failure" if failed else "rollback" if self._rolled_back else "success")

    def _take(self, result: Any) -> None:
        """The first error is the one that ended the run. Not what a program has printed, which may be anything."""
        known = {key: value for key, value in result.result.items() if key in ("msg", "censored")}
        lines = error_lines(known, role_of(result.task))
        name = short_name(result.task.get_name())
        self._error = self._error or f"{result.host.get_name()}: {name}: {' '.join(lines)}"

    def _tell(self, event: str) -> None:
        if event not in self.get_option("events"):
            return
        hosts = self._report.hosts.values()
        notification = Notification(
            event=event,
            environment=self.get_option("environment") or inventory_name(),
            what=self._what,
            who=identity_text(run_identity("run")),
            release=", ".join(sorted({host.release for host in hosts if host.release})),
            url=", ".join(sorted({host.url for host in hosts if host.url})),
            error=self._error,
            link=self.get_option("link"),
        )
        if problem := send(self.get_option("url"), self.get_option("template"), notification):
            self._display.warning(f"TITANIC_NOTIFY_URL: {problem}: nobody was told of: {event}. Correct the address.")


def run_name(playbook: str, tags: list[str]) -> str:
    """What a run does: the tags that it is limited to, else its playbook's job, which for the site is a deployment."""
    asked = [tag for tag in tags if tag != "all"]
    return ", ".join(asked) or ("deployment" if playbook == "site" else playbook.replace("_", " ").replace("-", " "))


def inventory_name() -> str:
    """The inventory's directory, or its file's name where it is one."""
    for source in context.CLIARGS.get("inventory") or []:
        path = Path(source)
        return path.name if path.is_dir() else (path.parent.name if path.name.startswith("hosts.") else path.stem)
    return "titanic"
