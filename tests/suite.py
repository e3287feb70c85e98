"""Runs all of the repository's checks, two at a time, keeps a log of each, and says what ran, what did not and why.

Called by ``make test`` inside .venv; ``make test ONLY=service`` runs the steps whose names start so, ``ONLY=list``
names them. A failed step stops no other. Logs and JUnit reports are left in ``.reports/``, or where
``TESTS_REPORTS`` says. The last line counts the tests: those of pytest one by one, a linter or a scenario as
one. The exit status is 0 when nothing failed, 1 when something did, 2 when there is no such step, 130 after Ctrl-C.
With ``TESTS_MINUTES`` a step that would not be done by then is not begun, and told of as skipped with that reason.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REPORTS = Path(os.environ.get("TESTS_REPORTS", ROOT / ".reports"))
COLLECTION = Path("collections/ansible_collections/whitestar/deploy")
LANES = 2
# A step that takes longer hangs; the slowest takes twenty minutes beside another one.
STEP_SECONDS = 3600
# A test that is ended first takes away the site that it has made.
TIDY_SECONDS = 120
# After which no step may be at work any more; without end unless somebody says so.
MINUTES = float(os.environ.get("TESTS_MINUTES", "inf"))
PROGRESS_SECONDS = 60
PROVIDERS = ("compose", "local", "kubernetes")
TAIL_LINES = 12
LAB = "lab"
LAB_ENVIRONMENT = Path("/var/lib/titanic-lab/engine/environment")  # the default of lab_engine_directory
CLUSTER = "kubernetes-up"
# What steps take at most beside another one, by how their names begin: the first that fits counts. The rest take five.
MINUTES_OF = {
    CLUSTER: 3,
    "switch-kubernetes": 18,
    "switch": 30,
    "kubernetes": 20,
    "collection": 12,
    "cluster": 20,
    "service": 10,
}
CLUSTER_DIRECTORY = Path("/var/lib/titanic-lab/cluster")  # the default of lab_cluster_directory
# The tests of the lab's cluster itself make one of their own, beside which there can be no other.
CLUSTER_TESTS = "cluster"
PLAYBOOK = [sys.executable, "-m", "ansible", "playbook"]
MESSAGE_LENGTH = 300


@dataclass(frozen=True)
class Step:
    """One command of the suite: its name, the paths it needs, whether pytest counts for it, what must be up.

    A step with ``engine`` starts when the lab is up, with the lab's engine in its environment; one with ``after`` when
    the step of that name has been done or left out.
    """

    name: str
    command: Sequence[str]
    needs: Sequence[str] = ()
    pytest: bool = False
    directory: str = "."
    engine: bool = False
    after: str = ""

    @property
    def minutes(self) -> float:
        """What it takes at most."""
        return next((minutes for begin, minutes in MINUTES_OF.items() if self.name.startswith(begin)), 5)

    def missing(self) -> str | None:
        """The first path that this step needs and the checkout does not have."""
        return next((path for path in self.needs if not any(ROOT.glob(path))), None)


@dataclass
class Outcome:
    """What became of a step: counts of tests, seconds, and why tests were skipped."""

    step: Step
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def word(self) -> str:
        """The outcome in one word."""
        if self.failed:
            return "FAILED"
        return "passed" if self.passed else "skipped"


def pytest_step(
    name: str, *paths: str, needs: Sequence[str] = (), engine: bool = False, more: Sequence[str] = (), after: str = ""
) -> Step:
    """A step that runs pytest over paths and leaves a JUnit report."""
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={REPORTS / name}.xml", "-o", "junit_family=xunit2"]
    command += ["--durations=20", "--durations-min=10"]  # what to look at when a step gets slow
    return Step(name, [*command, *more, *paths], needs or paths, pytest=True, engine=engine or bool(after), after=after)


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


def linters() -> list[Step]:
    """Steps that read the checkout and start nothing."""
    python = [sys.executable, "-m"]
    return [
        Step("lint-ruff", [*python, "ruff", "check", "."]),
        Step("lint-format", [*python, "ruff", "format", "--check", "."]),
        Step("lint-mypy", [*python, "mypy", *python_paths()]),
        Step("lint-yaml", [*python, "yamllint", "--strict", "."]),
        Step("lint-ansible", [*python, "ansiblelint", "--offline", "-q"], needs=["site.yml", f"{COLLECTION}/roles"]),
        Step("lint-shell", ["shellcheck", *shell_scripts()]),
        Step(
            "lint-changelog",
            ["antsibull-changelog", "lint"],
            needs=[f"{COLLECTION}/changelogs/config.yaml"],
            directory=str(COLLECTION),
        ),
    ]


def scenarios() -> list[Step]:
    """One step for each Molecule scenario."""
    names = sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))
    names.sort(key=lambda name: name != "default")  # the longest first
    molecule = [sys.executable, "-m", "molecule", "test", "--scenario-name"]
    return [
        Step(
            f"molecule-{name}",
            [*molecule, name],
            engine=name.startswith(("compose", "kubernetes")),
            after=CLUSTER if name.startswith("kubernetes") else "",
        )
        for name in names
    ]


def switches() -> list[Step]:
    """One step for each provider whose releases are switched, killed and crowded."""
    return [
        pytest_step(
            f"switch-{name}",
            "tests/switch",
            engine=True,
            more=[f"--provider={name}"],
            after=CLUSTER if name == "kubernetes" else "",
        )
        for name in PROVIDERS
    ]


def steps() -> list[Step]:
    """All steps, in the order in which they start."""
    molecule = scenarios()
    deploying = [f"tests/test_{name}.py" for name in ("first_run", "artifact", "secrets", "compose_secrets")]
    deploying = [path for path in deploying if (ROOT / path).exists()]
    apart = {name: f"tests/test_{name}.py" for name in ("bootstrap", "cluster", "second_host")}
    clustered = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("test_kubernetes*.py"))
    *switched, switched_on_kubernetes = switches()
    tests = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").glob("test_*.py"))
    repository = [path for path in tests if path not in (*deploying, *apart.values(), *clustered)]
    return [
        Step(LAB, [*PLAYBOOK, "playbooks/lab-up.yml"]),
        pytest_step("service", "service/tests"),  # which needs no lab
        *switched,  # the longest first
        *molecule[:1],
        *linters(),
        pytest_step("lint-rules", ".ansible-lint-rules"),
        # Which may have programs to build: when no latency is measured beside it, and before who needs them.
        pytest_step(CLUSTER_TESTS, apart["cluster"], engine=True),
        pytest_step("collection", f"{COLLECTION}/tests/unit", engine=True, more=["-m", "not cluster"]),
        pytest_step("repository", *repository),
        pytest_step("bootstrap", apart["bootstrap"]),
        pytest_step("site", *deploying, engine=True),
        pytest_step("second-host", apart["second_host"], engine=True),
        pytest_step("load", "tests/load"),
        pytest_step("image", "tests/image", engine=True),
        pytest_step("bench", "bench", needs=["bench/**/test_*.py"]),
        Step(CLUSTER, [*PLAYBOOK, "playbooks/cluster-up.yml"], engine=True, after=CLUSTER_TESTS),
        switched_on_kubernetes,
        pytest_step("kubernetes", *clustered, after=CLUSTER),
        pytest_step("collection-kubernetes", f"{COLLECTION}/tests/unit", more=["-m", "cluster"], after=CLUSTER),
        *(step for step in molecule[1:] if step.after == CLUSTER),
        *(step for step in molecule[1:] if not step.after and not step.name.startswith("molecule-compose-")),
        # Last: the whole site's scenario and the tests of switches have shown most of it.
        *(step for step in molecule[1:] if step.name.startswith("molecule-compose-")),
    ]


def browser() -> None:
    """Installs Chromium where that is ours to do: as root on Debian. Elsewhere the tests that need it say so."""
    if shutil.which("chromium") and shutil.which("chromedriver"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        print("Chromium or its driver is missing and only root on Debian may install it: browser tests are skipped")
        return
    install = ["apt-get", "install", "--yes", "--no-install-recommends", "chromium", "chromium-driver"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with (REPORTS / "chromium.log").open("w") as log:
        for command in (["apt-get", "update"], install):
            print("+ " + shlex.join(command), flush=True)
            if subprocess.run(command, stdout=log, stderr=log, env=environment).returncode != 0:
                print("  failed (.reports/chromium.log): browser tests are skipped")
                return


def engine_environment() -> dict[str, str]:
    """The environment in which ``docker`` talks to the lab's engine; ours where there is no lab."""
    if not LAB_ENVIRONMENT.is_file():
        return dict(os.environ)
    command = ["sh", "-c", 'set -a; . "$1"; exec env -0', "sh", str(LAB_ENVIRONMENT)]
    listed = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    return dict(line.split("=", 1) for line in listed.split("\0") if line)


