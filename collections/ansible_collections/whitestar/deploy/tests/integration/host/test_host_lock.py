# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run begins on a target that can carry it and keeps others out; both ends change nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.filter.workload import run_identity
from ansible_collections.whitestar.deploy.plugins.module_utils.common.address import host_port
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import Ledger
from ansible_collections.whitestar.deploy.plugins.module_utils.release.lock import Lock, Owner
from ansible_collections.whitestar.deploy.tests.helpers import (
    Result,
    free_port,
    lock_options,
    module_environment,
    require_ipv6,
    run_module,
    spool,
    wait_for,
)

ME = run_identity("run")
OTHER = ME | {"host": "another.example", "user": "carol"}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another")


def begin(root: Path, *, check: bool = False, **options: Any) -> Result:
    given = {"owner": ME, "port": free_port(), "account": "nobody"} | options
    return run_module("host_lock", lock_options(root, **given), check=check)


def end(root: Path, *, check: bool = False, owner: dict[str, Any] = ME) -> Result:
    return run_module("host_lock", {"state_directory": str(root), "state": "absent", "owner": owner}, check=check)


def test_a_run_from_beginning_to_end(place: Path) -> None:
    root = place / "state"
    lock = Lock(root / "lock.json")
    assert not begin(root, check=True).changed
    assert not root.exists()
    first = begin(root)
    assert not first.changed
    assert (first["live"], first["live_image"], first["rollback_to"]) == ({}, "", "")
    assert lock.holder() is not None
    assert not begin(root).changed
    assert "another run holds the deploy lock" in begin(root, owner=OTHER).message
    assert not end(root, owner=OTHER).changed
    assert lock.holder() is not None
    assert not end(root, check=True).changed
    assert lock.holder() is not None
    assert not end(root).changed
    assert lock.holder() is None
    assert not end(root).changed


def test_the_owner_is_named(place: Path) -> None:
    begin(place / "state", owner=OTHER)
    message = begin(place / "state").message
    assert f"carol@another.example (process {OTHER['pid']}" in message
    assert "Its lease ends" in message


def test_a_check_is_not_kept_out_and_takes_nothing(place: Path) -> None:
    begin(place / "state", owner=OTHER)
    before = spool(place / "state")
    assert not begin(place / "state", check=True).failed
    assert spool(place / "state") == before


def test_a_dead_owner_is_followed_with_a_warning(place: Path) -> None:
    begin(place / "state", owner=ME | {"started": 1, "user": "ghost"})
    after = begin(place / "state")
    assert any("took the deploy lock over from ghost@" in warning for warning in after.warnings)


def test_a_lease_elsewhere_runs_out(place: Path) -> None:
    begin(place / "state", owner=OTHER, lease_seconds=0)
    assert begin(place / "state").warnings


def test_what_serves_is_told(state: State) -> None:
    facts = {"config": "c", "schema_required": "1", "schema_tolerates": "1", "version": "1", "by": "a", "why": "deploy"}
    ledger, entry = Ledger().add(release="img-1", image="img", outcome="succeeded", **facts)
    state.write_ledger(ledger)
    state.configurations.mkdir()
    (state.configurations / "img-1.json").write_text('{"image": "/where/it/is"}')
    began = begin(state.root)
    assert began["live"]["release"] == entry.release
    assert (began["live_image"], began["rollback_to"]) == ("/where/it/is", "")
    newer, _ = ledger.add(release="img-2", image="img", outcome="succeeded", **facts)
    state.write_ledger(newer)
    assert begin(state.root)["rollback_to"] == "img-1"


def test_a_run_that_deploys_nothing_needs_no_port_and_no_room(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanting = {"port": taken.getsockname()[1], "free_mebibytes": 10**9}
        assert not begin(place / "state", deploys=False, **wanting).failed
        both = begin(place / "other", **wanting).message
    assert "titanic_api_port" in both
    assert "titanic_preflight_free_mebibytes" in both


def test_a_run_that_goes_on_from_another_is_refused_where_there_was_none(place: Path) -> None:
    root = place / "state"
    for check in (True, False):
        assert begin(root, check=check, continues=True).message == (
            "nothing has been deployed here yet. Run the whole site first, without --tags and --skip-tags."
        )
    assert not root.exists()
    (root / "secrets").mkdir(parents=True)
    (root / "secrets" / "database_app_password").write_text("x")
    assert not begin(root, continues=True).failed


def test_a_port_in_use_is_refused_and_nothing_is_made(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        began = begin(place / "state", port=port)
    assert began.message == (
        f"titanic_api_port: 127.0.0.1:{port} is in use by another program. Stop that or choose another port."
    )
    assert not (place / "state").exists()


def test_where_our_reverse_proxy_listens_it_may_and_another_port_is_looked_at(place: Path) -> None:
    ours, other = free_port(), free_port()
    listens = f"import socket; s = socket.create_server(('127.0.0.1', {ours})); s.accept()"
    state = State(place / "state")
    for directory in (state.run, state.logs):
        directory.mkdir(parents=True)
    daemon = state.daemon("caddy")
    daemon.start([sys.executable, "-c", listens], {"PATH": os.environ["PATH"]}, {})
    try:
        wait_for(lambda: not begin(place / "state", check=True, port=ours).failed)
        with socket.create_server(("127.0.0.1", other)):
            for port, more in ((other, {}), (ours, {"redirect_port": other})):
                message = begin(place / "state", check=True, port=port, **more).message
                assert f"titanic_api_{'redirect_' if more else ''}port: 127.0.0.1:{other} is in use" in message
    finally:
        daemon.stop(1)


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "nonesuch.invalid", "a..b"])
def test_an_address_that_is_not_ours_is_refused(place: Path, address: str) -> None:
    message = begin(place / "state", address=address).message
    assert message.startswith(f"titanic_api_address: {host_port(address, '')}")
    assert message.endswith("). Name an address of this host.")


