"""The driver of `make test` counts right, stops for no failure, says what was skipped, and leaves nothing running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import suite, times
from tests.deployment import EVERY_TASK
from tests.steps import Step, promises, pytest_step, shares_the_site, steps
from tests.suite import Outcome, Suite, main, summary

TESTS = """
import pytest
def test_good(): pass
def test_bad(): assert False
def test_run(): assert False, "\\nPLAY\\nfatal: [host]: FAILED! =>\\n  changed: no\\n  msg: no room\\n" + 99 * "line\\n"
@pytest.mark.skip(reason="no such thing here")
def test_left_out(): pass
@pytest.fixture
def broken(): raise OSError
def test_error(broken): pass
"""


@pytest.fixture(autouse=True)
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Reports of their own, so that those of the run that this test is part of stay."""
    place = tmp_path / "reports"
    place.mkdir()
    monkeypatch.setattr(suite, "REPORTS", place)
    return place


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ran(*steps: Step) -> list[Outcome]:
    runner = Suite()
    runner.all(list(steps))
    return sorted(runner.outcomes, key=lambda outcome: [step.name for step in steps].index(outcome.step.name))


def test_a_step_begins_when_those_before_it_have_ended_and_holds_up_no_other(tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(1)"]
    slow, next_one = Step("slow", sleep), Step("next", ["test", "-e", str(tmp_path / "made")], after=["slow", "made"])
    made = Step("made", ["touch", str(tmp_path / "made")])
    first, last, other = ran(slow, next_one, made)
    assert [outcome.word for outcome in (first, last, other)] == ["passed"] * 3
    assert last.began >= first.began + first.seconds
    assert other.began < 1, "the second lane goes on with what waits for nothing"
    assert [outcome.step.name for outcome in times.critical_path([first, last, other])] == ["slow", "next"]


def test_times_are_kept_of_steps_and_tests(tmp_path: Path, reports: Path) -> None:
    file = tmp_path / "test_sample.py"
    file.write_text("import time\ndef test_slow(): time.sleep(0.2)\ndef test_quick(): pass\n")
    burn = [sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass"]
    outcomes = ran(pytest_step("sample", str(file), needs=["Makefile"]), Step("burn", burn))
    times.write(times.recorded(outcomes, 9.0, reports), reports)
    record = json.loads((reports / "times.json").read_text())
    assert record["steps"].keys() == {"sample", "burn"}
    assert 0.5 <= record["steps"]["burn"]["cpu_seconds"] <= 5
    assert [entry["test"].rpartition("::")[2] for entry in record["slowest_tests"]] == ["test_slow", "test_quick"]
    assert record["slowest_tests"][0]["seconds"] >= 0.2
    assert 0 < record["processors_busy"] <= 1
    assert "critical path: " in times.told(record)[-1]


def test_what_was_never_run_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(suite, "steps", lambda: [Step("one", ["true"]), Step("other", ["true"])])
    monkeypatch.setattr(Suite, "all", lambda *_: None)
    assert main([]) == 1
    assert "never run: one, other" in capsys.readouterr().err


def test_where_nothing_may_be_left_out_a_skipped_step_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Step("absent", ["true"], needs=["no/such/path"])
    monkeypatch.setenv("CI", "true")
    (outcome,) = ran(absent)
    assert (outcome.word, list(outcome.reasons)) == ("FAILED", ["there is no no/such/path"])
    monkeypatch.delenv("CI")
    (outcome,) = ran(absent)
    assert outcome.word == "skipped"


def test_the_gate_says_when_full_measure_was_last_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(suite, "FULL_MEASURE", tmp_path / "full.json")
    assert "no run of it is on record" in suite.full_measure()
    suite.FULL_MEASURE.write_text(json.dumps({"outcome": "passed", "date": "2026-11-29", "commit": "0123456789abcdef"}))
    assert "passed on 2026-11-29 at 0123456789ab" in suite.full_measure()


def test_counts_and_reasons_of_pytest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "test_sample.py"
    file.write_text(TESTS)
    (outcome,) = ran(pytest_step("sample", str(file), needs=["Makefile"]))
    assert (outcome.passed, outcome.failed, outcome.skipped) == (1, 3, 1)
    assert list(outcome.reasons) == ["no such thing here"]
    text = summary([outcome], 3.0)
    assert "skipped in sample: 1 × no such thing here" in text
    assert "test_bad: assert False" in text, "where a long output is cut, its end is what is read"
    assert "\n    msg: no room" in text, "of a playbook's output the reason is read"
    assert "changed: no" in text
    assert text.splitlines()[-1] == "1 passed, 3 failed, 1 skipped"
    shown = capsys.readouterr().out
    assert "test_bad: assert False" in shown
    assert "test_error: " in shown
    assert "test_good" not in shown


def test_errors_in_a_long_log_are_shown_with_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    program = "print('fatal: [host]: no room'); [print('line', n) for n in range(99)]; raise SystemExit('the end')"
    ran(Step("long", [sys.executable, "-c", program]))
    shown = capsys.readouterr().out
    assert "fatal: [host]: no room" in shown
    assert "the end" in shown
    assert "line 50" not in shown


def test_pytest_that_runs_no_test_has_failed(tmp_path: Path) -> None:
    (tmp_path / "test_empty.py").write_text("")
    (tmp_path / "test_broken.py").write_text("import nothing_like_that")
    for name in ("test_empty.py", "test_broken.py"):
        (outcome,) = ran(pytest_step("sample", str(tmp_path / name), needs=["Makefile"]))
        assert outcome.failed == 1
        assert outcome.word == "FAILED"


def test_failure_stops_no_other_step_and_what_is_missing_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Step("bad", [sys.executable, "-c", "raise SystemExit(3)"])
    absent = Step("absent", [sys.executable, "-c", ""], needs=["no/such/path"])
    monkeypatch.delenv("CI", raising=False)
    good = Step("good", [sys.executable, "-c", ""])
    outcomes = ran(bad, absent, good)
    assert [outcome.word for outcome in outcomes] == ["FAILED", "skipped", "passed"]
    assert list(outcomes[1].reasons) == ["there is no no/such/path"]


def test_hanging_step_is_ended_with_its_children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(suite, "STEP_SECONDS", 1)
    pid = tmp_path / "pid"
    child = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    (outcome,) = ran(Step("hang", [sys.executable, "-c", parent]))
    assert outcome.failed == 1
    assert outcome.seconds < 50
    deadline = time.monotonic() + 10
    while alive(int(pid.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(int(pid.read_text()))


def test_step_that_is_ended_may_tidy_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(suite, "STEP_SECONDS", 2)
    left = tmp_path / "left"
    work = f"""
import pathlib, time
pathlib.Path({str(left)!r}).touch()
try:
    time.sleep(60)
finally:
    time.sleep(1)
    pathlib.Path({str(left)!r}).unlink()
"""
    (outcome,) = ran(Step("tidy", [sys.executable, "-c", work]))
    assert outcome.failed == 1
    assert outcome.seconds >= 2, "it had begun"
    assert not left.exists()


def test_unknown_step_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nosuchstep"]) == 2
    assert "ONLY=list" in capsys.readouterr().err


def test_every_test_of_the_checkout_is_in_a_step(root: Path, files: list[Path]) -> None:
    """A test file that no step names would never run."""
    named = [argument for step in steps() if step.pytest for argument in step.command]
    for path in files:
        if path.name.startswith("test_") and path.suffix == ".py":
            assert any(str(path) == name or str(path).startswith(f"{name}/") for name in named), path
    commands = {step.name: list(step.command) for step in steps()}
    for scenario in (path.parent.name for path in root.glob("molecule/*/molecule.yml")):
        for provider in promises(scenario):
            step = f"molecule-{provider}" if shares_the_site(scenario) else f"molecule-{provider}-{scenario}"
            assert scenario in commands[step]


def test_ansible_s_own_modules_are_forked_for_molecule(root: Path, tmp_path: Path) -> None:
    """With the answers that they give when they are sent: lines, errors, and a file that is copied."""
    same = {"ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    command = {"argv": ["sh", "-c", "echo one; echo two; exit 3"]}
    tasks: list[dict[str, Any]] = [
        {"ansible.builtin.command": command, "register": "said", "failed_when": "said.rc != 3"},
        {"ansible.builtin.copy": {"content": "{{ said.stdout_lines | last }}", "dest": str(tmp_path / "copied")}},
        {"ansible.builtin.command": "/nowhere/program"},
    ]
    play = tmp_path / "play.json"
    play.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "vars": same, "tasks": tasks}]))
    path = f"{root / 'tests/bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["ansible-playbook", "-vvv", str(play)],
        cwd=root,
        env=os.environ | EVERY_TASK | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert (tmp_path / "copied").read_text() == "two", done.stdout
    assert done.returncode == 2
    assert "No such file or directory: b'/nowhere/program'" in done.stdout
    assert done.stdout.count("Running module ansible.builtin.command in a fork") == 2


def test_interrupted_run_says_what_ran_and_leaves_nothing(root: Path, reports: Path) -> None:
    command = [sys.executable, "-m", "tests.suite", "lint-shell", "lint-ansible"]
    environment = {**os.environ, "TESTS_REPORTS": str(reports)}
    with subprocess.Popen(
        command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        while "lint-ansible" not in process.stdout.readline():
            pass
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(30) == 130
    assert rest.splitlines()[-1].endswith("skipped")
