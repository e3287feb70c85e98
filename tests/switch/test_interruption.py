"""Runs that are killed, crowded or starved: the old release serves on, and the next run converges."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.switch.conftest import Site

# Where the first run is killed: what shows that a stage is at work. The runs before have not come as far. (A task's
# name is of no use: it is printed together with its result.)
POINTS: list[Callable[[Site], bool]] = [
    lambda site: any(site.state.glob("images/*")),
    lambda site: any(site.state.glob("tools/*")),
    lambda site: any(site.state.glob("database/*")),
    lambda site: site.executes("titanic-api migrate"),
    lambda site: site.executes("titanic-api seed"),
    lambda site: (site.state / "Caddyfile").exists(),
    lambda site: any(site.state.glob("run/blue.json")),
    lambda site: [entry["outcome"] for entry in site.ledger()][-1:] == ["succeeded"],
]
RUNS_AT_ONCE = 10
# Twice what is promised, since other tests may run beside this one.
ANSWER_SECONDS = 4


def kill_when(begun: Callable[[], bool], process: subprocess.Popen[str], how: int, *, whole_group: bool) -> None:
    """End a run once its work has ``begun``; ``whole_group`` takes its children along, as a lost machine does."""
    with process:
        assert process.stdout
        while not begun():
            assert process.poll() is None, f"the run ended before that\n{process.stdout.read()}"
            time.sleep(0.002)
        if whole_group:
            os.killpg(process.pid, how)
        else:
            process.send_signal(how)
        process.stdout.read()
        process.wait(timeout=60)


def test_killed_at_every_stage_of_the_first_run_the_next_one_goes_on(empty_site: Site) -> None:
    for number, point in enumerate(POINTS):
        begun = partial(point, empty_site)
        kill_when(begun, empty_site.start(), signal.SIGKILL, whole_group=number % 2 == 0)
    output = empty_site.succeed()
    assert "took the deploy lock over from" in output, output
    assert empty_site.rows() == 887
    assert empty_site.changed(empty_site.succeed()) == 0
    assert not any(entry["outcome"] == "started" for entry in empty_site.ledger())


def test_a_release_interrupted_anywhere_leaves_the_old_one_serving(site: Site) -> None:
    rows = site.rows()
    run = site.state / "run"
    points: list[Callable[[str, str], bool]] = [
        lambda _old, new: (run / f"{new}.json").exists(),
        lambda _old, new: (run / f"{new}.sock").exists(),
        lambda old, _new: (run / f"{old}.drain").exists(),
        lambda old, _new: not (run / f"{old}.json").exists(),
    ]
    for number, point in enumerate(points):
        site.change_service(f"# interrupted {number}")
        colours = (site.colour(), "green" if site.colour() == "blue" else "blue")
        how = signal.SIGINT if number == 1 else signal.SIGKILL
        begun = partial(point, *colours)
        kill_when(begun, site.start("--tags", "api"), how, whole_group=number % 2 == 0)
        assert site.rows() == rows
        site.succeed("--tags", "api")
        assert site.rows() == rows
    assert site.changed(site.succeed()) == 0
    outcomes = [entry["outcome"] for entry in site.ledger()]
    assert outcomes[-1] == "succeeded"
    assert "started" not in outcomes


def test_ten_runs_at_once_end_in_one_deployment(empty_site: Site) -> None:
    with concurrent.futures.ThreadPoolExecutor(RUNS_AT_ONCE) as runs:
        results = list(runs.map(lambda _: empty_site.run(), range(RUNS_AT_ONCE)))
    won = [output for status, output in results if status == 0]
    lost = [output for status, output in results if status != 0]
    assert won
    for output in lost:
        assert re.search(r"another run holds the deploy lock: \S+@\S+ \(process \d+, since", output), output
    assert empty_site.changed(empty_site.succeed()) == 0
    assert empty_site.rows() == 887


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; sys.exit('broken on purpose')", "ended at once|could not be built"),
        (
            "import os\nif os.environ.get('TITANIC_BIND'):\n    import time; time.sleep(3600)",
            "did not answer 200 within",
        ),
    ],
    ids=["exits at once", "never ready"],
)
def test_a_bad_release_never_gets_traffic(site: Site, code: str, words: str) -> None:
    site.succeed()
    rows = site.rows()
    before = site.release()
    package = site.context / "src" / "titanic_api" / "__init__.py"
    good = package.read_text()
    site.change_service(code)
    output = site.refuse("-e", "titanic_api_ready_seconds=4")
    assert re.search(words, output), output
    assert site.release() == before
    assert site.rows() == rows
    package.write_text(good)
    assert site.changed(site.succeed()) == 0
    assert site.release() == before


def test_a_failing_migration_leaves_the_old_release_serving(site: Site) -> None:
    rows = site.rows()
    before = site.release()
    versions = site.context / "src" / "titanic_api" / "migrations" / "versions"
    newest = max(versions.glob("[0-9]*.py"))
    number = int(newest.name[:4]) + 1
    text = newest.read_text()
    text = re.sub(r"^revision: .*$", f'revision: str = "{number:04}"', text, flags=re.MULTILINE)
    text = re.sub(r"^down_revision: .*$", f'down_revision: str | None = "{number - 1:04}"', text, flags=re.MULTILINE)
    text = text[: text.index("def upgrade")] + ('def upgrade() -> None:\n    op.execute("SELECT 1 / 0")\n')
    (versions / f"{number:04}_broken.py").write_text(text)
    output = site.refuse()
    assert "division by zero" in output
    assert site.release() == before
    assert site.rows() == rows


def test_killed_postgresql_answers_503_and_comes_back_without_losing_a_write(site: Site) -> None:
    rows = site.rows()
    person = {
        "survived": True,
        "passengerClass": 1,
        "name": "Mrs. Written Before",
        "sex": "female",
        "siblingsOrSpousesAboard": 0,
        "parentsOrChildrenAboard": 0,
        "fare": 1.0,
    }
    written = []
    for _ in range(20):
        status, body = site.ask("/people", "POST", person)
        assert status == 201
        written.append(body["uuid"])
    site.kill("postgresql")
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(urllib.error.HTTPError) as answer:
            urllib.request.urlopen(site.url + "/people", timeout=15)
        took = time.monotonic() - began
        with answer.value as error:
            assert (error.code, error.headers["Content-Type"]) == (503, "application/problem+json")
            assert int(error.headers["Retry-After"]) >= 1
            assert json.load(error)["status"] == 503
        assert took < ANSWER_SECONDS
    output = site.succeed()
    assert "changed=1 " in output, output
    for uuid in written:
        assert site.ask(f"/people/{uuid}")[0] == 200
    assert site.rows() == rows + len(written)


def test_every_killed_process_is_started_again_by_the_next_run(site: Site) -> None:
    rows = site.rows()
    for name in ("caddy", site.colour()):
        site.kill(name)
        site.succeed()
        assert site.rows() == rows
    assert site.changed(site.succeed()) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk can be made by root only")
def test_a_full_disk_is_named_and_survived(empty_site: Site) -> None:
    empty_site.state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700m,mode=755", "tmpfs", empty_site.state], check=True)
    try:
        empty_site.succeed()
        ballast = empty_site.state / ".ballast"
        free = os.statvfs(empty_site.state)
        with ballast.open("wb") as stream:
            stream.truncate(0)
            os.posix_fallocate(stream.fileno(), 0, (free.f_bavail - 200) * free.f_frsize)
        before = empty_site.release()
        empty_site.change_service("# does not fit")
        refused = empty_site.refuse()
        assert "titanic_guard_free_mebibytes" in refused
        full = empty_site.refuse("-e", "titanic_guard_free_mebibytes=0")
        assert "No space left on device" in full or "os error 28" in full, full
        assert empty_site.release() == before
        ballast.unlink()
        empty_site.succeed("-e", "titanic_guard_free_mebibytes=10")
        assert empty_site.release() != before
    finally:
        empty_site.run("--tags", "teardown", "-e", "titanic_confirm_teardown=true")
        subprocess.run(["umount", "-l", empty_site.state], check=False)
        Path(empty_site.state).rmdir()
