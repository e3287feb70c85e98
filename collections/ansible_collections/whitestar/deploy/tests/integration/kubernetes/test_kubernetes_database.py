# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database and its two roles are kept in a PostgreSQL that runs in a pod, without a password on the way."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.apply import SECRETS
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.manifests import labels
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.psql import PodServer
from ansible_collections.whitestar.deploy.tests.cluster_helpers import FRUGAL, POSTGRES, Space
from ansible_collections.whitestar.deploy.tests.helpers import Result, wait_for

NAMES = {"database": "people", "owner": "people_owner", "user": "people_app"}
PASSWORDS = {"database_owner_password": "planted-owner", "database_app_password": "planted-app"}
ALL = [
    "make role people_owner",
    "make role people_app",
    "make database people",
    "let only the two roles connect",
]
LIBRARY = "/var/lib/postgresql/data"
# As people keep secrets whose names they choose, so that none of the means under test is needed to make it.
SPEC = {
    "terminationGracePeriodSeconds": 0,
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": 999,
        "runAsGroup": 999,
        "fsGroup": 999,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "containers": [
        {
            "name": "postgresql",
            "image": POSTGRES,
            "args": ["postgres", "-c", "fsync=off", "-c", "shared_buffers=16MB"],
            "env": [
                {"name": "PGDATA", "value": f"{LIBRARY}/pgdata"},
                {"name": "POSTGRES_INITDB_ARGS", "value": "--auth-host=scram-sha-256"},
                {"name": "POSTGRES_PASSWORD", "value": "planted-superuser"},
            ],
            "resources": FRUGAL,
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "readinessProbe": {
                "exec": {"command": ["pg_isready", "--host=127.0.0.1"]},
                "periodSeconds": 1,
                "timeoutSeconds": 10,
                "failureThreshold": 30,
            },
            "volumeMounts": [
                {"name": "data", "mountPath": LIBRARY},
                {"name": "run", "mountPath": "/var/run/postgresql"},
            ],
        }
    ],
    "volumes": [{"name": "data", "emptyDir": {}}, {"name": "run", "emptyDir": {}}],
}


def keep(space: Space, *, check: bool = False, **more: Any) -> Result:
    done = space.run("kubernetes_database", check=check, **NAMES, **more)
    assert not any(password in done.output for password in PASSWORDS.values())
    return done


def set_passwords(space: Space, values: dict[str, str]) -> None:
    space.kubectl("delete", "secret", SECRETS, "--ignore-not-found")
    space.make({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRETS}, "stringData": values})


