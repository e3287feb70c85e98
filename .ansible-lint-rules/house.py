"""The rules of this house that ansible-lint can check: names, commands, conditions, tags, length, logic in Jinja."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from ansiblelint.rules import AnsibleLintRule
from ansiblelint.yaml_utils import nested_items_path
from jinja2 import TemplateSyntaxError, nodes
from jinja2.sandbox import SandboxedEnvironment

if TYPE_CHECKING:
    from ansiblelint.errors import MatchError
    from ansiblelint.file_utils import Lintable
    from ansiblelint.utils import Task

MAXIMUM_LINES = 80
MAXIMUM_CONDITIONS = 2
MAXIMUM_FILTERS = 3
# Keywords whose text is an expression without braces around it.
EXPRESSIONS = {"when", "changed_when", "failed_when", "until", "that"}
COMMANDS = {"command", "script", "raw"}
SHELLS = {"shell", "raw"}
# What a task's name begins with, after its role. Gather is Ansible's own word for finding facts; what is planned is
# applied by a module of another collection.
VERBS = (
    "Apply",
    "Build",
    "Configure",
    "Create",
    "Deploy",
    "Display",
    "Ensure",
    "Gather",
    "Include",
    "Install",
    "Load",
    "Migrate",
    "Plan",
    "Record",
    "Remove",
    "Return",
    "Roll back",
    "Run",
    "Select",
    "Start",
    "Stop",
    "Verify",
    "Wait for",
)

_jinja = SandboxedEnvironment()


def role_of(file: Lintable | None) -> str | None:
    """Name of the role that a file of tasks or handlers belongs to, None for playbooks and scenarios."""
    parts = PurePath(str(file.path.absolute() if file else "")).parts
    for place in range(len(parts) - 2, 0, -1):
        if parts[place] in ("tasks", "handlers") and place >= 2 and parts[place - 2] == "roles":
            return parts[place - 1]
    return None


def module_of(task: Task) -> str:
    """Short name of the module a task runs: ``command`` for ``ansible.builtin.command``."""
    return str(task["action"]["__ansible_module_original__"]).rpartition(".")[2]


def expressions_in(key: Any, text: str) -> Iterator[str]:
    """The Jinja templates in a value: the value itself, in braces where the keyword leaves them out."""
    if "{{" in text or "{%" in text:
        yield text
    elif key in EXPRESSIONS:
        yield "{{ " + text + " }}"


def filters_in(template: str) -> int:
    """The largest number of filters in one expression of a template; 0 when it does not parse."""
    try:
        tree = _jinja.parse(template)
    except TemplateSyntaxError:
        return 0
    parts = [part for output in tree.find_all(nodes.Output) for part in output.nodes]
    return max((len(list(part.find_all(nodes.Filter))) + isinstance(part, nodes.Filter) for part in parts), default=0)


def conditions_in(value: Any) -> int:
    """How many conditions a ``when`` asks for: list items and what ``and`` and ``or`` join."""
    if isinstance(value, list):
        return sum(conditions_in(item) for item in value)
    try:
        tree = _jinja.parse("{{ " + str(value) + " }}")
    except TemplateSyntaxError:
        return 1
    return 1 + len(list(tree.find_all((nodes.And, nodes.Or))))


class HouseRule(AnsibleLintRule):
    """What the rules below share; has no id and is therefore no rule itself."""

    severity = "MEDIUM"
    tags = ["house"]  # noqa: RUF012 (the base class declares an instance variable)
    version_changed = "1.0.0"

    def found(self, message: str, file: Lintable | None, task: Task) -> list[MatchError]:
        """One match at a task."""
        return [self.create_matcherror(message=message, filename=file, lineno=task.line)]


class TaskName(HouseRule):
    """Tasks of a role are called "role | Verb object", so that output and logs say where a line comes from."""

    id = "house-task-name"
    description = __doc__ or ""

    def matchtask(self, task: Task, file: Lintable | None = None) -> list[MatchError]:
        """Compares the name with the role's short name (titanic_seed: seed)."""
        role, name = role_of(file), task.get("name")
        if not name or role is None:
            return []
        short = re.sub(r"^(titanic|lab)_", "", role)
        # a handler is told apart by the role as well, and so is a task in a block
        if not re.match(rf"{re.escape(short)} \| ({'|'.join(VERBS)}),? [^ ]", name):
            verbs = ", ".join(VERBS)
            return self.found(f"Name tasks of this role '{short} | Verb object', not '{name}': {verbs}.", file, task)
        return []

    def matchplay(self, file: Lintable, data: dict[str, Any]) -> list[MatchError]:
        """Plays are sentences (name[casing], which would ask the same of our tasks, is off)."""
        name = str(data.get("name", ""))
        if file.kind != "playbook" or not name[:1].islower():
            return []
        return [self.create_matcherror(message=f"Start the play's name upper-case: '{name}'.", filename=file)]


