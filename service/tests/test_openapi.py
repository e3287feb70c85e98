"""The OpenAPI document: complete, in step with the routes, and true, which schemathesis tries to disprove."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from jsonschema import Draft202012Validator

from service.tests.lab import PERSON, Database, Serve, Service, serving
from titanic_api.app import create_app
from titanic_api.config import Settings
from titanic_api.errors import REGISTRY
from titanic_api.openapi import OR, document

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")


def routes() -> set[tuple[str, str]]:
    """Every path template and method that is served, static files of the pages aside."""
    app = create_app(Settings(database_host="/nowhere"))
    return {
        (re.sub(r"<([^>]+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not rule.rule.startswith("/pages/")
    }


def test_every_route_is_described_and_no_other() -> None:
    methods = {"get", "post", "put", "patch", "delete"}
    described = {(path, method) for path, item in document()["paths"].items() for method in item if method in methods}
    assert described == routes()


def test_every_error_is_described() -> None:
    statuses = {str(kind.status) for kind in REGISTRY.values()}
    assert statuses == set(document()["components"]["responses"])


def test_what_is_served_is_what_is_printed(service: Service, shared_database: Any) -> None:
    assert service.get("/openapi.json").json() == shared_database.ok("openapi") == document()


def test_answers_fit_the_document(service: Service) -> None:
    schema = {**document(), "$ref": "#/components/schemas/Person"}
    people = service.get("/people").json()
    assert all(Draft202012Validator(schema).is_valid(person) for person in people)
    problem = service.get("/people/x").json()
    Draft202012Validator({**document(), "$ref": "#/components/schemas/Problem"}).validate(problem)


def test_references_lead_somewhere() -> None:
    root = document()

    def check(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                found: Any = root
                for part in value["$ref"].removeprefix("#/").split("/"):
                    found = found[part]
            for inner in value.values():
                check(inner)
        elif isinstance(value, list):
            for inner in value:
                check(inner)

    check(root)


METHODS = ("get", "post", "put", "patch", "delete")
WITH_BODY = ("post", "put", "patch")
OPERATIONS = [(method, path) for path, item in document()["paths"].items() for method in METHODS if method in item]
ABSENT = "00000000-0000-4000-8000-000000000000"
TAKEN = {"Idempotency-Key": "taken"}
PAGE = {"Accept": "text/html"}
JSON = {"Content-Type": "application/json"}
WITH_TOKEN = {**JSON, "Authorization": "Bearer one-token"}
# The commit of PATCH is all that can be lost without telling: a moment that no test can hold.
NOT_PROVOKED = {("patch", "/people/{uuid}", "The database was lost during the write")}


@dataclass(frozen=True)
class Services:
    """One that works, and others in the states that some answers need."""

    usual: Service
    limited: Service
    guarded: Service
    without_database: Service
    database: Database


@pytest.fixture(scope="module")
def services(
    service: Service, shared_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Services]:
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text("one-token")
    nowhere = Database(shared_database.server, "titanic_nowhere")
    service.post(PERSON, **TAKEN)
    with (
        serving(shared_database, WORKERS=1, RATE_LIMIT_PER_MINUTE=1) as limited,
        serving(
            shared_database, WORKERS=1, WRITE_TOKENS_FILE=tokens, REQUEST_TIMEOUT_SECONDS=0.3, MAX_LIST_PEOPLE=1
        ) as guarded,
        serving(nowhere, WORKERS=1) as without_database,
    ):
        yield Services(service, limited, guarded, without_database, shared_database)


@dataclass(frozen=True)
class Operation:
    """An operation of the document, and how each of its answers is provoked."""

    services: Services
    method: str
    path: str

    def send(self, query: str = "", service: Service | None = None, uuid: str = "", **more: Any) -> requests.Response:
        """A good request, but for what is given."""
        service = service or self.services.usual
        if "{uuid}" in self.path:
            uuid = uuid or service.post(PERSON).json().get("uuid", ABSENT)
        if self.method in WITH_BODY and "data" not in more:
            more.setdefault("json", PERSON)
        return service(self.method.upper(), self.path.replace("{uuid}", uuid) + query, **more)

    def unchanged(self) -> requests.Response:
        uuid = self.known()
        first = self.send(uuid=uuid, headers=self.accept)
        return self.send(uuid=uuid, headers={**self.accept, "If-None-Match": first.headers["ETag"]})

    @property
    def accept(self) -> dict[str, str]:
        """What asks for the answer that has an entity tag."""
        return PAGE if self.path in ("/", "/docs") else {}

    def bad(self) -> list[requests.Response]:
        """For each part of a request that can be malformed."""
        found = [self.send("?nope=1")]
        found += [self.send(service=self.services.guarded)] if (self.method, self.path) == ("get", "/people") else []
        found += [self.send(data="{", headers=JSON)] if self.method in WITH_BODY else []
        found += [self.misframed()] if self.method == "delete" else []
        return found + ([self.send(headers={"Idempotency-Key": "x" * 256})] if self.method == "post" else [])

    def misframed(self) -> requests.Response:
        """The answer to a body in a coding that nobody undoes, which requests does not send by itself."""
        service = self.services.usual
        request = requests.Request(self.method.upper(), service.url + self.path.replace("{uuid}", self.known()))
        prepared = request.prepare()
        prepared.headers = requests.structures.CaseInsensitiveDict({"Transfer-Encoding": "gzip, chunked"})
        return service.session.send(prepared, timeout=20)

    def refused(self) -> requests.Response:
        """The second request of a minute that has place for one."""
        self.send(service=self.services.limited, uuid=ABSENT)
        return self.send(service=self.services.limited, uuid=ABSENT)

    def without_database(self) -> list[requests.Response]:
        lost = [self.lost()] if self.method in ("post", "put", "delete") else []
        return [self.send(service=self.services.without_database, uuid=ABSENT), *lost]

    def known(self) -> str:
        return str(self.services.usual.get("/people?limit=1").json()[0]["uuid"])

    def lost(self) -> requests.Response:
        """The answer to a write whose connection to the database is cut while it is made."""
        database, uuid = self.services.database, self.known()
        busy = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'titanic_app' AND datname = %s "
            "AND state = 'active' AND wait_event_type = 'Lock'"
        )
        with database.server.connect(database.name, "titanic_owner") as connection, connection.cursor() as cursor:
            connection.autocommit = False
            cursor.execute("LOCK TABLE people IN ACCESS EXCLUSIVE MODE")
            with ThreadPoolExecutor(1) as pool:
                answer = pool.submit(self.send, uuid=uuid)
                while not answer.done() and not database.sql(busy, (database.name,), user="postgres"):
                    time.sleep(0.02)
                found = answer.result()
            connection.rollback()
        return found


def slowly() -> Iterator[bytes]:
    """A body that does not end in time."""
    yield b"{"
    time.sleep(0.6)
    yield b"}"


# How each status is provoked: by each of its meanings once at least.
PROVOKED: dict[str, Callable[[Operation], list[requests.Response]]] = {
    "200": lambda each: [each.send(), *([each.send(headers=PAGE)] if each.path == "/" else [])],
    "201": lambda each: [each.send()],
    "204": lambda each: [each.send()],
    "304": lambda each: [each.unchanged()],
    "400": Operation.bad,
    "401": lambda each: [each.send(service=each.services.guarded, uuid=ABSENT)],
    "403": lambda each: [each.send(headers={"X-Forwarded-For": "192.0.2.7"})],
    "404": lambda each: [each.send(uuid=ABSENT)],
    "406": lambda each: [each.send(headers={"Accept": "image/png"})],
    "408": lambda each: [each.send(service=each.services.guarded, uuid=ABSENT, data=slowly(), headers=WITH_TOKEN)],
    "409": lambda each: [each.send(json={**PERSON, "age": 1}, headers=TAKEN)],
    "412": lambda each: [each.send(headers={**each.accept, "If-Match": '"another"'})],
    "413": lambda each: [each.send(data=b"x" * 70_000, headers=JSON)],
    "415": lambda each: [each.send(data="{}", headers={"Content-Type": "text/plain"})],
    "422": lambda each: [each.send(json={**PERSON, "age": -1})],
    "429": lambda each: [each.refused()],
    "503": Operation.without_database,
}


def resolved(root: Any, node: Any) -> Any:
    """What a reference leads to, with what stands beside it."""
    found: Any = root
    for part in node["$ref"].removeprefix("#/").split("/") if "$ref" in node else ():
        found = found[part]
    return {**found, **node} if "$ref" in node else node


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=[" ".join(each) for each in OPERATIONS])
def test_each_documented_answer_is_given(services: Services, method: str, path: str) -> None:
    """With the media type and headers that the document has, and an error by every title that it is described with."""
    root = document()
    for status, node in root["paths"][path][method]["responses"].items():
        response = resolved(root, node)
        answers = PROVOKED[status](Operation(services, method, path))
        seen = set()
        for answer in answers:
            assert answer.status_code == int(status), (status, answer.status_code, answer.text[:300])
            media_types = response.get("content", {})
            assert not media_types or answer.headers["Content-Type"].partition(";")[0] in media_types
            if int(status) >= 400:
                assert set(response["headers"]) <= set(answer.headers), (status, dict(answer.headers))
                seen.add(answer.json()["title"])
        if int(status) >= 400:
            told = set(response["description"].split(OR))
            assert seen == told - {title for *where, title in NOT_PROVOKED if where == [method, path]}


def test_what_is_said_of_every_path_is_so(service: Service) -> None:
    for path, item in document()["paths"].items():
        place = path.replace("{uuid}", ABSENT)
        answer = service("OPTIONS", place)
        methods = {method.upper() for method in METHODS if method in item}
        assert (answer.status_code, set(answer.headers["Allow"].split(", "))) == (200, methods | {"HEAD", "OPTIONS"})
        assert service("HEAD", place).status_code == service.get(place).status_code
        assert service("BREW", place).status_code == 405


def test_schemathesis_finds_nothing(serve: Serve, tmp_path: Path) -> None:
    """All checks and all phases, stateful included, against a real gunicorn."""
    service = serve()
    examples = os.environ.get("TITANIC_TEST_EXAMPLES", "12")
    # One worker: in two threads, ast.parse of Debian's Python fails at times (python/cpython#106905).
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION)),
        *("run", service.url + "/openapi.json", "--checks", "all", "--phases", "examples,coverage,fuzzing,stateful"),
        *("--mode", "all", "--max-examples", examples, "--seed", "1912", "--no-color"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Stateful" in done.stdout
    assert not [line for line in service.log if line["status"] >= 500]
    assert requests.get(service.url + "/readyz", timeout=10).ok
