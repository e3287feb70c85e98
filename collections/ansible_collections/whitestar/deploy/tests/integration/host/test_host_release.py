# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A release takes over without harm to the one before, is recorded whatever comes of it, and can be gone back to."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.http import try_request
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import Process
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import COLOURS
from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import Ledger
from ansible_collections.whitestar.deploy.tests.helpers import (
    Result,
    finish_module,
    kill,
    make_image,
    make_workload,
    run_module,
    spool,
    start_module,
    wait_for,
)

A, B, C = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"


def arguments(state: State, **options: Any) -> dict[str, Any]:
    given = {"state_directory": str(state.root), "by": "alice@laptop", "why": "deploy"}
    return given | {"ready_seconds": 120, "drain_seconds": 20} | options


def deploy(state: State, workload: dict[str, Any], *, check: bool = False, **options: Any) -> Result:
    """Deploy as a run does, whose image stage comes first."""
    make_image(state, workload["image_facts"]["identity"])
    return run_module("host_release", arguments(state, workload=workload, **options), check=check)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives up being root")
def test_a_release_is_not_root_and_may_write_where_no_record_is(state: State) -> None:
    assert not deploy(state, make_workload(state, A)).failed
    (pid,) = serving(state).values()
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Uid:\t10001\t10001\t10001\t10001\n" in status
    assert "Gid:\t10001\t10001\t10001\t10001\n" in status
    assert "Groups:\t \n" in status
    assert [path.name for path in state.run.iterdir() if path.stat().st_uid == 10001] == ["blue.metrics", "blue.sock"]
    place = (state.run / "blue.metrics").stat()
    assert (place.st_mode & 0o7777, place.st_gid) == (0o750, 10002), "the reverse proxy comes in"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives up being root")
def test_an_interpreter_that_only_root_may_use_is_named(state: State) -> None:
    workload = make_workload(state, A)
    private = state.root / "private"
    private.mkdir(mode=0o700)
    (private / "python").touch(mode=0o755)
    (Path(workload["image"]) / "bin" / "python").symlink_to(private / "python")
    refused = deploy(state, workload)
    assert f"only root may use {private}. Set titanic_image_python" in refused.message
    assert serving(state) == {}


def serving(state: State) -> dict[str, int]:
    """Pid of each colour that runs and is ready, by its release."""
    found = {}
    for colour in COLOURS:
        answer = try_request(state.address(colour), "/readyz")
        if answer and answer.status == 200:
            found[answer.json()["release"]] = answer.json()["pid"]
    return found


def outcomes(state: State) -> list[tuple[str, str]]:
    return [(entry.release, entry.outcome) for entry in state.ledger().entries]


def test_twelve_steps_of_a_release(state: State) -> None:
    first, second = make_workload(state, A), make_workload(state, B)
    seen = deploy(state, first, check=True)
    assert seen.changed
    assert seen["action"] == "deployed"
    assert not (state.root / "ledger.json").exists()
    assert not state.run.exists()
    done = deploy(state, first)
    assert done.changed
    assert done["entry"]["number"] == 1
    (old,) = serving(state).values()

    before = spool(state.root)
    for check in (True, False):
        again = deploy(state, first, check=check)
        assert not again.changed
        assert again["action"] == "none"
        assert again["diff"]["before"] == again["diff"]["after"]
    assert serving(state) == {first["release"]: old}
    assert spool(state.root) == before

    make_image(state, B)
    before = spool(state.root)
    seen = deploy(state, second, check=True)
    assert seen.changed
    assert first["release"] in seen["diff"]["before"]
    assert second["release"] in seen["diff"]["after"]
    assert spool(state.root) == before
    done = deploy(state, second)
    assert done.changed
    assert (done["action"], done["release"]) == ("deployed", second["release"])
    assert list(serving(state)) == [second["release"]]
    wait_for(lambda: Process.of(old) is None)
    assert not deploy(state, second, check=True).changed
    assert not deploy(state, second).changed
    assert outcomes(state) == [(first["release"], "succeeded"), (second["release"], "succeeded")]


def test_a_changed_setting_is_a_release_of_the_same_image(state: State) -> None:
    deploy(state, make_workload(state, A))
    changed = make_workload(state, A, TINY_NOTE="other")
    assert deploy(state, changed)["action"] == "deployed"
    assert list(serving(state)) == [changed["release"]]


