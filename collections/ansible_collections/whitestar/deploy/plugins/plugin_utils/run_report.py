# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run did, stage by stage: the lines that people read and the summary that programs read."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from ansible import constants

COLLECTION = "whitestar.deploy."
# What a role of the collection gives back to the play.
RESULT = re.compile(r"titanic_[a-z]+_result")
# How the summary of titanic_verify names the address.
ADDRESS = re.compile(r"^next: open (\S+)/ in a browser", re.MULTILINE)
# The version of the summary's schema: another one may lack what this one has.
SCHEMA = 1
# The columns of a stage's line: its name, its state, its seconds.
NAME_WIDTH = 11
STATE_WIDTH = 7
SECONDS_WIDTH = 6
# What is left for the rest must not be less.
TEXT_WIDTH = 20
# From the least to the most that can become of a stage.
STATES = ("skipped", "ok", "changed", "failed", "unreachable")
COLOURS = {
    "skipped": constants.COLOR_SKIP,
    "ok": constants.COLOR_OK,
    "changed": constants.COLOR_CHANGED,
    "failed": constants.COLOR_ERROR,
    "unreachable": constants.COLOR_UNREACHABLE,
}
# What the modules that start a release say of it, done and in check mode.
RELEASED = {
    "none": ("{} serves already",) * 2,
    "awaited": ("{} serves already, all its pods are ready now", "{} serves already, its pods would be waited for"),
    "restarted": ("{} serves again", "{} would serve again"),
    "resumed": (
        "the deployment of {} that was cut off is finished",
        "the deployment of {} that was cut off would be finished",
    ),
    "deployed": ("deployed {}", "would deploy {}"),
}
ROLLED_BACK = ("went back to {}", "would go back to {}")
# What another module has planned and told before.
PLANNED = ("kubernetes.core.k8s", "community.docker.docker_compose_v2")
# What the result of a debug task has besides what it was asked to show.
NOT_SHOWN = ("changed", "failed", "skipped", "invocation", "warnings", "deprecations", "exception", "censored")
# What a program says of a failure besides its message.
OUTPUTS = ("stderr", "stdout", "module_stderr", "module_stdout")


@dataclass(frozen=True)
class TaskFacts:
    """A task as a stage's line needs it: action and role by their full names, its own name without the role's."""

    action: str
    role: str
    name: str
    check: bool = False


@dataclass
class Stage:
    """What became of one stage on one host; times are seconds on one clock."""

    name: str
    role: str
    began: float
    ended: float
    state: str = "skipped"
    # What the tasks did, in order.
    did: list[str] = field(default_factory=list)
    # Whether a module has told its steps, so that those of the role's result are known.
    told: bool = False
    # What was to be said in lines, below the stage's own.
    messages: list[str] = field(default_factory=list)
    # What was to be said in one line, beside what was done.
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began

    def reach(self, state: str) -> None:
        """Have the stage's state be this one, unless a worse one has been reached."""
        self.state = max(self.state, state, key=STATES.index)

    @property
    def silent(self) -> bool:
        """Whether nothing was done and nothing is to be said."""
        return STATES.index(self.state) <= STATES.index("ok") and not (self.did or self.messages or self.notes)

    def line(self, host: str = "", width: int = 0, paint: Callable[[str], str] = str) -> str:
        """The stage's line, after a host where there are several, its state as ``paint`` has it.

        It is wrapped to ``width`` columns, unless that is 0.
        """
        before, state = f"{host}{self.name:<{NAME_WIDTH}} ", f"{self.state:<{STATE_WIDTH}}"
        head = f"{before}{state} {self.seconds:>{SECONDS_WIDTH}.1f} s  "
        # A note that begins with what was done only has more of it, which -v shows.
        notes = [note for note in self.notes if not any(note.startswith(each) for each in self.did)]
        text = "; ".join(dict.fromkeys([*self.did, *notes]))
        if width and len(head) + len(text) > width >= len(head) + TEXT_WIDTH:
            indent = " " * len(head)
            text = textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent).lstrip()
        return f"{before}{paint(state)}{head[len(before + state) :]}{text}".rstrip()


