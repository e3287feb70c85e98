"""P3 and P6: secrets are rotated under load without a dropped request, and a rotation that is cut off is ended."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.end_to_end.load.open_loop import BackgroundLoad
from tests.end_to_end.switch.site import LIMITED, LOCAL, RUN_SECONDS, KubernetesSite
from tests.end_to_end.switch.test_interruption import chosen, kill_when
from tests.secret_scan import MARK, RUN, Watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.end_to_end.switch.site import Site

# TESTS_ROTATIONS and TESTS_SWITCH_RATE say how many instead; full measure is 20 rotations at 200 requests a second.
ROTATIONS = int(os.environ.get("TESTS_ROTATIONS", "2"))
REQUESTS_PER_SECOND = float(os.environ.get("TESTS_SWITCH_RATE", "20"))
DATABASE = ("--tags", "rotate", "-e", json.dumps({"titanic_rotate": ["database"]}))
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


@LOCAL
def test_rotations_under_load_drop_nothing(site: Site) -> None:
    release, people = site.release(), site.rows()
    plan = site.load(rate=REQUESTS_PER_SECOND, seconds=RUN_SECONDS, post_share=0.2, new_connection_share=0.5)
    with BackgroundLoad(plan) as load:
        for number in range(ROTATIONS):
            before, began = site.administer(LOGINS), time.monotonic()
            output = site.succeed(*DATABASE)
            print(f"{site.provider}: rotation {number + 1} took {time.monotonic() - began:.1f} s", flush=True)
            assert f"release {release} serves with the new secrets" in output
            after = site.administer(LOGINS)
            assert after in ("titanic_app_a", "titanic_app_b"), "one login alone is good"
            assert after != before
            assert site.administer(SIGNED_IN) in ("", after)
    print(f"{site.provider}, {load.report.rate:g} a second: {load.report.summary()}", flush=True)
    assert load.report.clean, f"{load.report.summary()}\n{load.report.failures[:10]}"
    assert load.report.acknowledged > 0
    assert site.rows() == people + load.report.acknowledged
    assert site.release() == release
    assert site.changed(site.succeed()) == 0, "nothing is left for the next run"


@LOCAL
def test_a_rotation_cut_off_anywhere_is_ended_by_the_next_run(site: Site) -> None:
    rows = site.rows()
    with BackgroundLoad(site.load(rate=10, seconds=RUN_SECONDS, post_share=0)) as load:
        for left in reversed(range(len(chosen(site, [lambda: True, *site.switching()])))):
            record = rotation(site)
            stages = [lambda: bool(rotation(site)["unfinished"]), *site.switching()]
            begun = chosen(site, stages)[-1 - left]
            how = signal.SIGINT if left % 2 else signal.SIGKILL
            kill_when(begun, site.start(*DATABASE), how, whole_tree=left % 2 == 0)
            assert site.rows() == rows
            if rotation(site)["unfinished"]:
                assert "half done: database since" in site.succeed("--tags", "status")
                assert "rotation: database: is half done" in site.refuse("--tags", "drift")
            # By turns a rotation and a run of the site.
            site.succeed(*(DATABASE if left % 2 else ()))
            assert rotation(site)["unfinished"] == {}
            assert rotation(site)["login"] != record["login"]
            assert site.administer(LOGINS) == f"titanic_app{rotation(site)['login']}"
    assert load.report.clean, load.report.summary()
    assert site.rows() == rows
    assert site.changed(site.succeed()) == 0


@LOCAL
def test_a_rotation_shows_no_secret(site: Site, tmp_path: Path) -> None:
    given = {name: f"{RUN}{name}" for name in ("database_app_password", "database_owner_password")}
    vault = tmp_path / "vault.json"
    vault.write_text(json.dumps({"titanic_secrets_values": given, "titanic_rotate": ["database", "superuser"]}))
    watch = Watch()
    watch.start()
    output = site.succeed("--tags", "rotate", "-e", f"@{vault}", "-vvv", "--diff")
    watch.done.set()
    watch.join()
    assert watch.found == set()
    assert RUN not in output
    assert RUN not in site.logs()
    assert RUN not in json.dumps(site.ledger())
    assert list(holding(site)) == []
    assert site.changed(site.succeed()) == 0, "what was given once stays"


def holding(site: Site) -> Iterator[Path]:
    """The files of a host that hold a planted secret, besides those that are for secrets."""
    for path in site.state.rglob("*"):
        if "secrets" not in path.relative_to(site.state).parts:
            with suppress(OSError):
                if path.is_file() and MARK in path.read_bytes():
                    yield path


@LOCAL
@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        ([], "titanic_rotate: no secret is named"),
        (["databse"], "titanic_rotate: "),
        (["tokens"], "titanic_rotate: tokens: there are none"),
        (["tls"], "titanic_rotate: tls: it would drop connections yet"),
        (["backup_key"], "titanic_rotate: backup_key: one key is kept"),
    ],
)
def test_what_cannot_be_rotated_is_refused_by_name(site: Site, kinds: list[str], words: str) -> None:
    before = rotation(site)
    output = site.refuse("--tags", "rotate", "-e", json.dumps({"titanic_rotate": kinds}))
    assert "Refused before anything was touched" in output
    assert words in output
    assert rotation(site) == before


@LIMITED
def test_elsewhere_a_rotation_is_refused(site: Site) -> None:
    output = site.refuse(*DATABASE)
    assert "Refused before anything was touched" in output
    assert f"on titanic_provider local only, until titanic_rotate serves {site.provider}" in output
    assert rotation(site) == {"login": "", "unfinished": {}}


@LOCAL
def test_old_tokens_are_refused_once_the_overlap_is_over(site: Site) -> None:
    def status(token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return site.ask("/people/00000000-0000-0000-0000-000000000000", "DELETE", headers=headers)[0]

    def given(*tokens: str) -> str:
        return json.dumps({"titanic_api_write_tokens": tokens})

    seconds = 25 if site.provider == "kubernetes" else 15
    rotate = json.dumps({"titanic_rotate": ["tokens"], "titanic_secrets_overlap_seconds": seconds})
    try:
        site.succeed("-e", given("planted-old"))
        assert [status(token) for token in ("planted-old", "planted-new")] == [404, 401]
        refused = site.refuse("--tags", "rotate", "-e", rotate, "-e", given("planted-old"))
        assert "titanic_api_write_tokens: these are the ones in use. Give the new ones." in refused
        site.succeed("--tags", "rotate", "-e", rotate, "-e", given("planted-new"))
        assert status("planted-new") == 404
        deadline = time.monotonic() + seconds + 5
        while status("planted-old") != 401:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert site.changed(site.succeed("-e", given("planted-new"))) == 0
    finally:
        site.succeed()
