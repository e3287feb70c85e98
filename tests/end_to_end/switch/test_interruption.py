"""Runs that are killed, crowded or starved: the old release serves on, and the next run converges."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.deployment import CONFIRMED
from tests.end_to_end.load.open_loop import BackgroundLoad
from tests.end_to_end.switch.site import (
    COMPOSE,
    HOSTS,
    KUBERNETES,
    LOCAL,
    PERSON,
    REGISTRY,
    RUN_SECONDS,
    copy_service,
)

if TYPE_CHECKING:
    from tests.end_to_end.switch.site import ComposeSite, HostSite, KubernetesSite, Site

RUNS_AT_ONCE = 4
# Twice what is promised, for the quickest of three: other tests may run beside this one, and the machine has its
# pauses. What hangs takes 15 seconds and more.
ANSWER_SECONDS = 4
SERVING_AGAIN_SECONDS = 60
KILLS = int(os.environ.get("TESTS_DATABASE_KILLS", "3"))
WRITERS = 4
# Short beside a stage.
POLL_SECONDS = 0.02


def tree(pid: int) -> list[int]:
    """A process and all that it has started, and these have."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it has ended
        return []
    return [pid, *(below for child in children for below in tree(child))]


def kill_when(begun: Callable[[], bool], process: subprocess.Popen[str], how: int, *, whole_tree: bool) -> None:
    """End a run once its work has ``begun``; ``whole_tree`` takes along all that it has started."""
    with process:
        assert process.stdout
        while True:
            looked = time.monotonic()
            if begun():
                break
            assert process.poll() is None, f"the run ended before that\n{process.stdout.read()}"
            # Every process, or a cluster, is looked at less often than a file.
            time.sleep(max(POLL_SECONDS, 2 * (time.monotonic() - looked)))
        for pid in tree(process.pid) if whole_tree else [process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, how)
        process.stdout.read()
        process.wait(timeout=60)


def chosen(site: Site, stages: list[Callable[[], bool]]) -> list[Callable[[], bool]]:
    """The stages at which runs are killed: every other one, every third with containers, or all where that is set."""
    some = stages[::2] if site.provider == "local" else stages[1::3]
    return stages if os.environ.get("TESTS_SWITCH_ALL") else some


def test_killed_at_every_stage_of_the_first_run_the_next_one_goes_on(empty_site: Site) -> None:
    """So does one of several that are begun at once, where processes show that; the others say who has the lock."""
    # What shows that a stage is at work, for which the runs before have not come as far. (A task's name is of no use:
    # it is printed together with its result.)
    for number, begun in enumerate(chosen(empty_site, empty_site.stages())):
        how = signal.SIGINT if number % 3 == 1 else signal.SIGKILL
        kill_when(begun, empty_site.start(), how, whole_tree=number % 2 == 0)
    at_once = RUNS_AT_ONCE if empty_site.provider == "local" else 1
    with concurrent.futures.ThreadPoolExecutor(at_once) as runs:
        results = list(runs.map(lambda _: empty_site.run(), range(at_once)))
    assert any("took the deploy lock over from" in output for status, output in results if status == 0), results
    for status, output in results:
        assert status == 0 or re.search(r"another run holds the deploy lock: \S+@\S+ \(process \d+, since", output), (
            output
        )
    assert empty_site.rows() == 887
    assert empty_site.changed(empty_site.succeed()) == 0
    assert not any(entry["outcome"] == "started" for entry in empty_site.ledger())