@dataclass
class Host:
    """What became of one host: its stages, what it serves, and why it failed."""

    stages: list[Stage] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)
    release: str = ""
    url: str = ""
    current: Stage | None = None


class RunReport:
    """Collects what a run did on each host."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}

    def host(self, name: str) -> Host:
        """What is known of a host."""
        return self.hosts.setdefault(name, Host())

    def record(self, host: str, stage: Stage, task: TaskFacts, result: Mapping[str, Any], state: str) -> None:
        """Take down how a task ended in a stage of a host."""
        stage.reach(state)
        if state in {"ok", "changed"}:
            done, told = done_by(task, result, changed=state == "changed")
            stage.did += [each for each in done if each not in stage.did]
            stage.told = stage.told or told
            self._note_facts(self.host(host), stage, result)
        if served(task, result):
            self.host(host).release = str(result["release"])

    def say(self, host: str, stage: Stage, lines: list[str], *, inline: bool) -> None:
        """Take down a message; one that is a single text of one line may stand beside what the stage did."""
        if inline and len(lines) == 1:
            stage.notes += lines
        else:
            stage.messages += [line for line in lines if line not in stage.did]
        if found := ADDRESS.search("\n".join(lines)):
            self.host(host).url = found[1]

    def _note_facts(self, host: Host, stage: Stage, result: Mapping[str, Any]) -> None:
        """Learn from what a role gives back: the release, and the steps of modules whose results are hidden."""
        facts = result.get("ansible_facts")
        for name, value in facts.items() if isinstance(facts, Mapping) else ():
            if not RESULT.fullmatch(str(name)) or not isinstance(value, Mapping):
                continue
            live = value.get("live")
            release = live.get("release") if isinstance(live, Mapping) else None
            host.release = host.release or str(release or "")
            steps = value.get("steps")
            if isinstance(steps, list) and steps and not stage.told:
                stage.did = [str(step) for step in steps]

    def summary(self, stats: Mapping[str, Mapping[str, int]], **run: Any) -> str:
        """The summary as JSON; ``stats`` are the counts of each host, ``run`` what there is to say of all of them."""
        hosts = {}
        for name in sorted(set(stats) | set(self.hosts)):
            host = self.host(name)
            stages = [
                {"name": each.name, "state": each.state, "seconds": round(each.seconds, 1), "did": each.did}
                for each in host.stages
                if each.state != "skipped"
            ]
            known = {key: getattr(host, key) or None for key in ("release", "url")}
            hosts[name] = {**stats.get(name, {}), **known, "stages": stages, "errors": host.errors}
        return json.dumps({"schema": SCHEMA, **run, "hosts": hosts}, indent=2, ensure_ascii=False) + "\n"


def counts(stats: Any) -> dict[str, dict[str, int]]:
    """The counts of the recap, for each host, from what Ansible has counted."""
    found = {}
    for host in stats.processed:
        counted = stats.summarize(host)
        found[host] = {"failed": counted.pop("failures"), **counted}
    return found


def served(task: TaskFacts, result: Mapping[str, Any]) -> bool:
    """Whether a result is that of a module which starts a release."""
    return task.action in {f"{COLLECTION}host_release", f"{COLLECTION}kubernetes_release"} and bool(
        result.get("release")
    )


def done_by(task: TaskFacts, result: Mapping[str, Any], *, changed: bool) -> tuple[list[str], bool]:
    """What a task did, in words, and whether its module has told the steps.

    Of a module of this collection what it returned; of any other its name, if it changed something.
    """
    action = task.action.removeprefix(COLLECTION) if task.action.startswith(COLLECTION) else ""
    if words := WORDS[action](task, result) if action in WORDS else []:
        return words, True
    steps = [str(step) for step in result.get("steps") or []] if action else []
    if steps and not changed:
        return [], False
    if any(" " not in step for step in steps):  # verbs, whose object is the task's
        return [f"{short_name(task.name)}: {', '.join(steps)}"], True
    if steps:
        return steps, True
    return ([short_name(task.name)] if changed and task.action not in PLANNED else []), False


def _released(task: TaskFacts, result: Mapping[str, Any]) -> list[str]:
    action = str(result.get("action"))
    done, foreseen = RELEASED.get(action, ("{} serves",) * 2)
    if action == "deployed" and task.role == f"{COLLECTION}titanic_rollback":
        done, foreseen = ROLLED_BACK
    return [(foreseen if task.check else done).format(result["release"])] if result.get("release") else []


def _answered(task: TaskFacts, result: Mapping[str, Any]) -> list[str]:
    """What a command of the release says that it did: a migration, or rows that it loaded."""
    answer = result.get("answer")
    if not isinstance(answer, Mapping):
        return []
    if "to" in answer and answer.get("changed"):
        verb = "would migrate" if task.check else "migrated"
        return [f"{verb} from {answer.get('from') or 'nothing'} to {answer['to']}"]
    if "to" in answer:
        return [f"at {answer['to']}"]
    if not answer and result.get("msg"):  # why there is none yet, in check mode
        return [str(result["msg"])]
    counted = [f"{answer[name]} {name}" for name in ("inserted", "updated", "unchanged") if name in answer]
    return [", ".join(counted)] if counted else []


def _kept(_task: TaskFacts, result: Mapping[str, Any]) -> list[str]:
    return [f"{len(result['kept'])} promises kept"] if result.get("kept") else []


def _built(task: TaskFacts, result: Mapping[str, Any]) -> list[str]:
    image = result.get("image")
    identity = image.get("identity") if isinstance(image, Mapping) else ""
    if task.role != f"{COLLECTION}titanic_image" or not identity:
        return []
    if not result.get("changed"):
        return [f"{identity} is there"]
    return [f"{'would build' if task.check else 'built'} {identity}"]


WORDS: dict[str, Callable[[TaskFacts, Mapping[str, Any]], list[str]]] = {
    "host_release": _released,
    "kubernetes_release": _released,
    "host_command": _answered,
    "kubernetes_command": _answered,
    "http_checks": _kept,
    "local_venv_release": _built,
    "compose_image": _built,
}


def short_name(name: str) -> str:
    """A task's name without what stands before it: its role, or the file that it is in."""
    return name.rpartition(" : ")[2].rpartition(" | ")[2].strip()


