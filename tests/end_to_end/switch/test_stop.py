"""A deployment that is stopped keeps everything, and is started again as it was."""

from __future__ import annotations

import concurrent.futures
import socket
import time

from tests.end_to_end.switch.site import LOCAL, HostSite, KubernetesSite, Site
from tests.end_to_end.switch.test_interruption import HALF_A_WRITE, THE_OTHER_HALF, Writers

WRITERS = 3
STOPPED = "stopped: 'since"


def test_a_stop_loses_no_acknowledged_write_and_a_start_has_all_as_it_was(site: Site) -> None:
    """Under writers, one of whom is slow."""
    site.wait_until_it_answers(60, times=40)  # a test before may have killed a pod, which others still know
    rows, release, entries = site.rows(), site.release(), site.ledger()
    writers = Writers(site)
    with concurrent.futures.ThreadPoolExecutor(WRITERS + 1) as pool:
        writing = [pool.submit(writers.write) for _ in range(WRITERS)]
        try:
            slow = None if isinstance(site, KubernetesSite) else pool.submit(answer_to_half_a_write, site)
            time.sleep(1)
            output = site.succeed("--tags", "stop")
            assert site.changed(output) == 1
            assert "--tags start (make start) starts it again" in output
            assert slow is None or slow.result(timeout=60).startswith(b"HTTP/1.1 422"), "it was let finish"
            assert site.ask("/people")[0] in {0, 502, 503}
            if site.provider == "local":
                the_stop_is_told_and_kept(site)
            output = site.succeed("--tags", "start")
            assert site.changed(output) == 1
            assert f"release {release} was not running and serves again" in output
        finally:
            writers.done.set()
        for writer in writing:
            writer.result(timeout=60)
    assert writers.repeated, "no write met the stop"
    people = site.ask("/people")[1]
    assert set(writers.acknowledged.values()) <= {person["uuid"] for person in people}, "an acknowledged write was lost"
    assert len(people) == rows + len(writers.acknowledged), "a write was doubled"
    assert (site.release(), site.ledger()) == (release, entries)


def the_stop_is_told_and_kept(site: Site) -> None:
    """What says so is the same everywhere; what it looks at, integration tests ask."""
    assert site.changed(site.succeed("--tags", "stop")) == 0
    assert STOPPED in site.succeed("--tags", "status")
    assert "the deployment is stopped since" in site.refuse("--tags", "rollback")
    assert "is stopped: --tags start" in site.refuse("--tags", "drift")


def answer_to_half_a_write(site: Site) -> bytes:
    """What a client is answered whose request has begun before the stop and ends within it."""
    with socket.create_connection(("127.0.0.1", site.port), timeout=60) as writer:
        writer.sendall(HALF_A_WRITE)
        deadline = time.monotonic() + 60
        # The reverse proxy takes no new connections from here on.
        while site.ask("/healthz")[0] and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)
        writer.sendall(THE_OTHER_HALF)
        return b"".join(iter(lambda: writer.recv(65536), b""))


@LOCAL
def test_what_ends_by_itself_on_a_machine_is_started_again(host: HostSite) -> None:
    """As an engine and a cluster do; the next run finds nothing to do, and a run that ends it finds it gone."""
    host.settings["titanic_api_supervised"] = True
    try:
        assert host.changed(host.succeed("--tags", "api")) == 1
        rows = host.rows()
        for part in ("database", "proxy", host.colour()):
            host.kill(part)
        host.wait_until_it_answers(60)
        assert host.rows() == rows
        eventually_serves(host)
        assert host.changed(host.succeed()) == 0
    finally:
        host.settings["titanic_api_supervised"] = False
        assert host.changed(host.succeed("--tags", "api")) == 1
    assert "supervisor: stopped" in host.succeed("--tags", "status")


def eventually_serves(host: HostSite) -> None:
    """Return once the database takes writes."""
    deadline = time.monotonic() + 60
    while host.ask("/readyz")[0] != 200:
        assert time.monotonic() < deadline, host.logs()
        time.sleep(0.2)
