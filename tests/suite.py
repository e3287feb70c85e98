"""Runs all of the repository's checks side by side, keeps a log of each, and says what ran, what did not and why.

Called by ``make test`` inside .venv; ``make test ONLY=service`` runs the steps whose names start so, ``ONLY=list``
names them; ``make test-fast`` runs those of tests/fast.py. A failed step stops no other. Logs, JUnit reports and
``times.json`` are left in ``.reports/``, or where ``TESTS_REPORTS`` says. The last line counts the tests: those of
pytest one by one, a linter or a run of Molecule as one. The exit status is 0 when nothing failed, 1 when something did,
2 when there is no such step, 130 after Ctrl-C.
Where ``CI`` is set nothing may be left out: a step that would be skipped has failed.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests import times
from tests.fast import fast_steps
from tests.steps import CLUSTER, LAB, PLAYBOOK, ROOT, Step, steps

REPORTS = Path(os.environ.get("TESTS_REPORTS", ROOT / ".reports"))
LANES = int(os.environ.get("TESTS_LANES", "3"))
# Those that are run alone and at full measure by `make test-full`, which says how much that is.
FULL = ("switch-", "workflows")
# A step that takes longer hangs.
STEP_SECONDS = 3000
# A test that is ended first takes away the site that it has made.
TIDY_SECONDS = 120
PROGRESS_SECONDS = 60
TAIL_LINES = 12
LAB_ENVIRONMENT = Path("/var/lib/titanic-lab/engine/environment")  # the default of lab_engine_directory
CLUSTER_DIRECTORY = Path("/var/lib/titanic-lab/cluster")  # the default of lab_cluster_directory
MESSAGE_LENGTH = 600
# A failed task is told of as YAML: its first line, then the values, the message among the first.
REASON_LINES = 8
# What the last run of full measure left; the commit that holds it says who ran it.
FULL_MEASURE = ROOT / "tests/full_measure.json"


@dataclass
class Outcome:
    """What became of a step: counts of tests, when and where it ran, and why tests were skipped.

    ``began`` counts from the begin of the suite; ``cpu_seconds`` are what its processes took of processors, without
    what it had daemons do.
    """

    step: Step
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    lane: int = 0
    began: float = 0.0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def word(self) -> str:
        """The outcome in one word."""
        if self.failed:
            return "FAILED"
        return "passed" if self.passed else "skipped"


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


def left_out(step: Step) -> str | None:
    """Why a step cannot run on this machine, if so."""
    if missing := step.missing():
        return f"there is no {missing}"
    if not shutil.which(step.command[0]):
        return f"there is no {step.command[0]}"
    if step.pytest:  # which has tests that need no engine beside those that do and skip themselves
        return None
    if step.name == LAB or step.engine:
        return no_lab() or (no_cluster() if CLUSTER in (step.name, *step.after) else None)
    return None


class Suite:
    """Runs steps and collects their outcomes; one instance a run."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.waiting: list[Step] = []
        self.done: set[str] = set()
        self.changed = threading.Condition()
        self.stopped = False
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        """Prints one thing at a time."""
        with self.changed:
            print(text, flush=True)

    def free(self) -> Step | None:
        """The first step that waits for no other."""
        return next((step for step in self.waiting if self.done.issuperset(wanted(step))), None)

    def next(self) -> Step | None:
        """The step to begin, once there is one; none when all have been begun."""
        with self.changed:
            self.changed.wait_for(lambda: self.stopped or not self.waiting or self.free())
            step = None if self.stopped else self.free()
            if step:
                self.waiting.remove(step)
            return step

    def work(self, lane: int) -> None:
        """Runs one step after the other until there is none left."""
        while step := self.next():
            outcome = Outcome(step, lane=lane, began=time.monotonic() - self.began)
            try:
                self.execute(outcome)
            finally:
                with self.changed:
                    self.done.add(step.name)
                    self.outcomes.append(outcome)
                    self.changed.notify_all()

    def execute(self, outcome: Outcome) -> None:
        """Runs one step, unless this machine cannot, and says what came of it."""
        step = outcome.step
        if why := left_out(step):
            outcome.reasons[why] += 1
            outcome.skipped = 1
        else:
            self.say(f"… {step.name}: {shown(step.command)}")
            status = self.run(outcome)
            outcome.seconds = time.monotonic() - self.began - outcome.began
            count(outcome, status)
        if os.environ.get("CI") and outcome.word == "skipped":
            outcome.failed = 1
        self.say(f"{outcome.word:>7}  {line(outcome)}")
        if outcome.failed and not why:
            self.say(evidence(step))

    def run(self, outcome: Outcome) -> int:
        """Runs a step's command in a process group of its own, all output to its log; returns the exit status."""
        step = outcome.step
        report = REPORTS / f"{step.name}.xml"
        report.unlink(missing_ok=True)
        junit = [f"--junitxml={report}", "-o", "junit_family=xunit2"] if step.pytest else []
        environment = engine_environment() if step.engine else dict(os.environ)
        # Without bytecode each of some thousand processes compiles what it imports.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        if step.programs:
            environment["PATH"] = f"{ROOT / step.programs}{os.pathsep}{environment['PATH']}"
        with (REPORTS / f"{step.name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*step.command, *junit],
                cwd=ROOT / step.directory,
                env={**environment, **step.environment, "NO_COLOR": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self.running[step.name] = process
            try:
                outcome.cpu_seconds = times.cpu_seconds_of(process, STEP_SECONDS)
                return process.wait()
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
        with self.changed:
            self.stopped = True
            self.changed.notify_all()
        with ThreadPoolExecutor(LANES) as pool:
            list(pool.map(end, list(self.running.values())))

    def all(self, chosen: list[Step]) -> None:
        """Runs the steps, as many at a time as there are lanes."""
        self.waiting = list(chosen)
        names = {step.name for step in chosen}
        self.done = {name for step in chosen for name in wanted(step)} - names
        done = threading.Event()
        threading.Thread(target=self.report_progress, args=(done,), daemon=True).start()
        try:
            with ThreadPoolExecutor(LANES) as pool:
                try:
                    list(pool.map(self.work, range(LANES)))
                except KeyboardInterrupt:
                    self.stop()
                    raise
        finally:
            done.set()


def wanted(step: Step) -> set[str]:
    """Names of the steps that come before this one."""
    return {*step.after, *([LAB] if step.engine else [])}


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


def reasons(output: str) -> list[str]:
    """How a playbook's output tells of its last two failed tasks; pytest's message has only the output's beginning."""
    lines = [text.strip().removeprefix("E ").strip() for text in output.splitlines()]
    fatal = [number for number, text in enumerate(lines) if "fatal: [" in text][-2:]
    return [text for number in fatal for text in lines[number : number + REASON_LINES]]


def evidence(step: Step) -> str:
    """What failed in a step: pytest's tests with their messages, or a log's lines that tell of errors and its end."""
    report, log = REPORTS / f"{step.name}.xml", REPORTS / f"{step.name}.log"
    found = []
    if step.pytest and report.is_file():
        for case in ET.parse(report).iter("testcase"):
            for problem in (*case.iter("failure"), *case.iter("error")):
                message = " ".join(problem.get("message", "").split())
                found.append(f"{case.get('classname')}::{case.get('name')}: {message}")
                found += reasons(problem.text or "")
    if not found:
        lines = log.read_text(errors="replace").splitlines()
        errors = [text for text in lines[:-TAIL_LINES] if "fatal: [" in text or "[ERROR]" in text or "Error:" in text]
        found = [*errors[-TAIL_LINES:], *lines[-TAIL_LINES:]]
    return "\n".join([f"    ── from .reports/{log.name}", *(f"    {text[:MESSAGE_LENGTH]}" for text in found)])


def line(outcome: Outcome) -> str:
    """One row of the summary: name, seconds, counts."""
    counts = f"{outcome.passed:>8}{outcome.failed:>8}{outcome.skipped:>9}"
    return f"{outcome.step.name:<28}{outcome.seconds:>7.1f} s{outcome.cpu_seconds:>8.1f} s{counts}"


def summary(outcomes: Sequence[Outcome], seconds: float, more: Sequence[str] = ()) -> str:
    """The closing table, the reasons for what was skipped, what failed once more, and the plain line with the sums.

    ``more`` are lines that come before that last one.
    """
    rows = ["", f"{'':7}  {'step':<28}{'time':>9}{'CPU':>10}{'passed':>8}{'failed':>8}{'skipped':>9}"]
    rows += [f"{outcome.word:>7}  {line(outcome)}" for outcome in outcomes]
    for outcome in outcomes:
        rows += [f"skipped in {outcome.step.name}: {n} × {why}" for why, n in outcome.reasons.most_common()]
    rows += [evidence(outcome.step) for outcome in outcomes if outcome.failed and outcome.seconds]
    passed, failed, skipped = (sum(getattr(o, key) for o in outcomes) for key in ("passed", "failed", "skipped"))
    rows += [*more, f"{seconds:.0f} s; logs in .reports/", f"{passed} passed, {failed} failed, {skipped} skipped"]
    return "\n".join(rows)


def full_measure() -> str:
    """When what takes hours was last run, which is no part of this."""
    if not FULL_MEASURE.is_file():
        return "full measure (make test-full): no run of it is on record"
    last = json.loads(FULL_MEASURE.read_text())
    return f"full measure (make test-full): {last['outcome']} on {last['date']} at {last['commit'][:12]}"


def keep_full_measure(outcomes: Sequence[Outcome]) -> None:
    """Leaves on record what came of full measure, and of which commit; to be committed by who wants it to be known."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    passed = all(outcome.passed and not outcome.failed for outcome in outcomes)
    record = {"outcome": "passed" if passed else "failed", "date": time.strftime("%Y-%m-%d"), "commit": commit}
    FULL_MEASURE.write_text(json.dumps(record, indent=2) + "\n")


def choose(every: Sequence[Step], begins: Sequence[str]) -> list[Step]:
    """The steps whose names begin so, all where nothing is said, with the engine and the cluster that they need."""
    names = {step.name for step in every if not begins or step.name.startswith(tuple(begins))}
    names |= {CLUSTER for step in every if step.name in names and CLUSTER in step.after}
    names |= {LAB for step in every if step.name in names and step.engine}
    return [step for step in every if step.name in names]


def take_down(name: str) -> None:
    """Takes away what this run has brought up, to a log of its own."""
    print(f"… the {name} is taken down again", flush=True)
    with (REPORTS / f"{name}-down.log").open("w") as log:
        subprocess.run([*PLAYBOOK, f"playbooks/{name}-down.yml"], cwd=ROOT, stdout=log, stderr=log, check=False)


def main(arguments: list[str]) -> int:
    """Runs the chosen steps; see the file's first words for the exit status."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    every = fast_steps() if arguments == ["fast"] else steps()
    if arguments == ["list"]:
        print("\n".join(step.name for step in every))
        return 0
    chosen = choose(every, {"full": FULL, "fast": ()}.get(" ".join(arguments), arguments))
    if not chosen:
        print(f"no such step: {' '.join(arguments)} (ONLY=list names them)", file=sys.stderr)
        return 2
    if any(step.name in ("service", "repository") for step in chosen):
        browser()
    # A shell's background job ignores Ctrl-C, and so would all that it starts, tests of Ctrl-C among them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    suite, started = Suite(), time.monotonic()
    lab_was_up, cluster_was_up = LAB_ENVIRONMENT.is_file(), CLUSTER_DIRECTORY.is_dir()
    if cluster_was_up:
        os.environ["TESTS_KEEP_CLUSTER"] = "1"
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
    told = tell(chosen, outcomes, time.monotonic() - started)
    if arguments == ["full"]:
        keep_full_measure(outcomes)
    return 130 if interrupted else told


def tell(chosen: Sequence[Step], outcomes: Sequence[Outcome], seconds: float) -> int:
    """Keeps the times and prints the summary; the exit status."""
    record = times.recorded(outcomes, seconds, REPORTS)
    times.write(record, REPORTS)
    print(summary(outcomes, seconds, [*times.told(record), full_measure()]), flush=True)
    if never := [step.name for step in chosen if all(outcome.step is not step for outcome in outcomes)]:
        print(f"never run: {', '.join(never)}", file=sys.stderr)
    return int(bool(never) or any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
