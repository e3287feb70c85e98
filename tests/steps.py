"""What there is to run: the steps of the suite, by rooms, in the order in which they are begun.

A room says what its tests rest on; docs/developer/tests.md says where a new test goes. A step is one command.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
COLLECTION = Path("collections/ansible_collections/whitestar/deploy")
PROVIDERS = ("local", "compose", "kubernetes")
# What takes minutes of the tests of the repository, each a step of its own.
ALONE = ("options", "bootstrap")
PLAYBOOK = [sys.executable, "-m", "ansible", "playbook"]
LAB = "lab"
CLUSTER = "kubernetes-up"
# What is found is named by file and line, never shown: logs are kept, and others read them.
GITLEAKS = ["--no-banner", "--redact", "--verbose", f"--config={ROOT / '.gitleaks.toml'}", str(ROOT)]


@dataclass(frozen=True)
class Step:
    """One command of the suite: its name, the paths it needs, whether pytest counts for it, what must be up.

    A step with ``engine`` is begun when the lab is up, with the lab's engine in its environment; one with ``after``
    when the steps of these names have been done. ``environment`` is what it has besides the suite's own, ``programs`` a
    directory whose programs come before others of their names.
    """

    name: str
    command: Sequence[str]
    needs: Sequence[str] = ()
    pytest: bool = False
    directory: str = "."
    engine: bool = False
    after: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    programs: str = ""

    def missing(self) -> str | None:
        """The first path that this step needs and the checkout does not have."""
        return next((path for path in self.needs if not any(ROOT.glob(path))), None)


def pytest_step(name: str, *paths: str, needs: Sequence[str] = (), more: Sequence[str] = (), **up: Any) -> Step:
    """A step that runs pytest over paths; ``up`` says what must be up, as of a step.

    It leaves a JUnit report where the suite asks for one: see tests/suite.py.
    """
    command = [sys.executable, "-m", "pytest", "-q", "--durations=20", "--durations-min=10", *more, *paths]
    return Step(name, command, needs or paths, pytest=True, **up)


def shell_scripts() -> list[str]:
    """Files in the checkout that a shell would run, told by their first line."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if not path.is_file():
            continue
        with path.open("rb") as file:
            first = file.readline(80)
        if first.startswith(b"#!") and first.split()[-1].rpartition(b"/")[2] in (b"sh", b"bash", b"dash"):
            found.append(name)
    return found


def python_paths() -> list[str]:
    """Directories with Python that is type-checked."""
    candidates = ("service/src", "service/tests", "bench", "tests", "bin", ".ansible-lint-rules", str(COLLECTION))
    return [path for path in candidates if any((ROOT / path).rglob("*.py"))]


def go_tool(step: str, program: str, *arguments: str, after: Sequence[str] = ()) -> Step:
    """A step that runs a Go program of requirements/programs, which ``go tool`` builds once.

    Two at a time would each build it: the second of a program comes ``after`` the first.
    """
    return Step(
        step,
        ["go", "tool", program, *arguments],
        directory=f"requirements/programs/{program}",
        after=after,
        environment={"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"},
    )


def linters() -> list[Step]:
    """Steps that read the checkout and start nothing."""
    python = [sys.executable, "-m"]
    return [
        Step("lint-ruff", [*python, "ruff", "check", "."]),
        Step("lint-format", [*python, "ruff", "format", "--check", "."]),
        Step("lint-mypy", [*python, "mypy", *python_paths()]),
        Step("lint-yaml", [*python, "yamllint", "--strict", "."]),
        Step(
            "lint-ansible",
            [sys.executable, "bin/lint_ansible.py", "--offline", "-q"],
            needs=["bin/lint_ansible.py", "site.yml", f"{COLLECTION}/roles"],
        ),
        Step("lint-shell", ["shellcheck", *shell_scripts()]),
        Step("lint-workflows", ["zizmor", "--offline", "--persona=auditor", "--quiet", "."]),
        go_tool("lint-actions", "actionlint", "-no-color"),
        go_tool("lint-secrets", "gitleaks", "git", "--log-opts=--full-history HEAD", *GITLEAKS),
        go_tool("lint-secrets-tree", "gitleaks", "dir", *GITLEAKS, after=["lint-secrets"]),
        Step(
            "lint-changelog",
            ["antsibull-changelog", "lint"],
            needs=[f"{COLLECTION}/changelogs/config.yaml"],
            directory=str(COLLECTION),
        ),
    ]


