# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A background process is started, reloaded or restarted as it needs, and a bad configuration never replaces a good."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.address import host_port
from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import try_request
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.tests.helpers import (
    Result,
    free_port,
    kill,
    require_ipv6,
    run_module,
    spool,
    wait_for,
)

# Serves the text that its configuration file holds; reads it again at SIGHUP. A text with "bad" in it is refused.
DOOR = """#!{python} -S
import http.server, os, pathlib, signal, socket, sys, time
path = pathlib.Path(sys.argv[2])
text = path.read_text()
if sys.argv[1] == "check":
    sys.exit("door: the configuration is bad" if "bad" in text else 0)
if sys.argv[1] == "reload":
    if "unloadable" in text:
        sys.exit("door: it cannot be loaded")
    pid = int(pathlib.Path(sys.argv[3]).read_text())
    os.kill(pid, signal.SIGHUP)
    time.sleep(0.1)
    sys.exit(0)
if "crash" in text:
    sys.exit("door: it crashed")


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{{text.strip()}} {{os.getpid()}}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def again(*_):
    global text
    text = path.read_text()


signal.signal(signal.SIGHUP, again)
pathlib.Path(sys.argv[3]).write_text(str(os.getpid()))
place = socket.getaddrinfo(sys.argv[5], int(sys.argv[4]), type=socket.SOCK_STREAM)[0]
http.server.ThreadingHTTPServer.address_family = place[0]
http.server.ThreadingHTTPServer(place[4], Answers).serve_forever()
"""


class Door:
    """One reverse proxy of a state directory, kept by the module."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.port = free_port()
        self.host = "127.0.0.1"
        self.program = state.root / "door"
        self.program.write_text(DOOR.format(python=sys.executable))
        self.program.chmod(0o755)
        self.file = state.root / "door.conf"

    def keep(self, text: str, *, check: bool = False, **options: Any) -> Result:
        words = [str(self.program), "run", str(self.file), str(self.state.root / "pid"), str(self.port), self.host]
        given = {
            "state_directory": str(self.state.root),
            "name": "door",
            "command": words,
            "configuration_file": str(self.file),
            "configuration": text,
            "check_command": [str(self.program), "check", "{file}"],
            "reload_command": [str(self.program), "reload", str(self.file), str(self.state.root / "pid")],
            "listens_on": host_port(self.host, self.port),
        }
        return run_module("local_daemon", given | options, check=check)

    def says(self) -> tuple[str, int]:
        """The text that it serves, and its pid."""
        answer = try_request(host_port(self.host, self.port), "/")
        assert answer is not None
        text, _, pid = answer.body.decode().rpartition(" ")
        return text, int(pid)


@pytest.fixture
def door(state: State) -> Door:
    return Door(state)


@pytest.mark.parametrize("host", ["::1", "::", "localhost", "0.0.0.0"])
def test_it_listens_on_any_kind_of_address(door: Door, host: str) -> None:
    require_ipv6(host)
    door.host = host
    assert door.keep("one\n")["steps"] == ["write", "start"]
    assert door.says()[0] == "one"
    assert not door.keep("one\n").changed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives up being root")
def test_it_is_another_user_and_listens_on_any_port(door: Door) -> None:
    """Also where it was root's before, and has left files."""
    data = door.state.root / "data"
    assert door.keep("one\n", data_directories=[str(data)])["steps"] == ["write", "start"]
    (data / "left").touch(mode=0o600)
    pid = door.says()[1]
    assert not door.keep("one\n", data_directories=[str(data)], user=10002).changed
    assert door.says()[1] == pid, "a user alone is no reason to close connections"
    kill(pid)
    door.port = next(port for port in range(1023, 600, -1) if can_listen(port))
    words = [str(door.program), "run", str(door.file), str(data / "pid"), str(door.port), door.host]
    assert door.keep("one\n", data_directories=[str(data)], user=10002, command=words)["steps"] == ["start"]
    status = Path(f"/proc/{door.says()[1]}/status").read_text()
    for line in ("Uid:\t10002\t10002\t10002\t10002", "Groups:\t ", "CapEff:\t0000000000000400", "NoNewPrivs:\t1"):
        assert f"{line}\n" in status
    assert {path.stat().st_uid for path in (data, *data.iterdir())} == {10002}


