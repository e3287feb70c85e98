"""The OpenAPI document: complete, in step with the routes, and true, which schemathesis tries to disprove."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests
from jsonschema import Draft202012Validator

from service.tests.lab import Serve, Service
from titanic_api.app import create_app
from titanic_api.config import Settings
from titanic_api.errors import REGISTRY
from titanic_api.openapi import document

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