def test_a_changed_secret_restarts_the_release(state: State) -> None:
    token = state.root / "token"
    token.write_text("one")
    workload = make_workload(state, A) | {"secret_files": {"token": str(token)}}
    deploy(state, workload)
    (old,) = serving(state).values()
    assert not deploy(state, workload).changed
    token.write_text("two")
    assert deploy(state, workload, check=True).changed
    done = deploy(state, workload)
    assert done["action"] == "deployed"
    assert serving(state)[workload["release"]] != old
    assert not deploy(state, workload).changed


def test_secrets_are_in_no_record(state: State) -> None:
    token = state.root / "token"
    token.write_text("hunter2-secret")
    done = deploy(state, make_workload(state, A) | {"secret_files": {"token": str(token)}})
    token.unlink()
    assert "hunter2" not in done.output
    assert not [name for name, content in spool(state.root).items() if b"hunter2" in content]


def test_a_secret_that_is_not_there_yet_is_fine_in_check_mode(state: State) -> None:
    workload = make_workload(state, A) | {"secret_files": {"token": str(state.root / "later")}}
    assert deploy(state, workload, check=True).changed
    assert "later" in deploy(state, workload).message


def test_a_release_that_died_is_started_again(state: State) -> None:
    workload = make_workload(state, A)
    deploy(state, workload)
    (old,) = serving(state).values()
    kill(old)
    wait_for(lambda: Process.of(old) is None)
    seen, done = deploy(state, workload, check=True), deploy(state, workload)
    assert seen["action"] == done["action"] == "restarted"
    assert list(serving(state)) == [workload["release"]]
    assert len(outcomes(state)) == 1
    assert not deploy(state, workload).changed


@pytest.mark.parametrize(
    ("behaviour", "seconds", "words"),
    [
        ("exits", 120, "it ended at once; its last output:\ntiny release {} starts\ntiny release: no reason to live"),
        ("never", 5, "/readyz did not answer 200 within 5 s (last: 503"),
        ("fails", 120, "it got ready, but /people fails: 500"),
        ("slow", 120, "it got ready, but /people took longer than 2 s"),
    ],
    ids=["exits", "never", "fails", "slow"],
)
def test_a_bad_release_is_recorded_and_the_old_one_serves_on(
    state: State, behaviour: str, seconds: int, words: str
) -> None:
    good, bad = make_workload(state, A), make_workload(state, B, TINY_BEHAVIOUR=behaviour)
    deploy(state, good)
    before = serving(state)
    failed = deploy(state, bad, ready_seconds=seconds)
    assert f"release {bad['release']} did not take over, what served before serves on" in failed.message
    assert words.format(bad["release"]) in failed.message
    assert serving(state) == before
    assert outcomes(state)[-1] == (bad["release"], "failed")
    reason = state.ledger().entries[-1].reason
    assert "its last output" not in reason
    assert reason.startswith(words.partition(";")[0])
    assert behaviour != "exits" or reason == "it ended at once: tiny release: no reason to live"
    assert not state.daemon("green").process()
    assert (state.logs / "green.log").exists()
    failure_report = Path(failed.message.rpartition("evidence: ")[2])
    assert failure_report.parent == state.failure_reports
    assert failure_report.stat().st_mode & 0o777 == 0o600
    evidence = failure_report.read_text()
    for text in (
        failed.message.partition("serves on: ")[2].splitlines()[0],
        "tiny release",
        behaviour,
        '+  "release":',
    ):
        assert text in evidence
    # The release that serves is still the current one; the bad one is not tried again in silence.
    assert not deploy(state, good).changed
    again = deploy(state, bad, ready_seconds=0.2)
    assert again.failed
    assert any(f"release {bad['release']}: it failed at " in warning for warning in again.warnings)


def test_a_moment_of_503_on_trial_is_no_reason_to_refuse_a_release(state: State) -> None:
    assert deploy(state, make_workload(state, A, TINY_BEHAVIOUR="pauses"))["action"] == "deployed"


def test_a_release_that_cannot_be_started_is_recorded(state: State) -> None:
    good, bad = make_workload(state, A), make_workload(state, B)
    deploy(state, good)
    before = serving(state)
    assert "/bin/missing" in deploy(state, bad | {"command": ["missing"]}).message
    assert outcomes(state)[-1] == (bad["release"], "failed")
    assert serving(state) == before


