"""Runs ansible-lint, with its options, at a fraction of the time: the same rules on the same files.

ansible-lint starts ``ansible-playbook --syntax-check`` for every playbook and role, and again for each import of a
playbook; half of each start is imports. Here each check is forked from a process that has imported Ansible already,
so that none sees what another has loaded, and an import is answered with the check of the imported file.
The rest of the time went into copies of strings that cannot change, made by each rule for each task.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, set_forkserver_preload
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from subprocess import PIPE, CompletedProcess
from tempfile import TemporaryFile
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch


def ansible_playbook(command: list[str]) -> CompletedProcess[str]:
    """Runs ``ansible-playbook`` in this process, which has no other task."""
    from ansible.cli.playbook import PlaybookCLI

    status: Any = 0
    with TemporaryFile("w+") as output, TemporaryFile("w+") as errors:
        os.dup2(output.fileno(), 1)
        os.dup2(errors.fileno(), 2)
        try:
            PlaybookCLI.cli_executor(command)
        except SystemExit as ended:
            status = ended.code
        for stream, file in ((sys.stdout, output), (sys.stderr, errors)):
            stream.flush()
            file.seek(0)
        return CompletedProcess(command, int(status or 0), output.read(), errors.read())


def fork_syntax_checks() -> None:
    """Has ansible-lint's syntax checks forked, and its question whether a playbook can be imported answered by them."""
    from ansible_compat.runtime import Runtime
    from ansiblelint import runner

    passed: set[Path] = set()
    run, can_import = runner.Runner.run, Runtime.has_playbook

    def run_forking(self: Any) -> Any:
        # The two settings are those that ansible-lint gives to each check.
        given = {"PYTHONWARNINGS": "ignore", "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "False"}
        with patch.dict(os.environ, {**self.app.runtime.environ, **given}):
            set_forkserver_preload(["ansible.cli.playbook"])
            ensure_running()
        with ProcessPoolExecutor(runner.threads(), get_context("forkserver"), max_tasks_per_child=1) as pool:

            def check(command: list[str], **_: Any) -> CompletedProcess[str]:
                checked = pool.submit(ansible_playbook, command).result()
                if checked.returncode == 0:
                    passed.add(Path(command[-1]).resolve())
                return checked

            with patch.object(runner, "subprocess", SimpleNamespace(run=check, PIPE=PIPE)):
                return run(self)

    def can_import_or_passed(self: Any, playbook: str, *, basedir: Path | None = None) -> bool:
        known = basedir is None and Path(playbook).resolve() in passed
        return known or can_import(self, playbook, basedir=basedir)

    patch.object(runner.Runner, "run", run_forking).start()
    patch.object(Runtime, "has_playbook", can_import_or_passed).start()


def share_strings() -> None:
    """Lets the copies of a task share its strings, as those of Python do: Ansible's are of a type of their own."""
    from ansible.template import trust_as_template

    type(trust_as_template("any")).__deepcopy__ = lambda text, _: text


def main(arguments: list[str]) -> int:
    """Runs ansible-lint and returns its exit status."""
    from ansiblelint.__main__ import main as ansible_lint

    fork_syntax_checks()
    share_strings()
    return int(ansible_lint(["ansible-lint", *arguments]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