def test_a_release_interrupted_anywhere_leaves_the_old_one_serving(site: Site) -> None:
    rows = site.rows()
    with BackgroundLoad(site.load(rate=10, seconds=RUN_SECONDS, post_share=0)) as load:
        for left in reversed(range(len(chosen(site, site.switching())))):
            site.change_service(f"# interrupted {left}")
            begun = chosen(site, site.switching())[-1 - left]
            # By turns with all that it has started, a release that serves already among it, unless that is on its own.
            how = signal.SIGINT if left % 2 else signal.SIGKILL
            kill_when(begun, site.start("--tags", "api"), how, whole_tree=left % 2 == 0)
            assert site.rows() == rows
            site.succeed("--tags", "api")
    assert load.report.clean, load.report.summary()
    assert site.rows() == rows
    assert site.changed(site.succeed()) == 0
    outcomes = [entry["outcome"] for entry in site.ledger()]
    assert outcomes[-1] == "succeeded"
    assert "started" not in outcomes


EXIT = "import sys; sys.exit('broken on purpose')"
# A release that gets ready, and then does this when it is asked for one path.
AT_PATH = """
sound = create_app
def create_app(settings):
    app = sound(settings)
    inner = app.wsgi_app
    def unsound(environ, start_response):
        if environ["PATH_INFO"] == "{path}":
            {code}
        return inner(environ, start_response)
    app.wsgi_app = unsound
    return app
"""
# One that keeps its promises while it is on trial, where its drain file is there, or in a pod of its own.
BREAKS_A_PROMISE = "import os\n" + AT_PATH.format(
    path="/openapi.json",
    code="""
            if not os.path.exists(os.environ.get("TITANIC_DRAIN_FILE", "")) and "-trial-" not in os.uname().nodename:
                start_response("404 Not Found", [])
                return []
""".strip(),
)


def when_it_serves(code: str) -> str:
    """Code that runs in the server only, not in commands of the release such as the one that describes it."""
    return f"import os\nif os.environ.get('TITANIC_BIND'):\n    {code}"


# A release that will never be ready is waited for no longer; one that ends must have the time to do so.
NEVER_READY = ["-e", "titanic_api_ready_seconds=8"]
# As a host has it, which asks itself, and a cluster, whose kubelet asks.
NOT_READY = "did not (answer 200|get ready) within"


def assert_it_never_serves(site: Site, words: str, *arguments: str, told: str, tags: str = "secrets,api") -> str:
    """A run of the changed service is refused with these words, and what served before answers every request.

    The failure report, which is returned, tells why.
    """
    rows, before, attempts = site.rows(), site.release(), len(site.ledger())
    with BackgroundLoad(site.load(rate=20, seconds=RUN_SECONDS, post_share=0)) as load:
        output = site.refuse("--tags", tags, *arguments)
    assert re.search(words, output), output
    assert load.report.clean, load.report.summary()
    assert len(site.ledger()) == attempts + 1
    failure_report = site.failure_report(output)
    assert re.search(told, failure_report), failure_report
    assert site.release() == before
    assert site.rows() == rows
    shutil.rmtree(site.context)
    copy_service(site.context)
    return failure_report


def serve_the_source(site: Site) -> None:
    """Have the service as it is in the checkout serve, whatever the tests before have left."""
    if site.release() != site.sound:
        site.succeed("--tags", "api")


@pytest.mark.parametrize(
    ("code", "module", "words", "told"),
    [
        pytest.param(
            EXIT,
            "__init__",
            "could not be built",
            "broken on purpose",
            id="cannot be built",
            marks=pytest.mark.shown_once,
        ),
        pytest.param(
            when_it_serves(EXIT),
            "__init__",
            "ended at once",
            "broken on purpose",
            id="exits at once",
            marks=pytest.mark.shown_once("local", "kubernetes"),
        ),
        pytest.param(
            BREAKS_A_PROMISE,
            "app",
            "it took over, and breaks a promise: the document is there: GET /openapi.json: status is 404",
            "/people.limit=20 200",
            id="breaks a promise once it serves",
            marks=pytest.mark.shown_once("compose"),
        ),
    ],
)
def test_a_bad_release_never_gets_traffic(site: Site, code: str, module: str, words: str, told: str) -> None:
    """Other kinds: tests/integration/{host,docker,kubernetes} of the collection have them with a tiny release."""
    site.change_service(code, module)
    assert_it_never_serves(site, words, told=told)