def no_lab() -> str | None:
    """Why no engine can be had on this machine, if so."""
    if shutil.which("docker") and subprocess.run(["docker", "version"], capture_output=True).returncode == 0:
        return None
    if os.geteuid() == 0 and shutil.which("apt-get"):
        return None
    return "there is no Docker engine, and only root on Debian can bring one up"


def no_cluster() -> str | None:
    """Why no cluster can be had on this machine, if so."""
    if os.geteuid() == 0 or os.environ.get("KUBECONFIG"):
        return None
    return "there is no cluster (KUBECONFIG), and only root can bring one up"


class Suite:
    """Runs steps and collects their outcomes; one instance a run."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.mutex = threading.Lock()
        self.stopped = False
        self.began = time.monotonic()
        self.done: dict[str, threading.Event] = defaultdict(threading.Event)

    def say(self, text: str) -> None:
        """Prints one thing at a time."""
        with self.mutex:
            print(text, flush=True)

    def execute(self, step: Step) -> None:
        """Runs one step unless the suite was stopped, and says what came of it."""
        if self.stopped:
            return
        outcome = Outcome(step)
        if step.engine:
            self.done[LAB].wait()
        if step.after:
            self.done[step.after].wait()
        # pytest has tests that need no engine beside those that do and skip themselves
        why = no_lab() if step.name == LAB or (step.engine and not step.pytest) else None
        why = why or (no_cluster() if CLUSTER in (step.name, step.after) and not step.pytest else None)
        if (time.monotonic() - self.began) / 60 + step.minutes > MINUTES:
            why = f"{MINUTES:g} minutes are too few for all: make test ONLY={step.name}"
        if missing := step.missing():
            why = f"there is no {missing}"
        if why:
            outcome.skipped = 1
            outcome.reasons[why] += 1
        else:
            self.say(f"… {step.name}: {shown(step.command)}")
            started = time.monotonic()
            status = self.run(step)
            outcome.seconds = time.monotonic() - started
            count(outcome, status)
        self.done[step.name].set()
        with self.mutex:
            self.outcomes.append(outcome)
        self.say(f"{outcome.word:>7}  {line(outcome)}")
        if outcome.failed:
            self.say(evidence(step))

    def run(self, step: Step) -> int:
        """Runs a step's command in a process group of its own, all output to its log; returns the exit status."""
        (REPORTS / f"{step.name}.xml").unlink(missing_ok=True)
        with (REPORTS / f"{step.name}.log").open("wb") as log:
            process = subprocess.Popen(
                step.command,
                cwd=ROOT / step.directory,
                env={**(engine_environment() if step.engine else os.environ), "NO_COLOR": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.running[step.name] = process
            try:
                return process.wait(STEP_SECONDS)
            except subprocess.TimeoutExpired:
                log.write(f"\nstopped: not done after {STEP_SECONDS} s\n".encode())
                end(process)
                return -1
            finally:
                self.running.pop(step.name, None)

    def report_progress(self, done: threading.Event) -> None:
        """Says now and then what is running, so that a quiet minute does not look like a hang."""
        while not done.wait(PROGRESS_SECONDS):
            self.say(f"  … still running: {', '.join(sorted(self.running)) or 'nothing'}")

    def stop(self) -> None:
        """Ends what runs and starts nothing more."""
        self.stopped = True
        for step in steps():
            self.done[step.name].set()
        with ThreadPoolExecutor(LANES) as pool:
            list(pool.map(end, list(self.running.values())))

    def all(self, chosen: list[Step]) -> None:
        """Runs the steps two at a time."""
        for name in {step.after for step in chosen} - {step.name for step in chosen}:
            self.done[name].set()
        done = threading.Event()
        threading.Thread(target=self.report_progress, args=(done,), daemon=True).start()
        try:
            with ThreadPoolExecutor(LANES) as pool:
                try:
                    list(pool.map(self.execute, chosen))
                except KeyboardInterrupt:
                    self.stop()
                    raise
        finally:
            done.set()


def end(process: subprocess.Popen[bytes]) -> None:
    """Asks a step's process group to stop and tidy up, as Ctrl-C does; makes it stop if it does not."""
    for sent, seconds in ((signal.SIGINT, TIDY_SECONDS), (signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, sent)
            process.wait(seconds)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
        else:
            return


def count(outcome: Outcome, status: int) -> None:
    """Fills in an outcome from the exit status and, for pytest, from its report."""
    report = REPORTS / f"{outcome.step.name}.xml"
    if not outcome.step.pytest or not report.is_file():
        outcome.passed, outcome.failed = int(status == 0), int(status != 0)
        return
    for case in ET.parse(report).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            outcome.failed += 1
        elif (skip := case.find("skipped")) is not None:
            outcome.skipped += 1
            outcome.reasons[skip.get("message", "no reason given")] += 1
        else:
            outcome.passed += 1
    # pytest may also fail without a failed test: a collection error, or no test at all
    if status != 0 and not outcome.failed:
        outcome.failed = 1


def shown(command: Sequence[str]) -> str:
    """A command as one would type it in the checkout, cut to a line."""
    text = shlex.join(word.replace(f"{ROOT}/", "") for word in command)
    return text if len(text) <= 140 else text[:139] + "…"


def evidence(step: Step) -> str:
    """What failed in a step: pytest's tests with their messages, or a log's lines that tell of errors and its end."""
    report, log = REPORTS / f"{step.name}.xml", REPORTS / f"{step.name}.log"
    found = []
    if step.pytest and report.is_file():
        for case in ET.parse(report).iter("testcase"):
            for problem in (*case.iter("failure"), *case.iter("error")):
                message = " ".join(problem.get("message", "").split())
                found.append(f"{case.get('classname')}::{case.get('name')}: {message}")
    if not found:
        lines = log.read_text(errors="replace").splitlines()
        errors = [text for text in lines[:-TAIL_LINES] if "fatal: [" in text or "[ERROR]" in text or "Error:" in text]
        found = [*errors[-TAIL_LINES:], *lines[-TAIL_LINES:]]
    return "\n".join([f"    ── from .reports/{log.name}", *(f"    {text[:MESSAGE_LENGTH]}" for text in found)])


def line(outcome: Outcome) -> str:
    """One row of the summary: name, seconds, counts."""
    counts = f"{outcome.passed:>8}{outcome.failed:>8}{outcome.skipped:>9}"
    return f"{outcome.step.name:<28}{outcome.seconds:>7.1f} s{counts}"


def summary(outcomes: Sequence[Outcome], seconds: float) -> str:
    """The closing table, the reasons for what was skipped, what failed once more, and the plain line with the sums."""
    rows = ["", f"{'':7}  {'step':<28}{'time':>9}{'passed':>8}{'failed':>8}{'skipped':>9}"]
    rows += [f"{outcome.word:>7}  {line(outcome)}" for outcome in outcomes]
    for outcome in outcomes:
        rows += [f"skipped in {outcome.step.name}: {n} × {why}" for why, n in outcome.reasons.most_common()]
    rows += [evidence(outcome.step) for outcome in outcomes if outcome.failed]
    passed, failed, skipped = (sum(getattr(o, key) for o in outcomes) for key in ("passed", "failed", "skipped"))
    rows += [f"{seconds:.0f} s; logs in .reports/", f"{passed} passed, {failed} failed, {skipped} skipped"]
    return "\n".join(rows)


def take_down(name: str) -> None:
    """Takes away what this run has brought up, to a log of its own."""
    print(f"… the {name} is taken down again", flush=True)
    with (REPORTS / f"{name}-down.log").open("w") as log:
        subprocess.run([*PLAYBOOK, f"playbooks/{name}-down.yml"], cwd=ROOT, stdout=log, stderr=log, check=False)


def main(arguments: list[str]) -> int:
    """Runs the chosen steps; see the file's first words for the exit status."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    every = steps()
    if arguments == ["list"]:
        print("\n".join(step.name for step in every))
        return 0
    chosen = [step for step in every if not arguments or step.name.startswith(tuple(arguments))]
    if any(step.after == CLUSTER for step in chosen):
        chosen = [step for step in every if step in chosen or step.name == CLUSTER]
    if any(step.engine for step in chosen) and every[0] not in chosen:
        chosen = [every[0], *chosen]
    if not chosen:
        print(f"no such step: {' '.join(arguments)} (ONLY=list names them)", file=sys.stderr)
        return 2
    if any(step.name in ("service", "repository") for step in chosen):
        browser()
    # A shell's background job ignores Ctrl-C, and so would all that it starts, tests of Ctrl-C among them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    suite, started = Suite(), time.monotonic()
    lab_was_up, cluster_was_up = LAB_ENVIRONMENT.is_file(), CLUSTER_DIRECTORY.is_dir()
    interrupted = False
    try:
        suite.all(chosen)
    except KeyboardInterrupt:
        interrupted = True
    if CLUSTER_DIRECTORY.is_dir() and not cluster_was_up:
        take_down("cluster")
    if LAB_ENVIRONMENT.is_file() and not lab_was_up:
        take_down("lab")
    order = {step.name: place for place, step in enumerate(every)}
    outcomes = sorted(suite.outcomes, key=lambda outcome: order[outcome.step.name])
    print(summary(outcomes, time.monotonic() - started), flush=True)
    if interrupted:
        return 130
    return int(any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