def needed_for(provider: str) -> dict[str, Any]:
    """What must be up for a step that deploys with this provider."""
    up: dict[str, dict[str, Any]] = {
        "local": {},
        "compose": {"engine": True},
        "kubernetes": {"engine": True, "after": [CLUSTER]},
    }
    return up[provider]


def promises(scenario: str) -> dict[str, list[str]]:
    """What a scenario of Molecule asks for, by provider."""
    (play,) = yaml.safe_load((ROOT / "molecule" / scenario / "verify.yml").read_text())
    found: dict[str, list[str]] = play["vars"]["test_promises"]
    return found


def shares_the_site(scenario: str) -> bool:
    """Whether a scenario of Molecule goes on with the site of the one before it."""
    own: dict[str, Any] = yaml.safe_load((ROOT / "molecule" / scenario / "molecule.yml").read_text()) or {}
    return bool(own.get("shared_state", True))


def scenarios() -> list[Step]:
    """One step for each provider with the scenarios that share a site, and one for each that has its own."""
    names = sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))
    names.sort(key=lambda name: name != "default")  # which deploys what the others share
    found = []
    for provider in PROVIDERS:
        asked = [name for name in names if provider in promises(name)]
        found.append(molecule(provider, f"molecule-{provider}", [name for name in asked if shares_the_site(name)]))
        found += [
            molecule(provider, f"molecule-{provider}-{name}", [name]) for name in asked if not shares_the_site(name)
        ]
    return found


def molecule(provider: str, step: str, names: Iterable[str]) -> Step:
    """A step that runs scenarios one after the other, in a place where no other step looks."""
    environment = {"TITANIC_PROVIDER": provider, "MOLECULE_EPHEMERAL_DIRECTORY": str(ROOT / ".ansible/molecule" / step)}
    command = [sys.executable, "-m", "molecule", "test"]
    for name in names:
        command += ["--scenario-name", name]
    return Step(step, command, environment=environment, programs="tests/bin", **needed_for(provider))


def switches() -> list[Step]:
    """One step for each provider whose releases are switched, killed and crowded."""
    return [
        pytest_step(f"switch-{name}", "tests/end_to_end/switch", more=[f"--provider={name}"], **needed_for(name))
        for name in PROVIDERS
    ]


def steps() -> list[Step]:
    """All steps, in the order in which they are begun."""
    end_to_end = ROOT / "tests/end_to_end"
    deploying = [f"tests/end_to_end/test_{name}.py" for name in ("first_run", "artifact", "compose_secrets")]
    clustered = sorted(str(path.relative_to(ROOT)) for path in end_to_end.glob("test_kubernetes*.py"))
    switch_local, switch_compose, switch_kubernetes = switches()
    sites = scenarios()
    on_cluster = [
        switch_kubernetes,
        pytest_step("kubernetes", *clustered, **needed_for("kubernetes")),
        pytest_step(
            "integration-kubernetes",
            f"{COLLECTION}/tests/integration/kubernetes",
            **needed_for("kubernetes"),
        ),
        *(step for step in sites if step.after),
    ]
    return [
        pytest_step("unit", f"{COLLECTION}/tests/unit"),
        *linters(),
        pytest_step("lint-rules", ".ansible-lint-rules"),
        Step(LAB, [*PLAYBOOK, "playbooks/lab-up.yml"]),
        pytest_step(
            "repository", "tests/repository", more=[f"--ignore=tests/repository/test_{name}.py" for name in ALONE]
        ),
        switch_compose,  # the longest first
        pytest_step("service", "service/tests"),
        switch_local,
        pytest_step("load", "tests/end_to_end/load"),
        # Which may have programs to build: when no latency is measured beside it.
        Step(CLUSTER, [*PLAYBOOK, "playbooks/cluster-up.yml"], engine=True),
        *on_cluster,
        # It takes the cluster down and looks for what is left of it. A cluster that idles takes a third of a processor.
        pytest_step(
            "cluster", "tests/lab/test_cluster.py", engine=True, after=[CLUSTER, *(step.name for step in on_cluster)]
        ),
        pytest_step(
            "integration-docker",
            *(f"{COLLECTION}/tests/integration/{part}" for part in ("host", "docker")),
            engine=True,
        ),
        *(step for step in sites if not step.after),
        pytest_step("site", *deploying, engine=True),
        pytest_step("second-host", "tests/end_to_end/test_second_host.py", engine=True),
        pytest_step("image", "tests/end_to_end/image", engine=True),
        pytest_step("workflows", "tests/end_to_end/workflows", engine=True),
        *(pytest_step(name, f"tests/repository/test_{name}.py") for name in ALONE),
        pytest_step("bench", "bench", needs=["bench/**/test_*.py"]),
    ]
