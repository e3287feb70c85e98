"""The database of a Compose target: spoken to with TLS if that is asked for, and newer images on the same data."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.certificates import Certificate, new_certificate
from tests.deployment import free_port
from tests.end_to_end.switch.site import PERSON, ComposeSite, new_site

if TYPE_CHECKING:
    from tests.engine import Engine

PEOPLE = 887
# Whether each connection of the service is encrypted, and there is one.
ENCRYPTED = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'titanic_app'"


@pytest.fixture(scope="module")
def images(container_engine: Engine) -> Iterator[dict[str, str]]:
    """Images by name: a ``newer`` one of the database, and one in the place of pgAdmin's, which needs a registry.

    That ``sleeper`` stays up until it is told to end, and has a client of PostgreSQL.
    """
    recipes = {
        "newer": "FROM postgres:17\nLABEL newer=yes\n",
        "sleeper": 'FROM postgres:17\nSTOPSIGNAL SIGKILL\nENTRYPOINT ["sleep", "600"]\n',
    }
    own = f"titanic-test-{uuid.uuid4().hex[:8]}"
    named = {name: f"{own}-{name}:17" for name in recipes}
    for name, recipe in recipes.items():
        build = [container_engine.program, "build", "--quiet", "--tag", named[name], "-"]
        subprocess.run(build, input=recipe, text=True, check=True, stdout=subprocess.DEVNULL)
    yield named
    container_engine("rmi", "--force", *named.values())


@pytest.fixture(scope="module")
def own_site(container_engine: Engine, images: dict[str, str]) -> Iterator[ComposeSite]:
    """A site of these tests' own, on which nothing has been deployed yet."""
    with new_site(container_engine) as site:
        assert isinstance(site, ComposeSite)
        yield site


def given(certificate: Certificate, authority: Certificate) -> dict[str, object]:
    files = {"certificate": certificate.certificate, "key": certificate.key, "authority": authority.certificate}
    return {"titanic_database_tls": True, "titanic_secrets_database_tls": files}


def test_pgadmin_is_there_for_who_starts_it(own_site: ComposeSite, images: dict[str, str]) -> None:
    """Whatever stands in its place: started by people alone, as its own account, with its own secret, on this host."""
    site, port = own_site, free_port()
    site.settings |= {
        "titanic_database_pgadmin": True,
        "titanic_database_pgadmin_image": images["sleeper"],
        "titanic_database_pgadmin_port": port,
        "titanic_database_pgadmin_email": "ada@example.org",
    }
    assert "offer the service pgadmin" in site.succeed("-v")
    assert site.changed(site.succeed()) == 0
    assert site.containers("pgadmin") == []
    project = site.state / "project"
    up = [site.engine.program, "compose", "--profile", "pgadmin", "up", "--detach", "--pull", "never", "pgadmin"]
    subprocess.run(up, cwd=project, check=True, capture_output=True)
    (container,) = site.containers("pgadmin")
    assert container["NetworkSettings"]["Ports"]["5050/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": str(port)}]
    assert "PGADMIN_DEFAULT_EMAIL=ada@example.org" in container["Config"]["Env"]

    def inside(*words: str) -> subprocess.CompletedProcess[str]:
        return site.engine.run("exec", container["Id"], *words)

    secrets, configuration = site.state / "secrets", "/etc/pgadmin/servers.json"
    assert inside("id", "--user").stdout.strip() == "5050"
    assert inside("cat", f"{secrets}/pgadmin_password").stdout == (secrets / "pgadmin_password").read_text()
    assert inside("ls", f"{secrets}").stdout.split() == ["pgadmin_password"]
    assert "Read-only file system" in inside("touch", "/pgadmin4").stderr
    servers = json.loads(inside("cat", configuration).stdout)["Servers"]
    password = (secrets / "database_app_password").read_text()
    address = (
        f"postgresql://{servers['1']['Username']}:{password}@{servers['1']['Host']}/{servers['1']['MaintenanceDB']}"
    )
    assert inside("psql", "-XAtqc", "SELECT count(*) FROM people", address).stdout.strip() == str(PEOPLE)
    said = (
        json.dumps(container) + (project / "compose.yaml").read_text() + (project / "pgadmin/servers.json").read_text()
    )
    assert not [path.name for path in secrets.glob("*_password") if path.read_text() in said]

    site.settings |= {"titanic_database_pgadmin": False}
    assert "withdraw the service pgadmin" in site.succeed("-v", "--tags", "database")
    assert site.containers("pgadmin") == []


def test_the_database_is_spoken_to_with_tls_and_its_certificate_checked(own_site: ComposeSite) -> None:
    site, authority, stranger = own_site, new_certificate("authority"), new_certificate("stranger")
    first, renewed, strange = (new_certificate("database", authority=by) for by in (authority, authority, stranger))
    site.settings |= given(first, authority)
    output = site.succeed("--diff", "-vv")
    assert first.key.splitlines()[1] not in output
    assert (site.rows(), site.administer(ENCRYPTED)) == (PEOPLE, "t")

    # A renewed one is loaded; nothing is started again.
    running = {name: site.containers(name)[0]["State"]["StartedAt"] for name in ("database", site.colour())}
    site.settings |= given(renewed, authority)
    site.succeed()
    assert {name: site.containers(name)[0]["State"]["StartedAt"] for name in running} == running
    assert site.changed(site.succeed()) == 0

    # One that is not the authority's serves nobody: a release that trusts another authority does not get ready.
    before = site.release()
    site.settings |= given(renewed, stranger)
    refused = site.refuse("--tags", "secrets,api", "-e", "titanic_api_ready_seconds=5")
    assert "certificate verify failed" in site.failure_report(refused)
    assert site.release() == before
    site.settings |= given(strange, stranger)
    site.succeed()
    assert (site.rows(), site.administer(ENCRYPTED)) == (PEOPLE, "t")

    site.settings |= {"titanic_database_tls": False}
    site.succeed()
    assert (site.rows(), site.administer(ENCRYPTED)) == (PEOPLE, "f")


def test_a_newer_image_of_the_same_major_version_takes_over_the_data(
    own_site: ComposeSite, images: dict[str, str]
) -> None:
    site = own_site
    if not site.ledger():
        site.succeed()
    assert site.ask("/people", "POST", PERSON)[0] == 201
    old = site.containers("database")[0]
    site.settings |= {"titanic_database_image": images["newer"]}
    assert "start the service database" in site.succeed("--check", "-v", "--tags", "database")
    assert site.containers("database")[0]["Id"] == old["Id"]
    site.succeed("--tags", "database,verify")
    (new,) = site.containers("database")
    assert (new["Config"]["Labels"]["newer"], site.rows()) == ("yes", PEOPLE + 1)