@pytest.fixture(scope="module")
def database(space: Space) -> Space:
    """A namespace with a server of the name that the collection gives it."""
    set_passwords(space, PASSWORDS)
    metadata = {"name": "titanic-database-0", "labels": labels("database")}
    space.make({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": SPEC})
    space.kubectl("wait", "--for=condition=Ready", "pod/titanic-database-0", "--timeout=120s")
    return space


def may_connect(space: Space, user: str, password: str) -> bool:
    """Whether a role gets in over TCP with this password."""
    url = f"postgresql://{user}:{password}@127.0.0.1/people"
    said = space.kubectl("exec", "titanic-database-0", "--", "psql", url, "-Atc", "SELECT 'in'", check=False)
    return said.strip() == "in"


def test_twelve_steps(database: Space) -> None:
    """From nothing, with another password, without a grant; each in check mode and for real, and again.

    No database is ever removed.
    """
    seen = keep(database, check=True)
    assert (seen["steps"], seen.changed) == (ALL, True)
    assert not may_connect(database, "people_app", "planted-app")
    done = keep(database)
    assert (done["steps"], done.changed) == (ALL, True)
    assert done["diff"]["after"] == "".join(f"{step}\n" for step in ALL)
    assert may_connect(database, "people_app", "planted-app")
    assert may_connect(database, "people_owner", "planted-owner")
    for check in (True, False):
        again = keep(database, check=check)
        assert (again["steps"], again.changed, again["diff"]["after"]) == ([], False, "")

    set_passwords(database, PASSWORDS | {"database_app_password": "planted-other"})
    for check in (True, False):
        changed = keep(database, check=check)
        assert changed["steps"] == ["set the password of role people_app"]
        assert may_connect(database, "people_app", "planted-app") is check
        assert "planted-other" not in changed.output
    assert may_connect(database, "people_app", "planted-other")
    for check in (True, False):
        assert not keep(database, check=check).changed
    set_passwords(database, PASSWORDS)
    keep(database)

    with KubernetesClient.of(database.options) as cluster:
        PodServer(cluster, "titanic-database-0", "postgresql").run_sql("GRANT CONNECT ON DATABASE people TO PUBLIC")
    for check in (True, False):
        assert keep(database, check=check)["steps"] == ["let only the two roles connect"]
    for check in (True, False):
        assert not keep(database, check=check).changed


def test_the_server_is_asked_in_its_own_words(database: Space, kubernetes: KubernetesClient) -> None:
    server = PodServer(kubernetes, "titanic-database-0", "postgresql")
    assert server.query("SELECT json_build_object('a', 1)") == {"a": 1}
    assert server.query("SELECT 1 WHERE false") is None
    with pytest.raises(RuntimeError, match='relation "nothing" does not exist'):
        server.run_sql("SELECT * FROM nothing")
    # What it is told reaches it by standard input, and is not in the list of processes that anybody may read.
    listed = "COPY list FROM PROGRAM 'cat /proc/[0-9]*/cmdline | xargs -0 echo'"
    found = server.run_sql(f"CREATE TEMPORARY TABLE list (line text); {listed}; SELECT * FROM list")
    assert "psql" in found
    assert "COPY list" not in found


def test_a_secret_that_is_missing_is_named(database: Space) -> None:
    set_passwords(database, {"database_owner_password": "planted-owner"})
    message = keep(database).message
    assert message == "there is no secret 'database_app_password' in the namespace. Run the whole site once."
    set_passwords(database, PASSWORDS)


def test_a_server_that_is_not_there_is_made_first(space: Space) -> None:
    nobody = {"app": "nobody"}
    seen = keep(space, check=True, labels=nobody)
    assert (seen["steps"], seen.changed) == (["make the roles and the database"], True)
    assert keep(space, labels=nobody).message == "the database's pod is not ready. Run the whole site once."


def test_nothing_of_a_password_is_in_the_server_s_log(database: Space) -> None:
    wait_for(lambda: "ready to accept connections" in database.kubectl("logs", "titanic-database-0"))
    said = database.kubectl("logs", "titanic-database-0")
    for password in PASSWORDS.values():
        assert password not in said
        assert base64.b64encode(password.encode()).decode() not in said


def test_logins_take_turns(database: Space) -> None:
    def keep_secrets(*, check: bool = False, **options: Any) -> Result:
        given = {"generated": [*PASSWORDS], "by": "alice@laptop"} | options
        return database.run("kubernetes_secrets", check=check, **given)

    def password() -> str:
        return base64.b64decode(database.get("secret", SECRETS)["data"]["database_app_password"]).decode()

    database.kubectl("delete", "secret", SECRETS, "--ignore-not-found")
    keep_secrets()
    keep(database)
    old = password()
    assert not keep_secrets(rotate=["database"]).failed
    new = password()
    assert new != old
    for check in (True, False):
        seen = keep(database, check=check)
        assert seen["steps"] == ["make role people_app_a", "put people_app_a into people_app"]
    assert may_connect(database, "people_app", old), "a release that serves may serve still"
    assert may_connect(database, "people_app_a", new)
    assert not keep_secrets(rotate=["database"]).changed, "one that was begun goes on"
    for check in (True, False):
        assert keep(database, check=check, finish=True)["steps"] == ["take the login of role people_app away"]
        assert keep_secrets(finish=True, check=True)["steps"] == ["finish the rotation of database"]
    assert not may_connect(database, "people_app", old)
    assert may_connect(database, "people_app_a", new)
    keep_secrets(finish=True)
    assert not keep_secrets().changed
    assert not keep(database).changed
    # What the tests besides this one know.
    set_passwords(database, PASSWORDS)
    keep(database)
