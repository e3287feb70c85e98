"""Each rule of the house finds what it forbids, at its line, and nothing else: ansible-lint itself is run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

RULES = Path(__file__).resolve().parent.parent
GOOD = "---\n# Shows what the rules allow.\n"


def task(name: str, *lines: str) -> str:
    return "\n".join([f"- name: {name}", *(f"  {line}" for line in lines), ""])


DEBUG = ("ansible.builtin.debug:", "  msg: Hello")
# file of tasks -> (its text, the rules that must fire, each once)
CASES: dict[str, tuple[str, list[str]]] = {
    "names_good": (task("seed | Load the rows", *DEBUG) + task("seed | Stop, start or remove it", *DEBUG), []),
    "names_none": (task("Load the rows", *DEBUG), ["house-task-name"]),
    "names_other": (task("api | Load the rows", *DEBUG), ["house-task-name"]),
    "names_casing": (task("seed | load the rows", *DEBUG), ["house-task-name"]),
    "names_verb": (task("seed | Keep the rows", *DEBUG), ["house-task-name"]),
    "names_template": (task("'seed | {{ item }}'", *DEBUG), ["house-task-name"]),
    "names_object": (task("seed | Load", *DEBUG), ["house-task-name"]),
    "shell": (task("seed | Run it", "ansible.builtin.shell: ls | wc -l", "changed_when: false"), ["house-no-shell"]),
    "command_silent": (
        task("seed | Run it", "ansible.builtin.command:", "  argv: [ls]", "changed_when: false"),
        ["house-command-check-mode"],
    ),
    "command_creates": (task("seed | Run it", "ansible.builtin.command:", "  argv: [ls]", "  creates: /x"), []),
    "command_says": (
        task("seed | Run it", "ansible.builtin.command:", "  argv: [ls]", "changed_when: false", "check_mode: false"),
        [],
    ),
    "ignore": (task("seed | Run it", *DEBUG, "ignore_errors: '{{ ansible_check_mode }}'"), ["house-no-ignore-errors"]),
    "fact_input": (
        task("seed | Record it", "ansible.builtin.set_fact:", "  titanic_seed_csv: /x", "  __titanic_seed_a: 1"),
        ["house-set-fact"],
    ),
    "fact_internal": (
        task("seed | Record it", "ansible.builtin.set_fact:", "  __titanic_seed_a: 1", "  titanic_seed_result: 1"),
        [],
    ),
    "when_two": (task("seed | Run it", *DEBUG, "when:", "  - a", "  - not b"), []),
    "when_three": (task("seed | Run it", *DEBUG, "when:", "  - a", "  - b", "  - c"), ["house-when"]),
    "when_joined": (task("seed | Run it", *DEBUG, "when: a and (b or not c)"), ["house-when"]),
    "filters_three": (task("seed | Run it", "ansible.builtin.debug:", "  msg: '{{ a | b(c | d) | e }}'"), []),
    "filters_four": (
        task("seed | Run it", "ansible.builtin.debug:", "  msg: 'x {{ a | b(c | d) | e | f }}'"),
        ["house-filters"],
    ),
    "filters_apart": (
        task("seed | Run it", "ansible.builtin.debug:", "  msg: '{{ a | b | c }} and {{ d | e | f }}'"),
        [],
    ),
    "filters_bare": (task("seed | Run it", *DEBUG, "when: a | b | c | d | e"), ["house-filters"]),
    "tags": (task("seed | Run it", *DEBUG, "tags: [seed]"), ["house-tags"]),
    "tags_of_a_module": (task("seed | Run it", "whitestar.deploy.validate_inputs:", "  tags: [seed]"), []),
    "tags_applied": (
        task(
            "seed | Run it", "ansible.builtin.include_tasks:", "  file: names_good.yml", "  apply:", "    tags: [seed]"
        ),
        ["house-tags"],
    ),
    "length_80": (GOOD + "#\n" * (80 - 4) + task("seed | Run it", "ansible.builtin.debug: {}")[:-1] + "\n", []),
    "length_81": (GOOD + "#\n" * 77 + task("seed | Run it", "ansible.builtin.debug: {}"), ["house-file-length"]),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Runs ansible-lint once over all cases; file of tasks -> rules that fired, in order."""
    root = tmp_path_factory.mktemp("lint")
    role = root / "roles" / "titanic_seed"
    (role / "tasks").mkdir(parents=True)
    for name, (text, _) in CASES.items():
        (role / "tasks" / f"{name}.yml").write_text(text)
    (role / "defaults").mkdir()
    (role / "defaults" / "main.yml").write_text("good: '{{ a | b | c | d }}'\nbad:\n  x: ['{{ a | b | c | d | e }}']\n")
    (root / "site.yml").write_text(
        "- name: Outside of roles other names and tags are right\n  hosts: all\n  tasks:\n    - name: Say so\n"
        "      ansible.builtin.debug: {}\n      tags: [seed]\n"
    )
    (root / "lower.yml").write_text("- name: lower case\n  hosts: all\n  tasks: []\n")
    # the repository's own settings, so that a rule which they leave out fails here
    settings = (RULES.parent / ".ansible-lint").read_text().replace(".ansible-lint-rules/\nuse", f"{RULES}\nuse")
    (root / ".ansible-lint").write_text(settings)
    command = [sys.executable, "-m", "ansiblelint", "--offline", "-f", "json", "-q", "."]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True)
    matches = json.loads(result.stdout)
    answer: dict[str, list[str]] = {}
    for match in (match for match in matches if match["check_name"].startswith("house-")):
        answer.setdefault(match["location"]["path"], []).append(match["check_name"])
    return answer


@pytest.mark.parametrize("name", CASES)
def test_tasks(name: str, found: dict[str, list[str]]) -> None:
    assert found.get(f"roles/titanic_seed/tasks/{name}.yml", []) == CASES[name][1]


def test_filters_in_defaults(found: dict[str, list[str]]) -> None:
    assert found.get("roles/titanic_seed/defaults/main.yml") == ["house-filters"]


def test_playbooks_have_tags_and_names_of_their_own(found: dict[str, list[str]]) -> None:
    assert "site.yml" not in found
    assert found["lower.yml"] == ["house-task-name"]


def test_every_rule_is_enabled() -> None:
    ids = set(re.findall(r'^    id = "(.*)"', (RULES / "house.py").read_text(), re.MULTILINE))
    settings = yaml.safe_load((RULES.parent / ".ansible-lint").read_text())
    assert ids <= set(settings["enable_list"])
    assert ids <= {rule for _, rules in CASES.values() for rule in rules}, "a rule without a case that breaks it"


def test_repository_switches_nothing_off() -> None:
    """But a rule that house-task-name takes the place of, and one that takes an action plugin for a module's name."""
    settings = yaml.safe_load((RULES.parent / ".ansible-lint").read_text())
    assert settings["profile"] == "production"
    assert settings.get("skip_list", []) == ["name[casing]", "fqcn[canonical]"]
    assert not settings.get("warn_list")
