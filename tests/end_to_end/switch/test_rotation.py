"""P3, P6: secrets are rotated under load without a dropped request, also where a run is cut off, and none is shown."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.end_to_end.load.open_loop import BackgroundLoad
from tests.end_to_end.switch.site import HOSTS, KUBERNETES, RUN_SECONDS, KubernetesSite
from tests.end_to_end.switch.test_interruption import chosen, kill_when
from tests.secret_scan import MARK, RUN, Watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.end_to_end.switch.site import Site

# TESTS_ROTATIONS and TESTS_SWITCH_RATE say how many instead; full measure is 20 rotations at 200 requests a second.
ROTATIONS = int(os.environ.get("TESTS_ROTATIONS", "1"))
REQUESTS_PER_SECOND = float(os.environ.get("TESTS_SWITCH_RATE", "20"))
LOAD_SECONDS = 900
ROTATE = ("--tags", "rotate", "-e")
DATABASE = (*ROTATE, json.dumps({"titanic_rotate": ["database"]}))
LOGINS = (
    "SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles WHERE rolname LIKE 'titanic_app%' AND rolcanlogin"
)
SIGNED_IN = "SELECT string_agg(DISTINCT usename, ' ') FROM pg_stat_activity WHERE usename LIKE 'titanic_app%'"


def rotation(site: Site) -> dict[str, Any]:
    """What rotations have come to on a site."""
    if isinstance(site, KubernetesSite):
        (found,) = site.get("secret", "titanic-secrets")
        text = base64.b64decode(found["data"].get(".rotation", "")).decode()
    else:
        path = site.state / "rotation.json"
        text = path.read_text() if path.is_file() else ""
    known: dict[str, Any] = json.loads(text or '{"login": "", "unfinished": {}}')
    return known


def has_one_new_login(site: Site, before: str) -> bool:
    """Whether one login alone is good, another one than before, and everybody has it."""
    record = rotation(site)
    login = f"titanic_app{record['login']}"
    assert (record["unfinished"], site.administer(LOGINS)) == ({}, login)
    assert site.administer(SIGNED_IN) in ("", login)
    return login != before


@HOSTS
def test_rotations_drop_nothing_and_one_that_is_cut_off_is_ended_by_the_next_run(site: Site) -> None:
    site.succeed()  # what the test before released may be another source than that of the checkout
    release, people = site.release(), site.rows()
    plan = site.load(rate=REQUESTS_PER_SECOND, seconds=LOAD_SECONDS, post_share=0.2, new_connection_share=0.5)
    with BackgroundLoad(plan) as load:
        for number in range(ROTATIONS):
            before, began = site.administer(LOGINS), time.monotonic()
            output = site.succeed(*DATABASE)
            print(f"{site.provider}: rotation {number + 1} took {time.monotonic() - began:.1f} s", flush=True)
            assert f"release {release} serves with the new secrets" in output
            assert has_one_new_login(site, before)
        for left in reversed(range(len(chosen(site, [lambda: True, *site.switching()])))):
            before = f"titanic_app{rotation(site)['login']}"
            stages = [lambda: bool(rotation(site)["unfinished"]), *site.switching()]
            how = signal.SIGINT if left % 2 else signal.SIGKILL
            kill_when(chosen(site, stages)[-1 - left], site.start(*DATABASE), how, whole_tree=left % 2 == 0)
            if left == 1 and rotation(site)["unfinished"]:
                assert "half done: database since" in site.succeed("--tags", "status")
                assert "rotation: database: is half done" in site.refuse("--tags", "drift")
            # By turns a rotation and a run of the site.
            site.succeed(*(DATABASE if left % 2 else ()))
            assert has_one_new_login(site, before)
        assert load.running, "the load ended before what it was for"
    print(f"{site.provider}, {load.report.rate:g} a second: {load.report.summary()}", flush=True)
    assert load.report.clean, f"{load.report.summary()}\n{load.report.failures[:10]}"
    assert load.report.acknowledged > 0
    assert site.rows() == people + load.report.acknowledged
    assert site.release() == release
    assert site.changed(site.succeed()) == 0, "nothing is left for the next run"


def holding(site: Site) -> Iterator[Path]:
    """The files of a host that hold a planted secret, besides those that are for secrets."""
    for path in site.state.rglob("*"):
        if "secrets" not in path.relative_to(site.state).parts:
            with suppress(OSError):
                if path.is_file() and MARK in path.read_bytes():
                    yield path


@HOSTS
def test_tokens_overlap_and_no_rotation_shows_a_secret(site: Site, tmp_path: Path) -> None:
    def status(token: str) -> int:
        headers = {"Authorization": f"Bearer {RUN}{token}"}
        return site.ask("/people/00000000-0000-0000-0000-000000000000", "DELETE", headers=headers)[0]

    def given(name: str, **values: Any) -> tuple[str, str]:
        path = tmp_path / name
        path.write_text(json.dumps({"titanic_api_write_tokens": [f"{RUN}{name}"], **values}))
        return "-e", f"@{path}"

    seconds = 25 if site.provider == "kubernetes" else 15
    how = {"titanic_rotate": ["database", "superuser", "tokens"], "titanic_secrets_overlap_seconds": seconds}
    passwords = {name: f"{RUN}{name}" for name in ("database_app_password", "database_owner_password")}
    watch = Watch()
    try:
        site.succeed(*given("old"))
        assert [status(token) for token in ("old", "new")] == [404, 401]
        refused = site.refuse("--tags", "rotate", *given("old", **how))
        assert "titanic_api_write_tokens: these are the ones in use. Give the new ones." in refused
        new = given("new", **how, titanic_secrets_values=passwords)
        watch.start()
        with BackgroundLoad(site.load(rate=REQUESTS_PER_SECOND, seconds=RUN_SECONDS, post_share=0)) as load:
            output = site.succeed("--tags", "rotate", *new, "-vvv", "--diff")
        assert load.report.clean, load.report.summary()
        assert status("new") == 404
        deadline = time.monotonic() + seconds + 5
        while status("old") != 401:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert site.changed(site.succeed(*new)) == 0, "what was given once stays"
    finally:
        watch.done.set()
        site.succeed()
    watch.join()
    assert watch.found == set()
    for text in (output, site.logs(), json.dumps(site.ledger())):
        assert RUN not in text
    assert list(holding(site)) == []


@KUBERNETES
def test_elsewhere_a_rotation_is_refused(site: Site) -> None:
    output = site.refuse(*DATABASE)
    assert "Refused before anything was touched" in output
    assert f"on titanic_provider local and compose only, not yet on {site.provider}." in output
    assert rotation(site) == {"login": "", "unfinished": {}}