class Shell(HouseRule):
    """No shell: quoting, pipes and redirections belong into a module with tests."""

    id = "house-no-shell"
    description = __doc__ or ""
    severity = "HIGH"

    def matchtask(self, task: Task, file: Lintable | None = None) -> list[MatchError]:
        """Refuses shell and raw."""
        if module_of(task) in SHELLS:
            return self.found("Use a module, or command with argv.", file, task)
        return []


class CommandCheckMode(HouseRule):
    """A command says what happens in check mode: check_mode on the task, or creates or removes."""

    id = "house-command-check-mode"
    description = __doc__ or ""
    severity = "HIGH"

    def matchtask(self, task: Task, file: Lintable | None = None) -> list[MatchError]:
        """Looks for one of the three (that changed_when is there is no-changed-when's business)."""
        if module_of(task) not in COMMANDS or role_of(file) is None:
            return []
        if {"creates", "removes"} & set(task["action"]) or "check_mode" in task.raw_task:
            return []
        return self.found("Say what check mode does: check_mode on the task, or creates or removes.", file, task)


class IgnoreErrors(HouseRule):
    """No ignore_errors: failed_when names the failure that is none."""

    id = "house-no-ignore-errors"
    description = __doc__ or ""
    severity = "HIGH"

    def matchtask(self, task: Task, file: Lintable | None = None) -> list[MatchError]:
        """Refuses the keyword, whatever its value."""
        if "ignore_errors" in task.raw_task:
            return self.found("Use failed_when with the failure that is none.", file, task)
        return []


class SetFact(HouseRule):
    """set_fact sets internal names and results only: an input that changes under way is no input."""

    id = "house-set-fact"
    description = __doc__ or ""

    def matchtask(self, task: Task, file: Lintable | None = None) -> list[MatchError]:
        """Refuses names that have neither the two underscores of what is internal nor the ending of a result."""
        if module_of(task) != "set_fact" or role_of(file) is None:
            return []
        names = {name for name in task["action"] if not re.match(r"__|cacheable$|.*_result$", name)}
        if names:
            return self.found(f"set_fact on {', '.join(sorted(names))}: pass values at the call site.", file, task)
        return []


class When(HouseRule):
    """A when has at most two conditions; more is a question for a filter, a module or the call site."""

    id = "house-when"
    description = __doc__ or ""

    def matchtask(self, task: Task, file: Lintable | None = None) -> list[MatchError]:
        """Counts the conditions."""
        count = conditions_in(task.raw_task.get("when", []))
        if count > MAXIMUM_CONDITIONS:
            return self.found(f"{count} conditions in one when, {MAXIMUM_CONDITIONS} at most.", file, task)
        return []


class Filters(HouseRule):
    """At most three Jinja filters in an expression; more is a filter in Python, with unit tests."""

    id = "house-filters"
    description = __doc__ or ""

    def matchtask(self, task: Task, file: Lintable | None = None) -> list[MatchError]:
        """Counts the filters of each expression of a task."""
        for key, value, _ in nested_items_path(task.raw_task):
            texts = expressions_in(key, value) if isinstance(value, str) else ()
            for text in texts:
                if (count := filters_in(text)) > MAXIMUM_FILTERS:
                    return self.found(f"{count} filters in one expression, {MAXIMUM_FILTERS} at most.", file, task)
        return []

    def matchyaml(self, file: Lintable) -> list[MatchError]:
        """Does the same for files of variables."""
        if str(file.kind) != "vars" or not isinstance(file.data, dict):
            return super().matchyaml(file)
        counts = {
            name: max((filters_in(text) for text in strings_in(value)), default=0) for name, value in file.data.items()
        }
        return [
            self.create_matcherror(message=f"{name}: {count} filters, {MAXIMUM_FILTERS} at most.", filename=file)
            for name, count in counts.items()
            if count > MAXIMUM_FILTERS
        ]


def strings_in(value: Any) -> Iterator[str]:
    """All strings in a nested value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        yield from (item for _, item, _ in nested_items_path(value) if isinstance(item, str))


class Tags(HouseRule):
    """Tags live in playbooks only: a role does one thing, and the playbook says when."""

    id = "house-tags"
    description = __doc__ or ""

    def matchtask(self, task: Task, file: Lintable | None = None) -> list[MatchError]:
        """Refuses tags on tasks of a role, and those that an include would apply."""
        if role_of(file) is None:
            return []
        applied = any(key == "tags" and path[-1:] == ["apply"] for key, _, path in nested_items_path(task.raw_task))
        if applied or "tags" in task.raw_task:
            return self.found("Tags belong into the playbook.", file, task)
        return []


class Length(HouseRule):
    """A file of tasks is short enough to be read at once."""

    id = "house-file-length"
    description = __doc__ or ""

    def matchlines(self, file: Lintable) -> list[MatchError]:
        """Counts the lines of files of tasks and handlers."""
        lines = len(file.content.splitlines())
        if file.kind in ("tasks", "handlers") and lines > MAXIMUM_LINES:
            message = f"{lines} lines, {MAXIMUM_LINES} at most: split it by what it does."
            return [self.create_matcherror(message=message, filename=file, lineno=MAXIMUM_LINES + 1)]
        return []