def test_a_bad_first_release_leaves_nothing_running(state: State) -> None:
    failed = deploy(state, make_workload(state, A, TINY_BEHAVIOUR="exits"))
    assert failed.failed
    assert serving(state) == {}
    assert not any(state.daemon(colour).process() for colour in COLOURS)
    assert deploy(state, make_workload(state, B))["action"] == "deployed"


def test_an_old_release_that_will_not_stop_is_ended(state: State) -> None:
    deploy(state, make_workload(state, A, TINY_BEHAVIOUR="stubborn"))
    (old,) = serving(state).values()
    deploy(state, make_workload(state, B), drain_seconds=0.2)
    assert Process.of(old) is None


def interrupt(state: State, workload: dict[str, Any], colour: str) -> None:
    """Kill a run while it waits for this colour to become ready."""
    make_image(state, workload["image_facts"]["identity"])
    run = start_module("host_release", arguments(state, workload=workload, ready_seconds=60))
    wait_for(lambda: try_request(state.address(colour), "/healthz"))
    run.kill()
    run.communicate()


def test_a_run_killed_before_readiness_leaves_the_old_one_serving(state: State) -> None:
    """The next release must take the place of the one that never got ready, not of the one that serves."""
    good, stuck, better = (
        make_workload(state, A),
        make_workload(state, B, TINY_BEHAVIOUR="never"),
        make_workload(state, C),
    )
    deploy(state, good)
    (old,) = serving(state).values()
    interrupt(state, stuck, "green")
    assert serving(state) == {good["release"]: old}

    make_image(state, C)
    run = start_module("host_release", arguments(state, workload=better))
    wait_for(lambda: better["release"] in serving(state))
    assert Process.of(old) is not None, "the release that served was stopped before the next one was ready"
    done = finish_module(run)
    assert done["action"] == "deployed"
    assert list(serving(state)) == [better["release"]]
    assert outcomes(state) == [
        (good["release"], "succeeded"),
        (stuck["release"], "interrupted"),
        (better["release"], "succeeded"),
    ]


def test_going_on_after_a_killed_run_warns(state: State) -> None:
    deploy(state, make_workload(state, A))
    stuck = make_workload(state, B, TINY_BEHAVIOUR="never")
    interrupt(state, stuck, "green")
    again = deploy(state, stuck, ready_seconds=0.2)
    assert any("was cut off. This run continues." in warning for warning in again.warnings)
    assert outcomes(state)[1:] == [(stuck["release"], "interrupted"), (stuck["release"], "failed")]
    assert len(serving(state)) == 1


def second_colour(state: State, workload: dict[str, Any]) -> int:
    """Start the other colour by hand, as a run leaves it that is cut off after readiness and before the drain."""
    make_image(state, workload["image_facts"]["identity"])
    environment = {
        "PATH": os.environ["PATH"],
        "TITANIC_BIND": state.address("green"),
        "TITANIC_DRAIN_FILE": str(state.drain_file("green")),
    }
    process = state.daemon("green").start(
        [f"{workload['image']}/bin/tiny", "serve"],
        environment | workload["environment"],
        json.loads((state.run / "blue.json").read_text()) | {"release": workload["release"], "at": 4e9},
    )
    wait_for(lambda: try_request(state.address("green"), "/readyz"))
    return process.pid


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
@pytest.mark.parametrize("drained", [False, True])
def test_a_switch_that_was_cut_off_is_finished(state: State, drained: bool) -> None:
    old, new = make_workload(state, A), make_workload(state, B)
    deploy(state, old)
    pid = second_colour(state, new)
    if drained:
        state.drain_file("blue").touch()
    seen, done = deploy(state, new, check=True), deploy(state, new)
    assert seen["action"] == done["action"] == "resumed"
    assert serving(state) == {new["release"]: pid}
    assert not state.daemon("blue").process()
    assert outcomes(state)[-1] == (new["release"], "succeeded")
    assert not deploy(state, new).changed


def test_a_drain_that_was_left_behind_does_not_keep_the_only_release_unready(state: State) -> None:
    workload = make_workload(state, A)
    deploy(state, workload)
    state.drain_file("blue").touch()
    assert serving(state) == {}
    assert deploy(state, workload).changed
    assert list(serving(state)) == [workload["release"]]
    assert not deploy(state, workload).changed