@pytest.mark.parametrize("address", ["::1", "[::1]", "::", "[::]", "0.0.0.0", "localhost"])
def test_any_kind_of_address_will_do_while_its_port_is_free(place: Path, address: str) -> None:
    require_ipv6(address)
    assert not begin(place / "state", address=address, check=True).failed
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address.strip("[]"), 0), family=family) as taken:
        port = taken.getsockname()[1]
        message = begin(place / "state", address=address, port=port, check=True).message
    bracketed = f"[{address.strip('[]')}]" if ":" in address else address
    assert message.startswith(f"titanic_api_port: {bracketed}:{port} is in use by another program")


def test_a_path_too_long_for_a_socket_is_refused(place: Path) -> None:
    message = begin(place / ("x" * 90)).message
    assert "titanic_state_directory" in message
    assert "the system allows 107. Choose a shorter path" in message


def test_a_full_disk_is_refused(place: Path) -> None:
    message = begin(place / "state", free_mebibytes=10**9).message
    assert "MiB are free" in message
    assert "titanic_preflight_free_mebibytes" in message


def test_a_file_in_the_way_is_refused(place: Path) -> None:
    (place / "file").touch()
    assert "cannot be made or written to" in begin(place / "file" / "state").message


def test_a_ledger_that_cannot_be_read_is_named(state: State) -> None:
    (state.root / "ledger.json").write_text("{")
    assert f"{state.root}/ledger.json is not readable" in begin(state.root).message


def test_several_problems_come_together(place: Path) -> None:
    began = begin(place / ("x" * 90), address="192.0.2.1")
    assert len(began["problems"]) == 2


@needs_root
def test_an_account_that_is_missing_is_refused(place: Path) -> None:
    message = begin(place / "state", account="nobody-at-all").message
    assert message.startswith("titanic_database_local_account: there is no account 'nobody-at-all'")


@needs_root
def test_a_parent_closed_to_the_account_is_refused(place: Path) -> None:
    (place / "closed").mkdir(mode=0o700)
    message = begin(place / "closed" / "state").message
    assert f"PostgreSQL runs as 'nobody', which cannot enter {place}/closed" in message


AS_ANOTHER = """
import json, os, sys
from pathlib import Path
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.modules.host_lock import problems
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
options = {"address": "127.0.0.1", "port": 0, "redirect_port": 0, "account": "nobody", "free_mebibytes": 1}
options |= {"deploys": True, "needs_running": False, "engine": None}
print(json.dumps(problems(State(Path(sys.argv[1])), options)))
"""


def problems_of(uid: int, root: Path) -> list[str]:
    command = [sys.executable, "-c", AS_ANOTHER, str(root), str(uid)]
    done = subprocess.run(command, capture_output=True, text=True, env=module_environment(), check=False)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


@needs_root
@pytest.mark.parametrize("below", ["", "one/two"])
def test_a_place_that_is_not_ours_is_refused_by_its_variable(place: Path, below: str) -> None:
    (place / "closed").mkdir(mode=0o700)
    (problem,) = problems_of(65534, place / "closed" / below)
    assert problem.startswith("titanic_state_directory: ")
    assert f"{place}/closed is not a directory writable by uid 65534" in problem


@needs_root
def test_a_user_id_without_a_name_is_refused_before_initdb_does(place: Path) -> None:
    nameless = 54321
    for uid in (65534, nameless):
        (place / str(uid)).mkdir()
        os.chown(place / str(uid), uid, uid)
    assert problems_of(65534, place / "65534" / "state") == []
    (problem,) = problems_of(nameless, place / str(nameless) / "state")
    assert problem.startswith("titanic_provider: PostgreSQL will not run as user id 54321, which has no name")


def test_what_is_needed_to_begin_is_asked_for(place: Path) -> None:
    given = {"state_directory": str(place), "state": "present", "owner": ME}
    assert "address, port" in run_module("host_lock", given).message
    there = {"address": "127.0.0.1", "port": 5000}
    assert "account: without engine it is required." in run_module("host_lock", given | there).message


def test_owners_come_back_from_json() -> None:
    assert Owner(**ME).same_run(Owner(**ME | {"user": "x"}))
