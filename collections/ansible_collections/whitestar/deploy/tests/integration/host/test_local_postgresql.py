# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster is made whole or not at all, keeps its settings, and refuses programs that do not fit."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.local.postgresql import DatabaseError, PostgresServer
from ansible_collections.whitestar.deploy.plugins.module_utils.postgresql.psql import identifier, literal

ODD_NAMES = ["plain", 'we"ird', "o'clock", "Mixed Case", "back\\slash", "select", "a;b--c", "ünï"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_and_texts_survive_quoting(cluster: PostgresServer, name: str) -> None:
    found = cluster.query(
        f"SELECT json_build_object({literal(name)}, {identifier(name)}) FROM (SELECT 1 AS {identifier(name)})"
    )
    assert found == {name: 1}


def test_the_server_listens_on_a_socket_only(cluster: PostgresServer) -> None:
    assert cluster.running()
    assert cluster.run_sql("SHOW listen_addresses") == ""
    assert (cluster.socket_directory / ".s.PGSQL.5432").is_socket()


def test_the_server_is_not_root(cluster: PostgresServer) -> None:
    pid = int((cluster.data / "postmaster.pid").read_text().split()[0])
    assert Path(f"/proc/{pid}").stat().st_uid == (65534 if os.geteuid() == 0 else os.geteuid())
    assert cluster.run_sql("SHOW data_checksums") == "on"
    assert cluster.run_sql("SHOW server_encoding") == "UTF8"


def test_versions_are_read(cluster: PostgresServer) -> None:
    assert cluster.major() >= 15
    assert cluster.version() == cluster.running_version()
    cluster.check_major()


def test_an_error_holds_postgresql_s_own_words(cluster: PostgresServer) -> None:
    with pytest.raises(DatabaseError, match='relation "nothing" does not exist'):
        cluster.run_sql("SELECT * FROM nothing")


def test_sql_is_in_no_process_list(cluster: PostgresServer) -> None:
    shown = cluster.run_sql(r"\! tr '\0' ' ' < /proc/$PPID/cmdline")
    assert "-f -" in shown
    assert "tr" not in shown.split("-f -")[1]


@pytest.mark.parametrize("value", ["it's", "back\\slash", "a # no comment", "tab\there", 'double "'])
def test_settings_survive_quoting(cluster: PostgresServer, value: str) -> None:
    settings = {"fsync": "off", "cluster_name": "x", "titanic.note": value}
    stale = cluster.stale_files(settings)
    assert [path.name for path in stale] == ["titanic.conf"]
    cluster.write_files(stale, settings)
    assert cluster.stale_files(settings) == []
    cluster.reload()
    assert (
        cluster.run_sql("SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL AND name = 'titanic.note'")
        == "0"
    )
    assert cluster.query("SELECT to_json(setting) FROM pg_file_settings WHERE name = 'titanic.note'") == value


def test_a_setting_that_needs_a_restart_is_known(cluster: PostgresServer) -> None:
    settings = {"fsync": "off", "max_connections": 51}
    cluster.write_files(cluster.stale_files(settings), settings)
    cluster.reload()
    cluster.run_sql("SELECT pg_sleep(0.3)")
    assert "max_connections" in cluster.pending_restart()


def test_a_server_that_cannot_start_says_why(bindir: Path, cluster: PostgresServer, place: Path) -> None:
    broken = PostgresServer(place / "database", bindir, cluster.owner)
    broken.make()
    settings = {"shared_buffers": "a lot"}
    broken.write_files(broken.stale_files(settings), settings)
    with pytest.raises(DatabaseError, match=r"(?s)PostgreSQL did not start: .*shared_buffers"):
        broken.start()
    broken.stop()


def test_only_peers_may_be_administrator(cluster: PostgresServer) -> None:
    """The administrator's way in is the socket and the account of the server, nobody else's."""
    command = [
        str(cluster.bindir / "psql"),
        "-X",
        "-h",
        str(cluster.socket_directory),
        "-U",
        "postgres",
        "-c",
        "SELECT 1",
    ]
    if os.geteuid() != 0:
        pytest.skip("the account of the server is the one that runs the tests")
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert done.returncode != 0
    assert "peer" in done.stderr.lower()


def test_the_answer_is_json(cluster: PostgresServer) -> None:
    assert cluster.query("SELECT json_build_array(1, 'a', NULL)") == json.loads('[1, "a", null]')
    assert cluster.query("SELECT 1 WHERE false") is None