@pytest.mark.shown_once("compose")
def test_a_release_with_a_wrong_secret_never_gets_traffic(site: Site) -> None:
    wrong = {"titanic_secrets_values": {"database_app_password": "not what the database knows"}}
    told = "password authentication failed"
    arguments = [*NEVER_READY, "-e", json.dumps(wrong)]
    failure_report = assert_it_never_serves(site, NOT_READY, *arguments, told=told)
    assert "not what the database knows" not in failure_report
    site.succeed()  # a whole run lets the database know it


@pytest.mark.shown_once
def test_a_setting_that_the_release_has_not_is_refused_before_anything_is_changed(site: Site) -> None:
    before = site.ledger()
    refused = site.refuse("-e", json.dumps({"titanic_api_environment": {"TITANIC_POOL_SISE": 4}}))
    told = "titanic_api_environment: TITANIC_POOL_SISE is no setting of this release. Did you mean TITANIC_POOL_SIZE?"
    assert told in " ".join(refused.split())
    refused = site.refuse("-e", json.dumps({"titanic_api_environment": {"TITANIC_POOL_SIZE": "four"}}))
    told = "titanic_api_environment: TITANIC_POOL_SIZE must be 1 to 64 connections, not 'four'"
    assert told in " ".join(refused.split())
    assert site.ledger() == before


@KUBERNETES
def test_a_release_that_runs_out_of_memory_never_gets_traffic(site: Site) -> None:
    site.change_service(when_it_serves("BALLAST = b'x' * (1 << 30)"))
    assert_it_never_serves(site, "ran out of memory", told=r'ran out of memory[\s\S]*"memory": "256Mi"')


@KUBERNETES
@pytest.mark.shown_once("kubernetes")
def test_a_release_whose_image_cannot_be_pulled_never_gets_traffic(site: Site) -> None:
    image = f"{REGISTRY}/titanic/missing:1"
    template = {"spec": {"containers": [{"name": "api", "image": image}]}}
    missing = {"titanic_api_kubernetes_overrides": {"Deployment": {"spec": {"template": template}}}}
    words = f"its image {image} cannot be pulled"
    assert_it_never_serves(site, words, "-e", json.dumps(missing), told=f'Failed to pull image "{image}"')


@COMPOSE
@pytest.mark.shown_once("compose")
def test_a_release_without_its_base_image_never_gets_traffic(containers: ComposeSite) -> None:
    image = "127.0.0.1:1/titanic/missing:1"
    missing = json.dumps({"titanic_image_build_arguments": {"PYTHON_IMAGE": image}})
    assert_it_never_serves(containers, "could not be built", "-e", missing, told=f"{image}: failed to resolve")


@pytest.mark.shown_once
def test_a_release_whose_migration_fails_never_gets_traffic(site: Site) -> None:
    versions = site.context / "src" / "titanic_api" / "migrations" / "versions"
    newest = max(versions.glob("[0-9]*.py"))
    number = int(newest.name[:4]) + 1
    text = newest.read_text()
    text = re.sub(r"^revision: .*$", f'revision: str = "{number:04}"', text, flags=re.MULTILINE)
    text = re.sub(r"^down_revision: .*$", f'down_revision: str | None = "{number - 1:04}"', text, flags=re.MULTILINE)
    text = text[: text.index("def upgrade")] + ('def upgrade() -> None:\n    op.execute("SELECT 1 / 0")\n')
    (versions / f"{number:04}_broken.py").write_text(text)
    told = "a migration failed and was undone: division by zero"
    failure_report = assert_it_never_serves(site, "division by zero", told=told, tags="all")
    if site.provider != "kubernetes":  # whose Job has no second one beside it
        assert f'"from": "{number - 1:04}"' in failure_report, "the revision before"
    assert "STATEMENT:  SELECT 1 / 0" in failure_report, "the database's own words"
    assert site.ledger()[-1]["schema_required"] == f"{number:04}"


