"""The reverse proxy: its certificates, and maintenance."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
from cryptography import x509

from tests.certificates import new_certificate
from tests.deployment import free_port
from tests.end_to_end.switch.site import COMPOSE, LOCAL, PERSON, new_site

if TYPE_CHECKING:
    from tests.end_to_end.switch.site import Site
    from tests.engine import Engine

NAME = "titanic.test"
PEOPLE = 887
# Containers of continuous integration may have none.
IPV6 = Path("/proc/net/if_inet6").exists() and "lo" in Path("/proc/net/if_inet6").read_text()


@contextmanager
def connected(port: int, authority: str) -> Iterator[ssl.SSLSocket]:
    """A connection of a client that trusts ``authority`` (PEM) alone."""
    context = ssl.create_default_context(cadata=authority)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    with (
        socket.create_connection(("127.0.0.1", port), 15) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as connection,
    ):
        yield connection


def seen(port: int, authority: str) -> tuple[int, int]:
    """What such a client sees: number of people, serial of the certificate."""
    with connected(port, authority) as connection:
        shown = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
        connection.sendall(f"GET /people HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return len(json.loads(answer.read())), shown.serial_number


BODY_SECONDS = 5
CHUNKED = "Transfer-Encoding: chunked"


def told(port: int, authority: str, head: str, body: bytes, method: str, path: str) -> tuple[int, str]:
    """Status and problem type with which a write that is sent so is answered."""
    start = f"{method} {path} HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\n{head}\r\n\r\n"
    with connected(port, authority) as connection:
        connection.sendall(start.encode() + body)
        answer = http.client.HTTPResponse(connection, method=method)
        answer.begin()
        assert answer.headers["Content-Type"] == "application/problem+json"
        return answer.status, json.loads(answer.read())["type"].rpartition(":")[2]


def somebody(port: int, authority: str) -> str:
    """The path of a person."""
    with connected(port, authority) as connection:
        connection.sendall(f"GET /people?limit=1 HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return f"/people/{json.loads(answer.read())[0]['uuid']}"


def what_is_no_whole_request_is_no_write(port: int, authority: str) -> None:
    """A body that HTTP forbids is the client's fault, one that does not come is given up; neither is a write."""
    for method, path in (("POST", "/people"), ("DELETE", somebody(port, authority))):
        for body in (
            b"-1\r\n{}\r\n0\r\n\r\n",
            b"2\r\n{}XX\r\n0\r\n\r\n",
            b"zz\r\n",
            b"2;" + b"x" * 9000 + b"\r\n{}\r\n0\r\n\r\n",
            b"2\r\n{}\r\n0\r\nno colon\r\n\r\n",
        ):
            assert told(port, authority, CHUNKED, body, method, path) == (400, "malformed-body"), (method, body[:40])
        began = time.monotonic()
        assert told(port, authority, "Content-Length: 200", b"{", method, path) == (408, "body-too-slow")
        assert time.monotonic() - began < BODY_SECONDS + 2
    assert seen(port, authority)[0] == PEOPLE


# A container's reverse proxy gets a given certificate in the same file: the test of ACME below shows that it finds it.
@LOCAL
def test_https_with_a_given_certificate_and_with_an_authority_of_its_own(engine: None) -> None:
    old, new = new_certificate(NAME), new_certificate(NAME, "localhost")
    limit = {"TITANIC_REQUEST_TIMEOUT_SECONDS": BODY_SECONDS}
    given = {"titanic_api_tls": "given", "titanic_api_hostname": NAME}
    with new_site(engine, **given, titanic_api_environment=limit) as site:
        site.settings |= old.settings
        output = site.succeed("--diff", "-vv")
        assert f"https://{NAME}:{site.port}/people" in output
        assert old.key.splitlines()[1] not in output
        assert seen(site.port, old.certificate) == (PEOPLE, old.serial)
        nothing_but_the_key_file_holds(site, old.key)
        what_is_no_whole_request_is_no_write(site.port, old.certificate)

        # Another certificate is loaded.
        site.settings |= new.settings
        site.succeed("--tags", "secrets,api")
        assert seen(site.port, new.certificate) == (PEOPLE, new.serial)

        # What is refused changes nothing.
        site.settings |= {"titanic_secrets_tls": {"certificate": new.certificate, "key": old.key}}
        assert "titanic_secrets_tls: key is not the one of certificate" in site.refuse()
        assert seen(site.port, new.certificate) == (PEOPLE, new.serial)

        # Its own authority, under any name; plain HTTP is sent on.
        redirect = free_port()
        site.settings |= {"titanic_api_tls": "internal", "titanic_api_redirect_port": redirect}
        site.succeed("--tags", "secrets,api")
        root = (site.state / "front/caddy/pki/authorities/local/root.crt").read_text()
        assert seen(site.port, root)[0] == PEOPLE
        with pytest.raises(ssl.SSLError):
            seen(site.port, new.certificate)
        assert sent_on("127.0.0.1", redirect, NAME) == f"https://{NAME}:{site.port}/people?limit=1"
        if IPV6:
            site.settings["titanic_api_address"] = "::1"
            site.succeed("--tags", "api")
            assert sent_on("::1", redirect, "[::1]") == f"https://[::1]:{site.port}/people?limit=1"
            site.settings["titanic_api_address"] = "[::1]"
        assert site.changed(site.succeed()) == 0


