# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The output of real runs: a line for each stage, each error once, no secret, and a terminal that is left clean."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.tests.helpers import RUN_SECONDS, write_play

PROGRESS = {"ANSIBLE_STDOUT_CALLBACK": "whitestar.deploy.progress"}
HERE = {"ansible_connection": "local"}
SECRET = "planted-password-of-the-output"
CLEAR = "\r\x1b[K"
COLOUR = re.compile(r"\x1b\[[0-9;]+m")


def task(name: str, module: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, f"ansible.builtin.{module}": arguments}


def command(name: str, *words: str, changed: bool = False, **keywords: Any) -> dict[str, Any]:
    return task(name, "command", argv=list(words)) | {"changed_when": changed} | keywords


def role(place: Path, name: str, *tasks: dict[str, Any]) -> None:
    path = place / "roles" / name / "tasks"
    path.mkdir(parents=True)
    (path / "main.yml").write_text(json.dumps(tasks))


def run(
    place: Path, play: dict[str, Any], *arguments: str, hosts: dict[str, Any] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a play with our output, or with that of ``environment``."""
    words, own = write_play(place, play, hosts or {"here": HERE})
    return subprocess.run(
        [*words, *arguments],
        cwd=place,
        env=own | PROGRESS | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_SECONDS,
    )


def timeless(text: str) -> list[str]:
    """The lines of an output, all seconds the same, as far as the recap."""
    return re.sub(r" +\d+\.\d s", " N s", text.partition("\nPLAY RECAP")[0]).splitlines()


def recap(text: str) -> str:
    return text.partition("PLAY RECAP")[2]


def on_terminal(place: Path, play: dict[str, Any], interrupt_at: str = "", **environment: str) -> tuple[int, str]:
    """Run a play on a terminal of 80 columns, interrupted once it shows a text; exit status and what it shows."""
    words, own = write_play(place, play, {"here": HERE})
    own = {name: value for name, value in own.items() if name not in {"NO_COLOR", "ANSIBLE_FORCE_COLOR", "COLUMNS"}}
    screen, theirs = pty.openpty()
    process = subprocess.Popen(
        words,
        cwd=place,
        env=own | PROGRESS | {"TERM": "xterm"} | environment,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + RUN_SECONDS
    try:
        while time.monotonic() < deadline:
            try:
                shown += os.read(screen, 4096)
            except OSError:  # the last one who had it open has closed it
                break
            if interrupt_at and interrupt_at in shown.decode(errors="replace"):
                process.send_signal(signal.SIGINT)
                interrupt_at = ""
        return process.wait(10), shown.decode().replace("\r\n", "\n")
    finally:
        os.close(screen)
        process.kill()


def test_a_line_for_each_stage_and_a_summary_for_programs(place: Path) -> None:
    role(
        place,
        "titanic_target",
        command("target | Look", "true"),
        task("target | Leave it out.", "debug", msg="never") | {"when": False},
    )
    role(
        place,
        "titanic_api",
        command("api | Deploy it", "echo", SECRET, changed=True),
        command("api | Try it", "false", ignore_errors=True),
        task("api | Tell it", "debug", msg="it serves"),
    )
    role(place, "titanic_teardown", task("teardown | Display it", "debug", msg=["first", "second"]))
    role(place, "titanic_seed", task("seed | Leave it out.", "debug", msg="never") | {"when": False})
    specified = place / "roles/titanic_seed/meta/argument_specs.yml"
    specified.parent.mkdir()
    specified.write_text(json.dumps({"argument_specs": {"main": {"options": {}}}}))
    rescued = {
        "block": [{"block": [task("Fail", "fail", msg="titanic_x: no room.")], "always": [command("Tidy up", "true")]}],
        "rescue": [command("Go on", "true")],
    }
    play = {
        "name": "Deploy",
        "roles": ["titanic_target"],
        "tasks": [
            {"import_role": {"name": "titanic_api"}},
            {"import_role": {"name": "titanic_seed"}},
            {"name": "Stop", "include_role": {"name": "titanic_teardown"}},
            rescued,
            {"name": "Unlock", "import_role": {"name": "titanic_target"}},
        ],
    }
    file = place / "summary.json"
    file.write_text("of an earlier run")
    done = run(place, play, TITANIC_SUMMARY_FILE=str(file))
    assert done.returncode == 0, done.stdout
    lines = timeless(done.stdout)
    assert lines == [
        "Target      ok N s",
        "ignored: [here]: api | Try it: non-zero return code",
        "Api         changed N s  Deploy it; it serves",
        "Stop        ok N s",
        "  first",
        "  second",
        "rescued: [here]: Fail: titanic_x: no room.",
        "Deploy      ok N s",
    ]
    assert re.search(
        r"here +: ok=\d+ +changed=1 +unreachable=0 +failed=0 +skipped=3 +rescued=1 +ignored=1", done.stdout
    )
    assert SECRET not in done.stdout
    summary = json.loads(file.read_text())
    assert file.stat().st_mode & 0o777 == 0o644
    assert SECRET not in file.read_text()
    assert (summary["failed"], summary["check_mode"]) == (False, False)
    here = summary["hosts"]["here"]
    assert [(each["name"], each["state"]) for each in here["stages"]] == [
        ("Target", "ok"),
        ("Api", "changed"),
        ("Stop", "ok"),
        ("Deploy", "ok"),
        ("Unlock", "ok"),
    ]
    assert here["stages"][1]["did"] == ["Deploy it"]
    assert (here["changed"], here["failed"], here["rescued"], here["errors"]) == (1, 0, 1, [])


def test_an_error_is_told_once_and_no_secret_is(place: Path) -> None:
    (place / "gone").write_text("#!/bin/sh\nexit 255\n")
    (place / "gone").chmod(0o755)
    hosts = {
        "alpha": HERE,
        "beta": HERE,
        "gamma": HERE | {"hidden": True},
        "unreachable": {"ansible_connection": "ssh", "ansible_ssh_executable": str(place / "gone")},
    }
    failing = ["sh", "-c", "echo the reason >&2; exit 3"]
    play = {
        "name": "Check",
        "tasks": [
            command("check | Ask", "true"),
            command(
                "check | Hide each",
                "echo",
                "{{ item }}",
                no_log=True,
                loop=[SECRET],
                failed_when=True,
                ignore_errors=True,
            ),
            command("check | Hide it", "sh", "-c", f"echo {SECRET}; exit 1", no_log=True, when="hidden is defined"),
            task("check | Refuse it", "fail", msg="titanic_x: there is none.\nAdd one.")
            | {"when": "inventory_hostname == 'beta'"},
            command("check | Try each", *failing, loop=["a", "b"], when="hidden is not defined"),
        ],
    }
    file = place / "summary.json"
    done = run(place, play, hosts=hosts, TITANIC_SUMMARY_FILE=str(file))
    assert done.returncode != 0
    lines = timeless(done.stdout)
    assert "alpha        Check       failed N s" in lines
    assert lines.count("  titanic_x: there is none.") == 1
    refused = lines.index("fatal: [beta]: check | Refuse it")
    assert lines[refused + 1 : refused + 3] == ["  titanic_x: there is none.", "  Add one."]
    tried = lines.index("fatal: [alpha]: check | Try each")
    assert lines[tried + 1 : tried + 5] == [
        "  a: non-zero return code",
        "  the reason",
        "  b: non-zero return code",
        "  the reason",
    ]
    assert "  the reason is hidden, since the task has no_log: it handles secrets" in lines
    assert done.stdout.count("UNREACHABLE! =>") == 1
    assert "[ERROR]" not in done.stdout
    assert "unreachable=1" in recap(done.stdout)
    assert "run it again with -v" in done.stdout
    assert SECRET not in done.stdout + file.read_text()
    errors = {name: each["errors"] for name, each in json.loads(file.read_text())["hosts"].items()}
    assert errors["beta"] == [{"task": "Refuse it", "message": "titanic_x: there is none.\nAdd one."}]
    assert [error["task"] for error in errors["gamma"]] == ["Hide it"]
    assert len(errors["unreachable"]) == 1


def test_the_same_error_of_a_second_host_names_the_first(place: Path) -> None:
    play = {"tasks": [task("check | Refuse it", "fail", msg="titanic_x: there is none.")]}
    done = run(place, play, hosts={"alpha": HERE, "beta": HERE})
    assert done.stdout.count("there is none") == 1
    assert re.search(r"fatal: \[\w+\]: check \| Refuse it: as on \w+\n", done.stdout)


def test_check_mode_says_so_and_differences_are_shown(place: Path) -> None:
    copy = {"dest": str(place / "file"), "content": "new\n", "mode": "0644"}
    play = {"name": "Write", "tasks": [task("write | Write the file", "copy", **copy)]}
    done = run(place, play, "--check", "--diff")
    lines = timeless(done.stdout)
    assert lines[0] == "check mode: nothing is changed, and each stage says what it would do"
    assert lines[1] == "Write | Write the file:"
    assert "+new" in lines
    assert lines[-1] == "Write       changed N s  Write the file"
    assert not (place / "file").exists()


def test_verbose_output_is_ansible_s_own(place: Path) -> None:
    tasks = [
        task("Show it", "debug", msg=["one", "two"]),
        command("Change it", "sh", "-c", "echo hi", changed=True, loop=[1, 2]),
        command("Try it", "false", ignore_errors=True),
        task("Fail it", "fail", msg="no room"),
    ]
    varying = re.compile(r"\d+:\d+:\d+\.\d+|\d{4}-\d\d-\d\d|/tmp/[\w./-]+")
    ours, theirs = (
        varying.sub("", run(place, {"name": "Deploy", "tasks": tasks}, "-v", ANSIBLE_STDOUT_CALLBACK=callback).stdout)
        for callback in ("whitestar.deploy.progress", "default")
    )
    assert "TASK [Change it]" in theirs
    assert ours == theirs


def test_a_strategy_that_mixes_stages_has_ansible_s_own_output(place: Path) -> None:
    done = run(place, {"strategy": "free", "tasks": [task("Show it", "debug", msg="one")]})
    assert "TASK [Show it]" in done.stdout


def test_warnings_are_shown(place: Path) -> None:
    (place / "library").mkdir()
    (place / "library" / "warning.py").write_text(
        "#!/usr/bin/python\nfrom ansible.module_utils.basic import AnsibleModule\n"
        "module = AnsibleModule({})\nmodule.warn('mind the gap')\nmodule.exit_json(changed=False)\n"
    )
    done = run(place, {"tasks": [{"name": "Warn", "warning": {}}]})
    assert done.stdout.count("[WARNING]: mind the gap") == 1


def test_a_summary_that_cannot_be_written_fails_no_run(place: Path) -> None:
    path = place / "missing" / "summary.json"
    done = run(place, {"tasks": [task("Show it", "debug", msg="one")]}, TITANIC_SUMMARY_FILE=str(path))
    assert done.returncode == 0
    assert f"summary_file: {path} cannot be written" in " ".join(done.stdout.split())


def test_a_terminal_shows_what_takes_long_and_is_left_clean(place: Path) -> None:
    tried: dict[str, Any] = {"until": False, "retries": 1, "delay": 1, "ignore_errors": True}
    tasks = [command("build | Wait for it", "sleep", "3"), command("build | Try it", "sleep", "2", **tried)]
    status, shown = on_terminal(place, {"name": "Build", "tasks": tasks})
    assert status == 0, shown
    assert f"{CLEAR}… Build | Wait for it, 3 s{CLEAR}" in shown
    assert f"{CLEAR}… Build | Try it, attempt 2 of 2, 4 s{CLEAR}" in shown
    ignored, stage = shown[shown.rindex(CLEAR) :].partition("\n\nPLAY RECAP")[0].split("\n")
    assert "ignored: [here]: build | Try it" in ignored
    assert stage.startswith("Build       \x1b[0;32mok     \x1b[0m"), "in colour, and the line is gone before it"


def test_an_interrupted_run_ends_and_leaves_the_terminal_clean(place: Path) -> None:
    play = {"name": "Build", "tasks": [command("build | Wait for it", "sleep", "60")]}
    began = time.monotonic()
    status, shown = on_terminal(place, play, interrupt_at="Wait for it", NO_COLOR="1")
    assert status != 0
    assert time.monotonic() - began < 50
    assert "nterrupt" in shown[shown.rindex(CLEAR) :]
    assert "the run was cut off in the stage Build. Run the same command again" in shown[shown.rindex(CLEAR) :]
    assert not COLOUR.search(shown)


def test_who_stops_reading_stops_no_run_and_gets_no_warning(place: Path) -> None:
    tasks = [command("build | Begin", "true"), command("build | Wait", "sleep", "2"), command("build | End", "true")]
    words, own = write_play(place, {"name": "Build", "tasks": tasks}, {"here": HERE})
    pipe = subprocess.run(
        ["sh", "-c", '"$@" 2>errors | head -c 0; cat errors', "sh", *words],
        cwd=place,
        env=own | PROGRESS,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )
    assert "Callback dispatch" not in pipe.stdout + pipe.stderr


def test_ansible_reads_the_documentation_of_the_callback(place: Path) -> None:
    words, own = write_play(place, {"tasks": []}, {"here": HERE})
    doc = [*words[:3], "doc", "--type", "callback", "--json", "whitestar.deploy.progress"]
    done = subprocess.run(doc, cwd=place, env=own, capture_output=True, text=True, check=True)
    options = json.loads(done.stdout)["whitestar.deploy.progress"]["doc"]["options"]
    assert options["summary_file"]["env"] == [{"name": "TITANIC_SUMMARY_FILE"}]
    assert "display_failed_stderr" in options