def quickest(work: Callable[[], None]) -> float:
    """How many seconds the quickest of three times took."""
    took = []
    for _ in range(3):
        began = time.monotonic()
        work()
        took.append(time.monotonic() - began)
    return min(took)


@HOSTS
@pytest.mark.shown_once
def test_killed_postgresql_answers_503_and_comes_back_without_losing_a_write(host: HostSite) -> None:
    site = host
    rows = site.rows()
    written = []
    for _ in range(20):
        status, body = site.ask("/people", "POST", PERSON)
        assert status == 201
        written.append(body["uuid"])
    site.kill("database")

    def is_refused() -> None:
        with pytest.raises(urllib.error.HTTPError) as answer:
            urllib.request.urlopen(site.url + "/people", timeout=60)
        with answer.value as error:
            assert (error.code, error.headers["Content-Type"]) == (503, "application/problem+json")
            assert int(error.headers["Retry-After"]) >= 1
            assert json.load(error)["status"] == 503

    assert quickest(is_refused) < ANSWER_SECONDS
    output = site.succeed()
    assert "changed=1 " in output, output
    for identity in written:
        assert site.ask(f"/people/{identity}")[0] == 200
    assert site.rows() == rows + len(written)


@COMPOSE
def test_a_crashed_container_is_started_again_by_the_engine(containers: ComposeSite) -> None:
    serve_the_source(containers)
    rows = containers.rows()
    for name in ("proxy", containers.colour(), "database"):
        containers.crash(name)
        containers.wait_until_it_answers(SERVING_AGAIN_SECONDS)
        assert containers.rows() == rows
    assert containers.changed(containers.succeed()) == 0


class Writers:
    """Threads that write people, each under a key of its own, and again under the same key until that is acknowledged.

    ``acknowledged`` holds the uuid that each key was answered with.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.done = threading.Event()
        self.acknowledged: dict[str, str] = {}
        self.repeated = 0

    def write(self) -> None:
        while not self.done.is_set():
            key = str(uuid.uuid4())
            while (answer := self.site.ask("/people", "POST", PERSON, {"Idempotency-Key": key}))[0] != 201:
                assert answer[0] in {0, 500, 502, 503, 504}, answer
                self.repeated += 1
                time.sleep(0.05)
            self.acknowledged[key] = answer[1]["uuid"]


def assert_no_write_is_lost(site: Site, kill: Callable[[int], None], pause: float) -> Writers:
    """Kill something again and again while writers write: what was acknowledged is there, once."""
    rows = site.rows()
    writers = Writers(site)
    took = []
    with concurrent.futures.ThreadPoolExecutor(WRITERS) as pool:
        writing = [pool.submit(writers.write) for _ in range(WRITERS)]
        try:
            for number in range(KILLS):
                time.sleep(pause)
                kill(number)
                time.sleep(0.1)
                took.append(site.wait_until_it_answers(SERVING_AGAIN_SECONDS))
        finally:
            writers.done.set()
        for writer in writing:
            writer.result(timeout=60)
    written = set(writers.acknowledged.values())
    print(f"{KILLS} kills: {len(written)} writes, {writers.repeated} repeated; again after {max(took):.1f} s at most")
    assert len(written) == len(writers.acknowledged), "a uuid was given twice"
    deadline = time.monotonic() + SERVING_AGAIN_SECONDS
    # That one of several answers again does not say that whoever is in front has forgotten the one that was killed.
    while (answer := site.ask("/people"))[0] != 200:
        assert time.monotonic() < deadline, answer
        time.sleep(0.2)
    people = answer[1]
    assert written <= {person["uuid"] for person in people}, "an acknowledged write was lost"
    assert len(people) == rows + len(written), "a write was doubled"
    return writers


@COMPOSE
def test_killed_postgresql_loses_no_acknowledged_write_and_doubles_none(containers: ComposeSite) -> None:
    # The engine waits twice as long after each crash, until a container has run for ten seconds.
    writers = assert_no_write_is_lost(containers, lambda _: containers.crash("database"), 11 if KILLS > 5 else 1)
    assert writers.repeated, "no write met a kill"


@KUBERNETES
@pytest.mark.parametrize("part", ["database", "api"])
def test_killed_pods_lose_no_acknowledged_write_and_double_none(pods: KubernetesSite, part: str) -> None:
    """Processes and whole pods by turns: the second crash in the same pod would be waited for."""

    def kill(number: int) -> None:
        (pods.evict if number % 2 else pods.crash)(part)

    writers = assert_no_write_is_lost(pods, kill, 1)
    assert writers.repeated or part == "api", "no write met a kill"


HALF_A_WRITE = (
    b"POST /people HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
)
THE_OTHER_HALF = b" " * 998 + b"}"


def workers(pid: int) -> list[int]:
    """The processes below one that have none below them."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [leaf for child in children for leaf in workers(child) or [child]]