def sent_on(address: str, port: int, name: str) -> str:
    """Where plain HTTP under this name is sent."""
    connection = http.client.HTTPConnection(address, port, timeout=10)
    connection.request("GET", "/people?limit=1", headers={"Host": f"{name}:{port}"})
    answer = connection.getresponse()
    connection.close()
    assert answer.status == 308
    return str(answer.headers["Location"])


def nothing_but_the_key_file_holds(site: Site, key: str) -> None:
    """The private key is in one file below the state directory, which nobody else may read."""
    line = key.splitlines()[1].encode()
    holders = [path for path in site.state.rglob("*") if path.is_file() and line in path.read_bytes()]
    assert holders == [site.state / "secrets/tls/key"]
    assert holders[0].stat().st_mode & 0o777 == 0o600


# The preflight is the same on every provider, and refuses before it knows the target. Its own tests have every kind.
@LOCAL
def test_what_cannot_be_a_certificate_is_refused_by_name(empty_site: Site) -> None:
    made = new_certificate(NAME)
    empty_site.settings |= {"titanic_api_tls": "given", "titanic_api_hostname": "other.test"} | made.settings
    output = " ".join(empty_site.refuse().split())
    assert f"titanic_api_hostname: the certificate is for {NAME}, not for other.test" in output
    assert made.key.splitlines()[1] not in output
    assert empty_site.left() == []


@contextmanager
def acme_authority(engine: Engine, place: Path) -> Iterator[tuple[str, str]]:
    """A real ACME authority, another Caddy's, that finds the site on this machine: (its directory, its root as PEM)."""
    # An address of this machine that containers of every network reach.
    network = f"titanic-test-{uuid.uuid4().hex[:8]}"
    engine("network", "create", network)
    gateway = engine.inspect("network", network)[0]["IPAM"]["Config"][0]["Gateway"]
    port = free_port()
    configuration = place / "Caddyfile"
    configuration.write_text(
        "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n"
        f"https://{gateway}:{port} {{\n\ttls internal\n\tacme_server\n}}\n"
    )
    place.chmod(0o755)
    mounted = f"type=bind,source={configuration},target=/etc/caddy/Caddyfile,readonly"
    words = ["run", "--detach", "--rm", "--pull", "never", "--network", "host", "--add-host", f"{NAME}:127.0.0.1"]
    container = engine(*words, "--mount", mounted, "caddy:2")
    try:
        for _ in range(100):
            asked = engine.run("exec", container, "cat", "/data/caddy/pki/authorities/local/root.crt")
            if asked.returncode == 0 and "END CERTIFICATE" in asked.stdout:
                break
            time.sleep(0.1)
        else:
            raise AssertionError(engine.run("logs", container).stderr)
        yield f"https://{gateway}:{port}/acme/local/directory", asked.stdout
    finally:
        engine("rm", "--force", container)
        engine("network", "rm", network)


def test_a_certificate_is_fetched_by_acme_and_then_given(container_engine: Engine, tmp_path: Path) -> None:
    engine, own = container_engine, new_certificate(NAME)
    with acme_authority(engine, tmp_path) as (directory, root), new_site(engine) as site:
        # Where an authority looks for whom it certifies (RFC 8737, 3): nowhere else.
        site.port = 443
        site.settings |= {
            "titanic_api_port": 443,
            "titanic_api_tls": "acme",
            "titanic_api_hostname": NAME,
            "titanic_api_acme_directory": directory,
            "titanic_secrets_tls": {"authority": root},
            "titanic_api_acme_email": f"captain@{NAME}",
        }
        output = site.succeed()
        assert f"https://{NAME}/people" in output
        assert seen(443, root)[0] == PEOPLE
        assert site.changed(site.succeed()) == 0
        site.settings |= own.settings | {"titanic_api_tls": "given"}
        site.succeed("--tags", "secrets,api")
        assert seen(443, own.certificate) == (PEOPLE, own.serial)
        nothing_but_the_key_file_holds(site, own.key)


