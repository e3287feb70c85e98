"""Reads the public interface of the roles from their files, for the tests that hold it closed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from bin.docs import entry_points, load, roles

ROOT = Path(__file__).resolve().parent.parent
COLLECTION = ROOT / "collections/ansible_collections/whitestar/deploy"
# A public name: not internal (two underscores before it), no part of a path, a dotted name or a longer word.
PUBLIC_NAME = re.compile(r"(?<![\w./-])titanic_[a-z0-9_]+(?![\w*-])")
# Names that look like variables and are none: the Python package and the database's roles.
OTHER_NAMES = {"titanic_api", "titanic_app", "titanic_owner", "titanic_confirm"}


@cache
def options() -> dict[str, dict[str, dict[str, Any]]]:
    """Role -> option -> its specification, over all entry points of the role."""
    result: dict[str, dict[str, dict[str, Any]]] = {}
    for role in roles():
        found = result.setdefault(role.name, {})
        for spec in entry_points(role).values():
            found.update(spec.get("options", {}))
    return result


@cache
def public_names() -> set[str]:
    """Every variable that a user may set."""
    return {name for role in options().values() for name in role}


@cache
def results() -> set[str]:
    """What roles give back to the play (``titanic_ROLE_result``)."""
    return {f"{role}_result" for role in options()}


@cache
def shared() -> set[str]:
    """The settings that several roles share."""
    return set(options()["titanic_common"])


def defaults(role: str) -> dict[str, Any]:
    """What a role's defaults/main.yml sets, without what only a playbook may hand over."""
    found = load(role_path(role) / "defaults/main.yml")
    return {name: value for name, value in found.items() if not name.startswith("__")}


def role_path(role: str) -> Path:
    """Directory of a role, wherever it lives."""
    return next(path for path in roles() if path.name == role)


def names_in(text: str) -> set[str]:
    """Public names in a text, comments included; names of roles and the like are none."""
    return set(PUBLIC_NAME.findall(text)) - OTHER_NAMES - set(options())


def without_comments(path: Path) -> str:
    """A YAML or Jinja file without its comments."""
    text = re.sub(r"{#.*?#}", "", path.read_text(), flags=re.DOTALL)
    return "\n".join(re.sub(r"(^|\s)#.*", "", line) for line in text.splitlines())


def tasks_in(data: Any) -> Iterator[dict[str, Any]]:
    """All tasks in loaded YAML of a playbook, a play or a file of tasks, those in blocks included."""
    if isinstance(data, list):
        for item in data:
            yield from tasks_in(item)
    elif isinstance(data, dict):
        yield data
        for key in ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always", "roles"):
            yield from tasks_in(data.get(key))


def playbooks() -> list[Path]:
    """The collection's playbooks and this checkout's."""
    found = [*COLLECTION.glob("playbooks/*.yml"), *ROOT.glob("playbooks/*.yml"), ROOT / "site.yml"]
    return sorted(path for path in found if path.is_file())


def calls(playbook: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Role and variables of each place in a playbook that calls a role."""
    for task in tasks_in(yaml.safe_load(playbook.read_text())):
        include = next((value for key, value in task.items() if key.endswith(("include_role", "import_role"))), None)
        name = include["name"] if isinstance(include, dict) else task.get("role")
        if name:
            yield str(name).rpartition(".")[2], task.get("vars", {}) or {}
