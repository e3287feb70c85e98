"""Workflows hold no logic, run every step of the suite, hold no more rights than they need, and say what they found."""

from __future__ import annotations

import datetime as dt
import http.server
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.whitestar.deploy.plugins.module_utils.release.signature import wrong_provenance

from bin import audit, findings, image, licences
from tests import job_summary, suite, times
from tests.interface import ROOT
from tests.steps import CLUSTER, GITLEAKS, LAB, Step, go_tool, linters, steps
from tests.suite import Suite, choose

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each job of each workflow that has steps, with a name for messages."""
    for path in WORKFLOWS:
        for name, job in yaml.safe_load(path.read_text())["jobs"].items():
            if "uses" not in job:
                yield f"{path.name}: {name}", job


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_each_command_of_a_workflow_is_a_make_target() -> None:
    commands = [(name, step["run"]) for name, job in jobs() for step in job["steps"] if "run" in step]
    assert len(commands) > len(WORKFLOWS)
    for name, command in commands:
        if command == "bash .ci/run":  # which is make test
            continue
        found = re.fullmatch(r"make ([a-z-]+)( [A-Z]+=[\w-]+)*", command)
        assert found, f"{name}: {command}"
        assert found[1] in makefile_targets(), f"{name}: {command}"


def test_the_jobs_run_every_step_of_the_suite_and_none_twice() -> None:
    (job,) = (job for name, job in jobs() if name == "ci.yml: test")
    assert job["env"]["ONLY"] == "${{ matrix.room.steps }}"
    rooms = [room["steps"].split() for room in job["strategy"]["matrix"]["room"]]
    ran = [step.name for room in rooms for step in choose(steps(), room) if step.name not in (LAB, CLUSTER)]
    assert sorted(ran) == sorted({step.name for step in steps()} - {LAB, CLUSTER})


def test_required_checks_are_the_jobs_of_ci() -> None:
    (job,) = (job for name, job in jobs() if name == "ci.yml: test")
    matrix = job["strategy"]["matrix"]
    names = [
        job["name"]
        .replace("${{ matrix.room.name }}", room["name"])
        .replace("${{ matrix.base.python }}", base["python"])
        for room, base in itertools.product(matrix["room"], matrix["base"])
    ]
    rules = json.loads((ROOT / ".github/rulesets/main.json").read_text())["rules"]
    (required,) = (rule for rule in rules if rule["type"] == "required_status_checks")
    assert [check["context"] for check in required["parameters"]["required_status_checks"]] == names


def test_jobs_have_a_time_limit_and_only_the_rights_that_they_name() -> None:
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {}, path.name
        triggers = workflow[True] if True in workflow else workflow["on"]
        assert "pull_request_target" not in triggers, "it would hand secrets to a fork's code"
    for name, job in jobs():
        assert job["timeout-minutes"] <= 360, name
        assert "contents" in job["permissions"], name


def test_production_takes_what_staging_took_by_a_plan_that_was_approved() -> None:
    """The image is built by one job; what deploys builds nothing, and each environment queues."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/cd.yml").read_text())["jobs"]
    names = ["gate", "image", "staging", "plan", "production"]
    assert {name: job.get("needs") for name, job in workflow.items()} == dict(zip(names, [None, *names], strict=False))
    commands = {name: [step["run"] for step in job.get("steps", []) if "run" in step] for name, job in workflow.items()}
    assert commands["staging"] == ["make release", "make smoke"]
    assert commands["plan"] == ["make plan"]
    assert commands["production"] == ["make apply", "make smoke"]
    for name in ("staging", "production"):
        assert workflow[name]["concurrency"] == {"group": workflow[name]["environment"], "cancel-in-progress": False}
    makefile = (ROOT / "Makefile").read_text()
    for target in ("release", "apply", "plan"):
        assert re.search(rf"^{target}: .*\n\t@\$\(SIGNED\) .*\$\(PIPELINE\)", makefile, re.MULTILINE), target