def test_a_rollback_serves_the_recorded_workload(state: State) -> None:
    first, second = make_workload(state, A, TINY_NOTE="as recorded"), make_workload(state, B)
    deploy(state, first)
    deploy(state, second)
    back = {"restore": 1, "why": "rollback"}
    seen = run_module("host_release", arguments(state, **back), check=True)
    assert seen.changed
    assert list(serving(state)) == [second["release"]]
    done = run_module("host_release", arguments(state, **back))
    assert (done["action"], done["release"]) == ("deployed", first["release"])
    assert list(serving(state)) == [first["release"]]
    assert done["entry"]["restores"] == 1
    assert done["entry"]["why"] == "rollback"
    assert not run_module("host_release", arguments(state, **back)).changed
    # Deploying the newer source again goes forward.
    assert deploy(state, second)["action"] == "deployed"


def test_a_release_whose_directory_is_gone_cannot_be_restored(state: State) -> None:
    first = make_workload(state, A)
    deploy(state, first)
    deploy(state, make_workload(state, B))
    (Path(first["image"]) / "bin" / "tiny").unlink()
    (Path(first["image"]) / "bin").rmdir()
    Path(first["image"]).rmdir()
    before = serving(state)
    assert "its image or workload is gone" in run_module("host_release", arguments(state, restore=1)).message
    assert "is recorded, but" in run_module("host_release", arguments(state, restore=77)).message
    assert serving(state) == before


def test_a_release_can_be_deployed_when_what_served_is_gone_from_the_disk(state: State) -> None:
    first = make_workload(state, A)
    deploy(state, first)
    (state.configurations / f"{first['release']}.json").unlink()
    assert deploy(state, make_workload(state, B))["action"] == "deployed"


def test_pruning_spares_what_a_rollback_needs(state: State) -> None:
    workloads = [make_workload(state, letter * 12) for letter in "abcd"]
    pruned = [deploy(state, workload, keep=1)["pruned"] for workload in workloads]
    assert pruned == [[], [], [workloads[0]["release"]], [workloads[1]["release"]]]
    assert sorted(path.name for path in state.images.iterdir()) == ["c" * 12, "d" * 12]
    assert sorted(path.stem for path in state.configurations.glob("*.json")) == sorted(
        w["release"] for w in workloads[2:]
    )
    assert run_module("host_release", arguments(state, restore=3, keep=1))["release"] == workloads[2]["release"]


def test_a_failed_release_prunes_nothing(state: State) -> None:
    deploy(state, make_workload(state, A))
    make_workload(state, C)
    deploy(state, make_workload(state, B, TINY_BEHAVIOUR="exits"), keep=0)
    assert len(list(state.images.iterdir())) == 3


def test_no_request_fails_while_the_old_release_is_drained(state: State) -> None:
    """A slow request that the old release has begun is answered, and somebody is ready at every moment."""
    deploy(state, make_workload(state, A))
    slow = subprocess.Popen(
        ["curl", "-sS", "--unix-socket", str(state.run / "blue.sock"), "http://x/slow"], stdout=subprocess.PIPE
    )
    new = make_workload(state, B)
    run = start_module("host_release", arguments(state, workload=new))
    gaps = 0
    while run.poll() is None:
        gaps += not serving(state)
    assert not finish_module(run).failed
    body, _ = slow.communicate(timeout=60)
    assert json.loads(body)["release"].startswith(A)
    assert gaps == 0


def test_a_ledger_of_another_format_is_refused_before_anything_is_touched(state: State) -> None:
    (state.root / "ledger.json").write_text('{"format": 2}')
    assert "the ledger has format 2" in deploy(state, make_workload(state, A)).message
    assert not state.configurations.exists()


def test_either_a_workload_or_an_entry(state: State) -> None:
    workload = make_workload(state, A)
    assert "one of the following" in run_module("host_release", arguments(state)).message
    both = run_module("host_release", arguments(state, workload=workload, restore=1))
    assert "mutually exclusive" in both.message