@HOSTS
def test_killed_workers_are_replaced_at_once(host: HostSite) -> None:
    site = host
    master = site.pid(site.colour())
    before = workers(master)
    assert len(before) >= 2
    with socket.create_connection(("127.0.0.1", site.port), timeout=60) as writer:
        writer.sendall(HALF_A_WRITE)
        time.sleep(1)
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        # Without it the reverse proxy waits a minute before it answers.
        writer.sendall(THE_OTHER_HALF)
        told = b"".join(iter(lambda: writer.recv(65536), b""))
    assert told.startswith(b"HTTP/1.1 503"), told
    assert b"urn:titanic:problem:outcome-unknown" in told, "he cannot know whether it was written"
    site.wait_until_it_answers(SERVING_AGAIN_SECONDS)
    assert site.pid(site.colour()) == master
    assert not set(before) & set(workers(master))


def assert_it_is_told_to_wait(site: Site) -> None:
    def is_refused() -> None:
        assert site.ask("/people")[0] == 503

    assert quickest(is_refused) < ANSWER_SECONDS


@COMPOSE
def test_a_database_that_is_cut_off_is_answered_for_and_put_back_by_the_next_run(containers: ComposeSite) -> None:
    rows = containers.rows()
    database = containers.containers("database")[0]["Id"]
    containers.engine("network", "disconnect", f"{containers.project}_data", database)
    deadline = time.monotonic() + 120
    while containers.ask("/people?limit=1")[0] != 503:
        assert time.monotonic() < deadline, "it is still asked, though it is cut off"
        time.sleep(0.2)
    assert_it_is_told_to_wait(containers)
    containers.succeed("--tags", "database,verify")
    assert containers.rows() == rows


@COMPOSE
def test_a_paused_release_is_answered_for_and_replaced_by_the_next_run(containers: ComposeSite) -> None:
    rows = containers.rows()
    paused = containers.containers(containers.colour())[0]["Id"]
    containers.engine("pause", paused)
    time.sleep(3)  # the reverse proxy has given up asking whether it is ready
    assert_it_is_told_to_wait(containers)
    containers.succeed("--tags", "api")
    assert containers.rows() == rows
    assert paused not in containers.engine.containers(containers.project)


@LOCAL
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
        assert "titanic_preflight_free_mebibytes" in refused
        full = empty_site.refuse("-e", "titanic_preflight_free_mebibytes=0")
        assert "No space left on device" in full or "os error 28" in full, full
        assert empty_site.release() == before
        ballast.unlink()
        empty_site.succeed("-e", "titanic_preflight_free_mebibytes=10")
        assert empty_site.release() != before
    finally:
        empty_site.run("--tags", "teardown", "-e", CONFIRMED)
        subprocess.run(["umount", "-l", empty_site.state], check=False)
        Path(empty_site.state).rmdir()
