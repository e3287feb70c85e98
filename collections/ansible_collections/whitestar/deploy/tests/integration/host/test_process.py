# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process is known by more than its pid, ends when it must, and leaves its last words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import (
    LOG_TAIL_LINES,
    MARK,
    Daemon,
    Process,
    run_json,
    service_environment,
    unprivileged,
)
from ansible_collections.whitestar.deploy.tests.helpers import kill, module_environment, wait_for

IGNORES_SIGTERM = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
)
ENVIRONMENT = service_environment({})


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    (tmp_path / "run").mkdir()
    found = Daemon(tmp_path / "run", "thing", tmp_path / "log" / "thing.log")
    yield found
    if process := found.process():
        kill(process.pid)


def start(daemon: Daemon, code: str, **settings: str) -> Process:
    return daemon.start([sys.executable, "-c", code], service_environment(settings), {"release": "r1"})


def test_a_process_is_found() -> None:
    process = Process.of(os.getpid())
    assert process is not None
    assert process.alive()
    assert process.started > 0


def test_a_reused_pid_is_another_process() -> None:
    process = Process.of(os.getpid())
    assert process is not None
    assert not Process(process.pid, process.started - 1).alive()


def test_a_zombie_does_not_live() -> None:
    child = subprocess.Popen(["true"])
    wait_for(lambda: Process.of(child.pid) is None)
    child.wait()
    assert Process.of(child.pid) is None


def test_a_name_with_brackets_is_read(tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 (b"
    program.write_text("#!/bin/sh\nread nothing\n")
    program.chmod(0o755)
    child = subprocess.Popen([program], stdin=subprocess.PIPE)
    found = Process.of(child.pid)
    child.communicate(b"\n")
    assert found is not None
    assert found.started > 1000


def test_a_daemon_is_nobody_s_child(daemon: Daemon) -> None:
    process = start(daemon, "import time; time.sleep(60)")
    parent = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert parent != os.getpid()
    assert Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1] in "01", "init, or who stands for it"


def test_a_daemon_is_found_again_with_its_labels(daemon: Daemon) -> None:
    process = start(daemon, "import time; time.sleep(60)")
    again = Daemon(daemon.record.parent, "thing", daemon.log)
    assert again.process() == process
    facts = again.facts()
    assert (facts["pid"], facts["started"], facts["release"]) == (process.pid, process.started, "r1")
    assert facts["argv"][1:] == ["-c", "import time; time.sleep(60)"]
    daemon.stop(1)
    daemon.record.write_text(json.dumps(facts))
    started = again.restart()
    assert started
    assert again.process() == started != process
    assert again.facts() == facts | {"pid": started.pid, "started": started.started}


def test_a_record_of_a_reused_pid_is_not_believed(daemon: Daemon) -> None:
    daemon.record.write_text(f'{{"pid": {os.getpid()}, "started": 1}}')
    assert daemon.process() is None
    assert not daemon.stop(1)


@pytest.mark.parametrize("record", ["missing", "another's"])
def test_a_daemon_that_was_never_recorded_is_found(daemon: Daemon, record: str) -> None:
    process = start(daemon, "import time; time.sleep(60)")
    daemon.record.unlink()
    if record != "missing":
        daemon.record.write_text(f'{{"pid": {os.getpid()}, "started": 1}}')
    assert daemon.process() == process
    assert Daemon(daemon.record.parent, "other", daemon.log).process() is None
    assert daemon.stop(5)
    assert not process.alive()


def test_a_daemon_has_a_session_and_no_input_and_leaves_the_directory(daemon: Daemon) -> None:
    code = "import os, sys; print(os.getsid(0) == os.getpid(), os.getcwd(), repr(sys.stdin.read()))"
    start(daemon, code).wait(10)
    assert daemon.log.read_text() == "True / ''\n"


def test_a_daemon_has_no_environment_but_its_own(daemon: Daemon) -> None:
    start(daemon, "import os; print(*os.environ)", TITANIC_PORT="1").wait(10)
    names = set(daemon.log.read_text().split())
    assert names - {"LC_CTYPE"} == {"PATH", "LANG", "TZ", "TITANIC_PORT", MARK}


def test_stop_is_gentle_when_that_is_enough(daemon: Daemon) -> None:
    process = start(daemon, "import time; time.sleep(60)")
    assert process.stop(50)
    assert not process.alive()


def test_stop_ends_what_will_not_listen(daemon: Daemon) -> None:
    process = start(daemon, IGNORES_SIGTERM)
    wait_for(lambda: daemon.log.read_text() == "up\n")
    began = time.monotonic()
    assert not process.stop(0.3)
    assert not process.alive()
    assert 0.3 <= time.monotonic() - began < 30


def test_stop_ends_the_children_of_what_will_not_listen(daemon: Daemon) -> None:
    process = start(daemon, f"import subprocess; subprocess.Popen(['sleep', '60']); {IGNORES_SIGTERM}")
    wait_for(lambda: daemon.log.read_text() == "up\n")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.stop(0.1)
    assert len(children) == 1
    wait_for(lambda: Process.of(int(children[0])) is None)


def test_stopping_twice_is_harmless(daemon: Daemon) -> None:
    start(daemon, "import time; time.sleep(60)")
    assert daemon.stop(5)
    assert not daemon.stop(5)
    assert not daemon.record.exists()
    assert daemon.process() is None
    assert daemon.facts() == {}


def test_the_log_before_is_kept(daemon: Daemon) -> None:
    start(daemon, "print('first')").wait(10)
    start(daemon, "print('second')").wait(10)
    assert daemon.log.read_text() == "second\n"
    assert daemon.log.with_name("thing.previous.log").read_text() == "first\n"


def test_the_tail_has_the_last_words(daemon: Daemon) -> None:
    assert daemon.log_tail() == "(no output)"
    start(daemon, "import sys\nfor n in range(40): print(n, flush=True)\nsys.exit('the end')").wait(10)
    lines = daemon.log_tail().splitlines()
    assert len(lines) == LOG_TAIL_LINES
    assert "the end" in lines


def test_a_program_that_is_missing_says_so(daemon: Daemon) -> None:
    with pytest.raises(FileNotFoundError, match="/nowhere/program"):
        daemon.start(["/nowhere/program"], ENVIRONMENT, {})
    assert daemon.process() is None


def test_an_environment_is_text() -> None:
    assert service_environment({"PORT": 5000})["PORT"] == "5000"
    assert service_environment({})["PATH"] == "/usr/bin:/bin"
    assert service_environment({})["TZ"] == "UTC"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another")
def test_root_becomes_another() -> None:
    assert unprivileged("nobody") == (65534, 65534)
    with pytest.raises(ValueError, match="no account 'nobody-at-all'"):
        unprivileged("nobody-at-all")


def test_who_is_not_root_stays() -> None:
    module = unprivileged.__module__
    program = f"""
import os
from {module} import unprivileged
if os.geteuid() == 0:
    os.setuid(65534)
assert unprivileged("nobody-at-all") is None
"""
    subprocess.run([sys.executable, "-c", program], env=module_environment(), check=True)


def test_an_answer_in_json_is_read() -> None:
    code = "import sys; print('{\"a\": 1}'); print('a hint', file=sys.stderr); sys.exit(3)"
    assert run_json([sys.executable, "-c", code], ENVIRONMENT, 10) == (3, {"a": 1}, "a hint")
    assert run_json(["echo", "no JSON"], ENVIRONMENT, 10) == (0, None, "")


def test_an_answer_that_takes_too_long_is_not_waited_for() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run_json(["sleep", "30"], ENVIRONMENT, 0.2)