def test_a_secret_is_of_an_environment() -> None:
    """Whose reviewers have let the job begin; none is the repository's."""
    asking = [(name, job) for name, job in jobs() if "secrets." in yaml.safe_dump(job)]
    assert {name for name, _ in asking} == {
        "cd.yml: staging",
        "cd.yml: plan",
        "cd.yml: production",
        "operate.yml: operate",
    }
    for name, job in asking:
        assert job.get("environment"), name


def test_a_fork_gets_no_secret() -> None:
    ran_for_forks = [path for path in WORKFLOWS if "pull_request:" in path.read_text()]
    assert ran_for_forks
    for path in ran_for_forks:
        assert "secrets." not in path.read_text(), path.name


def test_only_what_is_listed_is_operated() -> None:
    def asked(operation: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "--no-print-directory", "-n", "operate", f"OPERATION={operation}", "TO=r7"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    listed = yaml.safe_load((ROOT / ".github/workflows/operate.yml").read_text())
    choices = (listed.get("on") or listed[True])["workflow_dispatch"]["inputs"]["operation"]["options"]
    for operation in choices:
        assert asked(operation).returncode == 0, operation
    assert "@.ci/rollback.yml" in asked("rollback").stdout
    for other in ("down", "rollback down", ""):
        assert "tear" not in asked(other).stdout
    assert asked("down").returncode != 0


def test_what_is_typed_for_a_rollback_is_no_word_of_a_command(tmp_path: Path) -> None:
    typed = f"r7; touch {tmp_path}/shell $(shell touch {tmp_path}/make) titanic_confirm_teardown=prod"
    play = tmp_path / "play.yml"
    play.write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n"
        "    - ansible.builtin.debug:\n"
        "        msg: \"{{ [titanic_rollback_to, titanic_confirm_teardown | default('none')] }}\"\n"
    )
    program = tmp_path / "bin/run"
    program.parent.mkdir()
    # What bin/run is given to run, but with this playbook.
    program.write_text(f'#!/bin/sh\nshift 5\nexec {sys.executable} -m ansible playbook {play} "$@"\n')
    program.chmod(0o755)
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    command = ["make", "--no-print-directory", "-C", str(tmp_path), "-f", str(ROOT / "Makefile"), "rollback"]
    ran = subprocess.run(command, env={**os.environ, "TO": typed}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = json.loads(ran.stdout.partition("=> ")[2].partition("\n\n")[0])["msg"]
    assert said == [typed, "none"]
    assert not {"shell", "make"} & {path.name for path in tmp_path.iterdir()}


def test_an_account_is_for_its_owner_alone(tmp_path: Path) -> None:
    command = ["make", "-C", str(tmp_path), "-f", str(ROOT / "Makefile"), "account"]
    kept = tmp_path / ".state/kubeconfig"
    subprocess.run(command, env={**os.environ, "TITANIC_KUBECONFIG": ""}, check=True, capture_output=True)
    assert not kept.exists()
    environment = {**os.environ, "TITANIC_KUBECONFIG": "planted\nlines"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert kept.read_text() == "planted\nlines\n"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "planted" not in done.stdout + done.stderr


def test_act_reads_every_workflow() -> None:
    done = subprocess.run(
        ["act", "--list", "--container-architecture=linux/amd64", "--platform=ubuntu-24.04=none"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    listed = {(words[-2], words[1]) for line in done.stdout.splitlines() if len(words := line.split()) > 4}
    for path in WORKFLOWS:
        for name in yaml.safe_load(path.read_text())["jobs"]:
            assert (path.name, name) in listed, done.stdout


def test_caches_are_keyed_by_locks() -> None:
    caches = [step for _, job in jobs() for step in job["steps"] if "actions/cache@" in step.get("uses", "")]
    assert caches
    for step in caches:
        assert "hashFiles('requirements/*.txt'" in step["with"]["key"]


def test_every_kind_of_lock_is_kept_new() -> None:
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    by_kind = {update["package-ecosystem"]: update for update in updates}
    assert by_kind.keys() == {"github-actions", "pip", "docker", "gomod"}
    for kind, pattern in (("pip", "**/*.in"), ("gomod", "**/go.mod")):
        places = by_kind[kind]["directories"]
        listed = subprocess.run(["git", "ls-files", f":(glob){pattern}"], cwd=ROOT, capture_output=True, text=True)
        for file in listed.stdout.split():
            assert any(Path("/", file).parent.match(place) for place in places), file


@pytest.fixture
def quiet_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """A suite whose reports go elsewhere."""
    monkeypatch.setattr(suite, "REPORTS", tmp_path)
    monkeypatch.setattr(job_summary, "REPORTS", tmp_path)
    return Suite()


def test_a_program_that_is_not_there_leaves_its_step_out(quiet_suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    quiet_suite.all([Step("absent", ["no-such-program"])])
    (outcome,) = quiet_suite.outcomes
    assert (outcome.word, list(outcome.reasons)) == ("skipped", ["there is no no-such-program"])


def workflow(place: Path, text: str) -> Path:
    path = place / ".github/workflows/bad.yml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def program(place: Path, name: str, text: str) -> None:
    path = place / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_only_what_is_missing_is_installed(tmp_path: Path) -> None:
    program(tmp_path, "dpkg-query", '[ "$3" = "python3-venv" ] || [ "$3" = "extra" ] || echo installed')
    program(tmp_path, "apt-get", f'echo "$@" >> {tmp_path}/log')
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PACKAGES": "extra", "HOME": str(tmp_path)}
    subprocess.run([str(ROOT / ".ci/prepare")], env=environment, check=True)
    installed = "install --yes --no-install-recommends python3-venv extra"
    assert (tmp_path / "log").read_text().splitlines() == ["update", installed]
    program(tmp_path, "dpkg-query", "echo installed")
    subprocess.run([str(ROOT / ".ci/prepare")], env=environment, check=True)
    assert len((tmp_path / "log").read_text().splitlines()) == 2


UNSAFE = """# Unsafe.
on: pull_request_target
jobs:
  one:
    runs-on: ubuntu-24.04
    steps:
      - uses: actions/checkout@v4
      - run: echo ${{ github.event.pull_request.title }}
"""


def test_zizmor_refuses_an_unsafe_workflow(tmp_path: Path) -> None:
    (step,) = (step for step in linters() if step.name == "lint-workflows")
    workflow(tmp_path, UNSAFE)
    done = subprocess.run(step.command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    for rule in ("dangerous-triggers", "unpinned-uses", "template-injection", "anonymous-definition"):
        assert rule in done.stdout


def go(step: Step) -> subprocess.CompletedProcess[str]:
    """Runs a step as the suite does."""
    environment = {**os.environ, **step.environment}
    return subprocess.run(step.command, cwd=ROOT / step.directory, env=environment, capture_output=True, text=True)


needs_go = pytest.mark.skipif(shutil.which("go") is None, reason="there is no Go, which builds the program")


@needs_go
def test_actionlint_refuses_a_workflow_with_an_error(tmp_path: Path) -> None:
    path = workflow(
        tmp_path, "on: push\njobs:\n  one:\n    runs-on: ubuntu-24.04\n    steps:\n      - run: ${{ matrix.x }}\n"
    )
    done = go(go_tool("x", "actionlint", str(path)))
    assert done.returncode == 1
    assert 'property "x" is not defined' in done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository of one commit."""
    place = tmp_path / "repository"
    subprocess.run(["git", "init", "--quiet", str(place)], check=True)
    commit(place, "README", "Nothing.\n")
    return place


def commit(place: Path, name: str, text: str) -> None:
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).write_text(text)
    author = ["-c", "user.name=Someone", "-c", "user.email=someone@example.org"]
    for words in (["add", "."], ["commit", "--quiet", "--message", "One change"]):
        subprocess.run(["git", *author, *words], cwd=place, check=True)


# In two pieces, so that it is none in this file.
PLANTED = "AKIA" + "Z7QWERTY4PLMNB23"


def look_for_secrets(place: Path) -> subprocess.CompletedProcess[str]:
    """The suite's search of a history, in another repository."""
    return go(go_tool("x", "gitleaks", "git", "--log-opts=--full-history HEAD", *GITLEAKS[:-1], str(place)))


@needs_go
@pytest.mark.parametrize("name", ["settings.py", "tests/test_settings.py"])
def test_a_planted_key_is_found_in_history_after_it_was_removed(repository: Path, name: str) -> None:
    assert look_for_secrets(repository).returncode == 0
    commit(repository, name, f'aws_access_key_id = "{PLANTED}"\n')
    commit(repository, name, "")
    done = look_for_secrets(repository)
    assert done.returncode == 1
    assert "aws-access-token" in done.stdout
    assert PLANTED not in done.stdout + done.stderr


@needs_go
def test_what_tests_plant_is_a_secret_anywhere_else(repository: Path) -> None:
    text = 'password = "planted-' + 'owner-4c1d8f2e77"\n'
    commit(repository, "tests/test_settings.py", text)
    assert look_for_secrets(repository).returncode == 0
    commit(repository, "settings.py", text)
    done = look_for_secrets(repository)
    assert done.returncode == 1
    assert re.findall(r"File: +(\S+)", done.stdout) == ["settings.py"]


def test_pre_commit_runs_the_linters_of_the_suite() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = {hook["id"]: hook["entry"] for hook in local["hooks"]}
    for step in linters():
        program = next(
            word for word in step.command if word.rpartition("/")[2] not in ("go", "tool", "-m") and "/" not in word
        )
        if step.name not in ("lint-changelog", "lint-secrets-tree", "lint-ansible"):
            assert any(program in entry for entry in entries.values()), step.name
    assert "--staged" in entries["gitleaks"]
    assert "--redact" in entries["gitleaks"]


def test_a_summary_tells_of_outcomes_failures_and_what_was_left_out(
    quiet_suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    file = tmp_path / "test_sample.py"
    file.write_text(
        "import pytest\ndef test_bad(): assert 1 == 2\n@pytest.mark.skip(reason='no | room')\ndef test_x(): pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", str(file)]
    quiet_suite.all([Step("sample", command, pytest=True), Step("gone", ["no-such-program"])])
    times.write(times.recorded(quiet_suite.outcomes, 9.0, tmp_path), tmp_path)
    (tmp_path / "sarif").mkdir()
    (tmp_path / "sarif/osv.sarif").write_text(json.dumps(audit.sarif([], "no network")))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert job_summary.main() == 0
    text = (tmp_path / "summary.md").read_text()
    assert "## Tests: 0 passed, 1 failed, 2 skipped in 9 s" in text
    assert "❌ sample" in text
    assert "| sample | `test_bad` | assert 1 == 2 |" in text
    assert "no \\| room" in text
    assert "| gone | 1 | there is no no-such-program |" in text
    assert "| osv | not scanned | no network |" in text


def test_findings_are_written_as_sarif_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(findings, "SARIF", tmp_path / "sarif")
    (tmp_path / "bad.py").write_text("import os\n")
    ruff = ["ruff", "check", "--exit-zero", "--isolated", "--output-format=sarif", "--output-file={out}", "bad.py"]
    silent = ["true"]
    monkeypatch.setattr(findings, "TOOLS", {"ruff": (str(tmp_path), ruff), "silent": (".", silent)})
    assert findings.main([]) == 1, "one has written nothing"
    shown = capsys.readouterr()
    assert "ruff: 1 findings" in shown.out
    assert "F401" in shown.out
    assert "silent: not scanned" in shown.err
    assert findings.main(["ruff"]) == 0


class Osv(http.server.BaseHTTPRequestHandler):
    """Answers as OSV does, and knows one vulnerability of one version."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        known = {"package": {"ecosystem": "PyPI", "name": "flask"}, "version": "0.1"}
        answer = json.dumps({"results": [{"vulns": [{"id": "GHSA-1"}]} if query == known else {} for query in asked]})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def osv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An OSV on this machine, and SARIF and exceptions of a test's own."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Osv)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(audit, "API", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(audit, "SARIF", tmp_path / "osv.sarif")
    monkeypatch.setattr(audit, "EXCEPTIONS", tmp_path / "exceptions.yml")
    (tmp_path / "exceptions.yml").write_text("exceptions: []\n")
    yield
    server.shutdown()
    server.server_close()


def test_what_is_locked_is_asked_for(osv: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    locked = {(package.ecosystem, package.name) for package in audit.packages()}
    assert {("PyPI", "flask"), ("PyPI", "ansible-core"), ("Go", "k8s.io/kubernetes")} <= locked
    assert audit.main([]) == 0
    assert f"{len(audit.packages())} packages scanned, 0 vulnerabilities" in capsys.readouterr().out


def test_a_vulnerability_fails_until_an_exception_names_it(
    osv: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "packages", lambda: [audit.Package("PyPI", "flask", "0.1", "a.txt")])
    assert audit.main([]) == 1
    assert "a.txt: flask 0.1: GHSA-1" in capsys.readouterr().out
    assert findings.findings(audit.SARIF) == ["GHSA-1 a.txt:1"]
    today = dt.datetime.now(dt.UTC).date()
    for days, status in ((5, 0), (-1, 1), (400, 1)):
        until = today + dt.timedelta(days=days)
        entry = f"{{id: GHSA-1, package: flask, reason: not reachable, until: {until}}}"
        audit.EXCEPTIONS.write_text(f"exceptions:\n  - {entry}\n")
        assert audit.main([]) == status, days


def test_no_answer_is_not_scanned(
    osv: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "API", "http://127.0.0.1:9")
    assert audit.main([]) == 0
    assert "not scanned" in capsys.readouterr().err
    assert "not scanned" in findings.not_scanned(audit.SARIF)
    assert audit.main(["--required"]) == 1


@pytest.mark.parametrize(
    ("expression", "carried", "run"),
    [
        ("MIT", True, True),
        ("GPL-3.0-or-later", False, True),
        ("GPL-2.0-only OR MIT", True, True),
        ("MIT AND GPL-3.0-only", False, True),
        ("AGPL-3.0-only", False, False),
        ("Apache-2.0 WITH LLVM-exception", True, True),
        ("", False, False),
    ],
)
def test_licences_of_what_is_given_to_others_and_of_what_is_run(expression: str, carried: bool, run: bool) -> None:
    assert (licences.allowed(expression, True), licences.allowed(expression, False)) == (carried, run)


def test_every_locked_package_has_a_licence_that_is_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    assert licences.main([]) == 0
    shown = capsys.readouterr().out
    assert "service/requirements.txt: psycopg2-binary" in shown
    assert "LGPL-3.0-or-later" in shown


def test_provenance_names_source_and_builder_beside_what_the_build_recorded() -> None:
    recorded = {"buildDefinition": {"buildType": "b", "resolvedDependencies": [{"name": "context"}]}}
    ours = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_SERVER_URL": "https://git.example.org",
        "GITHUB_REPOSITORY": "team/titanic",
        "GITHUB_REF": "refs/heads/main",
        "GITHUB_SHA": "0123",
        "GITHUB_WORKFLOW_REF": "team/titanic/.github/workflows/image.yml@refs/heads/main",
    }
    stated = image.predicate(recorded, ours)
    dependencies = stated["buildDefinition"]["resolvedDependencies"]
    source = {"uri": "git+https://git.example.org/team/titanic@refs/heads/main", "digest": {"gitCommit": "0123"}}
    assert dependencies == [{"name": "context"}, source]
    workflow = "https://git.example.org/team/titanic/.github/workflows/image.yml@refs/heads/main"
    assert stated["runDetails"]["builder"]["id"] == workflow
    asked = {"repository": "https://git.example.org/team/titanic", "ref": "refs/heads/main", "builder": workflow}
    assert wrong_provenance({"predicate": stated}, asked) == []