def stage_name(role: str) -> str:
    """The name of the stage that a role is, ``Image`` of ``whitestar.deploy.titanic_image``."""
    return role.rpartition(".")[2].removeprefix("titanic_").replace("_", " ").capitalize()


def text_lines(value: Any) -> list[str]:
    """A value as lines for people: text as it is, a list of texts one after the other, anything else as YAML."""
    if isinstance(value, str):
        return value.splitlines() or [""]
    if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
        return [line for item in value for line in str(item).splitlines() or [""]]
    try:
        shown = yaml.safe_dump(value, allow_unicode=True, sort_keys=False, width=10**6)
    except yaml.YAMLError:
        shown = json.dumps(value, default=str, ensure_ascii=False, indent=2)
    return shown.removesuffix("...\n").splitlines()


def debugged(result: Mapping[str, Any]) -> Any:
    """What a debug task was asked to show: its message, or variables by name; empty where that is hidden."""
    shown = {name: value for name, value in result.items() if name not in NOT_SHOWN and not name.startswith("_")}
    return {} if "censored" in result else shown.get("msg", shown)


def error_lines(result: Mapping[str, Any], role: str = "") -> list[str]:
    """Why a task failed, in plain text: its message, and what a program has printed where the message does not say."""
    if "censored" in result:
        name = role.rpartition(".")[2]
        remedy = f". {name}_secure_logging=false shows it." if name == "titanic_secrets" else ""
        return [f"the reason is hidden, since the task has no_log: it handles secrets{remedy}"]
    lines = text_lines(result.get("msg") or "it failed without a message")
    told = "\n".join(lines)
    for name in OUTPUTS:
        text = result.get(name)
        if isinstance(text, str) and text.strip() and text.strip() not in told:
            return [*lines, *text.strip().splitlines()]
    return lines
