"""bin/lint_ansible.py finds what ansible-lint finds by itself: no check sees what another has loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FILES = {
    # The module of the role is known in the first playbook and not in the second, which two imports ask about.
    "roles/one/library/of_one.py": "def main(): pass\n",
    "roles/one/tasks/main.yml": "---\n- name: Use it\n  of_one:\n  vars:\n    Bad: '{{x}}'\n",
    "one.yml": "---\n- name: One\n  hosts: localhost\n  roles:\n    - one\n",
    "two.yml": "---\n- name: Two\n  hosts: localhost\n  tasks:\n    - name: Use it\n      of_one:\n",
    "three.yml": "---\n- name: Two\n  ansible.builtin.import_playbook: two.yml\n- import_playbook: one.yml\n",
    "four.yml": (
        "---\n- name: Four\n  hosts: localhost\n  tasks:\n    - name: File\n      ansible.builtin.file: {a: 1}\n"
        "    - name: Say\n      debug: {msg: Hello}\n"
    ),
    "five.yml": "---\n- name: Five\n  hosts: localhost\n  tasks:\n    block: 5\n",
}
FOUND = (
    "syntax-check[unknown-module]",
    "syntax-check[specific]",
    "fqcn",
    "jinja[spacing]",
    "var-naming",
    "args[module]",
)


def test_findings_are_those_of_ansible_lint(root: Path, tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    shown = []
    for program in (["-m", "ansiblelint"], [str(root / "bin/lint_ansible.py")]):
        options = ["--offline", "--nocolor", "--format=pep8", "-q", "--enable-list=args", "--profile=production"]
        command = [sys.executable, *program, *options, *sorted(FILES), "roles/one"]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        shown.append((run.returncode, run.stdout, run.stderr))
    assert shown[0] == shown[1]
    assert [rule for rule in FOUND if rule not in shown[0][1]] == []