class Asker:
    """Asks for a person again and again over one connection, and keeps what was answered: status or error."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.seen: list[str] = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.ask)

    def ask(self) -> None:
        """Until it is told to end."""
        connection = http.client.HTTPConnection("127.0.0.1", self.site.port, timeout=15)
        while not self.ended.wait(0.01):
            try:
                connection.request("GET", "/people?limit=1")
                answer = connection.getresponse()
                body = json.loads(answer.read())
                kind = "" if answer.status == 200 else f" {body['type']} {answer.headers['Retry-After']}"
                self.seen.append(f"{answer.status}{kind}")
            except (OSError, http.client.HTTPException) as error:
                self.seen.append(repr(error))
        connection.close()

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def wait_for(self, status: str) -> None:
        """Until the last answer began so."""
        deadline = time.monotonic() + 60
        while not (self.seen and self.seen[-1].startswith(status)):
            assert time.monotonic() < deadline, self.seen[-3:]
            time.sleep(0.02)


def begin_a_slow_post(site: Site) -> socket.socket:
    """A POST of which the reverse proxy has everything but the last byte."""
    body = json.dumps(PERSON).encode()
    head = (
        f"POST /people HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", site.port), 30)
    connection.sendall(head.encode() + b"\r\n" + body[:-1])
    time.sleep(0.5)
    return connection


BEFORE_US = ["127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]


@pytest.mark.shown_once("kubernetes")
def test_the_client_is_whom_a_trusted_proxy_before_the_reverse_proxy_speaks_for(site: Site) -> None:
    def client(identity: str) -> str:
        headers = {"X-Forwarded-For": "198.51.100.9, 192.0.2.7", "X-Request-Id": identity}
        assert site.ask("/people/x", headers=headers)[0] == 404
        (line,) = (line for line in site.logs().splitlines() if identity in line and "/people/x" in line)
        return str(json.loads(line[line.index("{") :])["client"])

    def metrics(client: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
        connection.request("GET", "/metrics", headers={"X-Forwarded-For": client})
        with closing(connection):
            return connection.getresponse().status

    assert client("nobody-is-trusted") not in ("192.0.2.7", "198.51.100.9")
    # This machine may have the metrics, but it is not who asks a container that a reverse proxy of its own speaks for.
    mine = {"local": 200, "compose": 403}[site.provider]
    assert [metrics("192.0.2.7"), metrics("127.0.0.1")] == [mine, mine]
    scraper = {"titanic_api_metrics_from": ["192.0.2.0/24"]}
    site.succeed("--tags", "api", "-e", json.dumps({"titanic_api_trusted_proxies": BEFORE_US} | scraper))
    assert client("this-machine-is-trusted") == "192.0.2.7"
    assert [metrics("192.0.2.7"), metrics("198.51.100.9"), metrics("127.0.0.1")] == [200, 403, 403]
    site.succeed("--tags", "api")
    assert client("nobody-is-trusted-again") not in ("192.0.2.7", "198.51.100.9")


# Processes and containers are kept from their clients by the same file: molecule/maintenance asks for it on processes.
@COMPOSE
def test_maintenance_answers_everything_and_finishes_what_was_begun(site: Site) -> None:
    message = 'Back at 14:00; "soon" <b>'
    begins = ["--tags", "maintenance", "-e", json.dumps({"titanic_maintenance_message": message})]
    ends = ["--tags", "maintenance", "-e", "titanic_maintenance_enabled=false"]
    people = site.rows()
    release = site.release()
    before = site.changed(site.succeed(*begins, "--check"))
    assert before == 1
    assert site.rows() == people
    with Asker(site) as asker:
        asker.wait_for("200")
        with begin_a_slow_post(site) as post:
            run = site.start(*begins)
            asker.wait_for("503")
            time.sleep(1)
            assert run.poll() is None, "it did not wait for the request that was being answered"
            post.sendall(b"}")
            assert post.recv(100).startswith(b"HTTP/1.1 201")
        output, _ = run.communicate(timeout=60)
        assert run.returncode == 0, output
        assert site.changed(site.succeed(*begins)) == 0
        status, problem = site.ask("/people", "POST", PERSON)
        assert (status, problem["detail"]) == (503, message)
        # Neither a release nor a reverse proxy that starts again ends it.
        site.change_service("MAINTAINED = True")
        assert "in maintenance, so that no promise was asked" in site.succeed("--tags", "api")
        assert "by " in site.succeed("--tags", "status").split("maintenance:")[1].splitlines()[0]
        assert site.ask("/people")[0] == 503
        ended = site.succeed(*ends)
        assert "promises asked, all kept" in ended
        asker.wait_for("200")
    kinds = [kind for kind, _ in groupby(asker.seen)]
    assert kinds == ["200", "503 urn:titanic:problem:maintenance 60", "200"]
    assert site.changed(site.succeed(*ends)) == 0
    assert site.release() != release
    assert site.rows() == people + 1


@LOCAL
def test_there_is_no_maintenance_of_nothing(empty_site: Site) -> None:
    assert "nothing has been deployed here yet" in empty_site.refuse("--tags", "maintenance")