def test_ctrl_c_stops_the_new_release_and_leaves_the_old_one(state: State) -> None:
    deploy(state, make_workload(state, A))
    before = serving(state)
    stuck = make_workload(state, B, TINY_BEHAVIOUR="never")
    run = start_module("host_release", arguments(state, workload=stuck, ready_seconds=60))
    wait_for(lambda: try_request(state.address("green"), "/healthz"))
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=60)
    assert serving(state) == before
    assert not state.daemon("green").process()
    assert Ledger.from_document(json.loads((state.root / "ledger.json").read_text())).current() is not None


def test_a_release_that_turns_sour_gives_way_to_the_one_before(state: State) -> None:
    good, sour = make_workload(state, A), make_workload(state, B, TINY_BEHAVIOUR="sours")
    deploy(state, good)
    before = serving(state)
    make_image(state, B)
    run = start_module("host_release", arguments(state, workload=sour, analysis={"seconds": 30}))
    while run.poll() is None:
        if not state.drain_file("green").exists():
            try_request(state.address("green"), "/people")
        time.sleep(0.01)
    failed = finish_module(run)
    assert re.search(r"under analysis: of \d+ requests \d+ failed", failed.message), failed
    assert serving(state) == before, "the very process that served before, since it had only been drained"
    assert outcomes(state)[-1] == (sour["release"], "failed")
    assert not state.daemon("green").process()
    assert not deploy(state, good).changed


def test_a_release_that_keeps_its_bounds_passes_its_analysis(state: State) -> None:
    deploy(state, make_workload(state, A))
    new = make_workload(state, B)
    began = time.monotonic()
    assert deploy(state, new, analysis={"seconds": 1.5})["action"] == "deployed"
    assert time.monotonic() - began > 1.5
    assert list(serving(state)) == [new["release"]]


def promising(workload: dict[str, Any]) -> dict[str, Any]:
    """A workload that promises something."""
    workload["probes"]["promises"] = [
        {"name": "it is promised", "path": "/promised", "status": 200, "request_headers": {}, "headers": {}, "json": {}}
    ]
    return workload


class Door(http.server.BaseHTTPRequestHandler):
    """A reverse proxy: asks the colour that is ready."""

    state: State
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        ready = [self.state.address(colour) for colour in COLOURS if self.state.drain_file(colour).exists() is False]
        answers = [answer for address in ready if (answer := try_request(address, self.path))]
        self.send_response(answers[0].status if answers else 502)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_words: object) -> None:
        return


@pytest.fixture
def door(state: State) -> Iterator[dict[str, Any]]:
    """Where the service is asked, as the module takes it."""
    Door.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("OwnDoor", (Door,), {"state": state})) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        yield {"address": f"127.0.0.1:{server.server_port}"}
        server.shutdown()


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("breaks", "it got ready, but breaks a promise: it is promised: GET /promised: status is 404, not 200"),
        ("breaks later", "it took over, and breaks a promise: it is promised: GET /promised: status is 404, not 200"),
    ],
    ids=["on trial", "once it serves"],
)
def test_a_release_that_breaks_a_promise_gives_way(
    state: State, door: dict[str, Any], behaviour: str, words: str
) -> None:
    deploy(state, promising(make_workload(state, A)), reverse_proxy=door)
    before = serving(state)
    broken = promising(make_workload(state, B, TINY_BEHAVIOUR=behaviour))
    assert words in deploy(state, broken, reverse_proxy=door).message
    assert serving(state) == before, "the very process that served before"
    assert outcomes(state)[-1] == (broken["release"], "failed")
    assert not state.daemon("green").process()


def test_a_reverse_proxy_is_asked_what_it_kept_only_if_somebody_answered(state: State, door: dict[str, Any]) -> None:
    """One without anybody behind it holds each question for a while: 18 s of a first deployment."""
    assert deploy(state, promising(make_workload(state, A)), reverse_proxy=door)["action"] == "deployed"
    assert Door.asked == []
    assert deploy(state, promising(make_workload(state, B)), reverse_proxy=door)["action"] == "deployed"
    assert "/promised" in Door.asked


def test_what_was_broken_before_is_no_fault_of_the_new_release(state: State, door: dict[str, Any]) -> None:
    deploy(state, make_workload(state, A, TINY_BEHAVIOUR="breaks later"), reverse_proxy=door)
    assert deploy(state, promising(make_workload(state, B, TINY_BEHAVIOUR="breaks later")), reverse_proxy=door).changed