def can_listen(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def test_twelve_steps(door: Door) -> None:
    seen = door.keep("one\n", check=True)
    assert seen["steps"] == ["write", "start"]
    assert not door.file.exists()
    assert not door.state.run.exists()
    assert door.keep("one\n")["steps"] == ["write", "start"]
    text, pid = door.says()
    assert text == "one"
    for check in (True, False):
        again = door.keep("one\n", check=check)
        assert not again.changed
        assert again["steps"] == []

    before = spool(door.state.root)
    seen = door.keep("two\n", check=True)
    assert seen["steps"] == ["write", "reload"]
    assert (seen["diff"]["before"], seen["diff"]["after"]) == ("one\n", "two\n")
    assert spool(door.state.root) == before
    assert door.keep("two\n")["steps"] == ["write", "reload"]
    assert door.says() == ("two", pid)
    assert not door.keep("two\n").changed


def test_a_changed_command_restarts(door: Door) -> None:
    door.keep("one\n")
    _, pid = door.says()
    changed: dict[str, Any] = {"environment": {"NOTE": "other"}}
    assert door.keep("one\n", check=True, **changed)["steps"] == ["restart"]
    assert door.keep("one\n", **changed)["steps"] == ["restart"]
    assert door.says()[0] == "one"
    assert door.says()[1] != pid
    assert not door.keep("one\n", **changed).changed


def test_a_program_that_was_replaced_behind_its_link_restarts(door: Door) -> None:
    newer = door.state.root / "door-2"
    newer.write_text(door.program.read_text())
    newer.chmod(0o755)
    link = door.state.root / "link"
    link.symlink_to(door.program)
    door.program = link
    door.keep("one\n")
    link.unlink()
    link.symlink_to(newer)
    assert door.keep("one\n")["steps"] == ["restart"]


def test_a_process_that_died_is_started(door: Door) -> None:
    door.keep("one\n")
    kill(door.says()[1])
    wait_for(lambda: door.state.daemon("door").process() is None)
    assert door.keep("one\n")["steps"] == ["start"]
    assert door.says()[0] == "one"


@pytest.mark.parametrize("check", [True, False])
def test_a_bad_configuration_is_refused_and_the_old_one_stays(door: Door, check: bool) -> None:
    door.keep("one\n")
    before = door.says()
    assert "door: the configuration is bad" in door.keep("bad\n", check=check).message
    assert door.file.read_text() == "one\n"
    assert door.says() == before
    assert not door.keep("one\n").changed


def test_a_configuration_that_cannot_be_loaded_leaves_the_old_one(door: Door) -> None:
    door.keep("one\n")
    before = door.says()
    assert "door: it cannot be loaded" in door.keep("unloadable\n").message
    assert door.file.read_text() == "one\n"
    assert door.says() == before
    assert not door.keep("one\n").changed


def test_a_process_that_does_not_come_up_is_told_with_its_last_words(door: Door) -> None:
    failed = door.keep("crash\n")
    assert f"it does not listen on 127.0.0.1:{door.port}" in failed.message
    assert "door: it crashed" in failed.message
    assert door.keep("good\n")["steps"] == ["write", "start"]


def test_a_run_that_was_cut_off_before_the_reload_is_completed(door: Door) -> None:
    door.keep("one\n")
    door.file.write_text("two\n")  # what such a run leaves: the file is new, the process has not read it
    assert door.keep("two\n", check=True).changed
    assert door.keep("two\n")["steps"] == ["reload"]
    assert door.says()[0] == "two"
    assert not door.keep("two\n").changed


def test_a_program_that_is_not_installed_yet_is_fine_in_check_mode(door: Door) -> None:
    door.program.unlink()
    assert door.keep("one\n", check=True)["steps"] == ["write", "start"]
    assert door.keep("one\n").failed


def test_the_log_before_is_kept(door: Door) -> None:
    door.keep("one\n")
    door.keep("one\n", environment={"NOTE": "other"})
    assert (door.state.logs / "door.previous.log").exists()


def test_the_configuration_is_readable_and_whole(door: Door) -> None:
    door.keep("one\n")
    assert door.file.stat().st_mode & 0o7777 == 0o644
    assert not [path for path in Path(door.state.root).iterdir() if path.name.startswith(".door")]


def test_a_program_of_python_without_an_address_is_restarted_and_stopped(state: State) -> None:
    file = state.root / "thing.py"

    def keep(text: str, wanted: str = "started", *, check: bool = False) -> Result:
        given: dict[str, Any] = {"state_directory": str(state.root), "name": "door", "state": wanted}
        given |= {"command": ["{python}", str(file)], "configuration_file": str(file), "configuration": text}
        return run_module(
            "local_daemon", given | {"check_command": ["{python}", "-m", "py_compile", "{file}"]}, check=check
        )

    goes_on = "import time\ntime.sleep(600)\n"
    assert keep(goes_on)["steps"] == ["write", "start"]
    argv = state.daemon("door").facts()["argv"]
    assert argv[0] == str(Path(sys.executable).resolve()), "no virtual environment, which may go"
    for check in (True, False):
        assert not keep(goes_on, check=check).changed
    assert keep(f"{goes_on}# more\n")["steps"] == ["write", "restart"]
    assert "SyntaxError" in keep("def (\n").message
    assert not keep(f"{goes_on}# more\n").changed
    assert "it ended at once; its last output:\nshort" in keep("print('short')\n").message
    assert keep(goes_on)["steps"] == ["write", "start"]
    assert keep(goes_on, "stopped", check=True)["steps"] == ["stop"]
    assert state.daemon("door").process()
    assert keep(goes_on, "stopped").changed
    assert not state.daemon("door").process()
    for check in (True, False):
        assert not keep(goes_on, "stopped", check=check).changed
