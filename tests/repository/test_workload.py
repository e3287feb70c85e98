"""What is known of the service stands in one place: another port and other paths arrive wherever one is used."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import LABELS
from ansible_collections.whitestar.deploy.tests.helpers import SERVICE

from bin.docs import load
from tests.interface import COLLECTION, ROOT

OTHER = {
    "serve": ["shop", "run"],
    "migrate": ["shop", "upgrade"],
    "seed": ["shop", "fill"],
    "port": 9123,
    "probes": {
        "alive": "/lives",
        "ready": "/serves",
        "smoke": ["/goods"],
        "rows": "/goods/count",
        "metrics": "/numbers",
        "aliases": ["/other"],
    },
    "promises": [{"name": "it sells", "path": "/goods/one"}],
}
# Of the usual service; /tmp/metrics is a directory, and no path that is asked.
USUAL = re.compile(
    r"\b8000\b|/(healthz?|readyz?|people|version|openapi.json)\b|(?<!/tmp)/metrics\b|"
    r"titanic-api\W+(serve|migrate|seed)\b"
)


def rendered(service: dict[str, Any]) -> dict[str, dict[str, str]]:
    """What tests/render.py prints for a service."""
    program = [sys.executable, str(ROOT / "tests/render.py")]
    done = subprocess.run(program, input=json.dumps(service), capture_output=True, text=True, check=True, cwd=ROOT)
    found: dict[str, dict[str, str]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def others() -> dict[str, dict[str, str]]:
    """Everything that is rendered for another service, by provider."""
    return rendered(OTHER)


@pytest.mark.parametrize(
    ("provider", "task", "words"),
    [
        ("compose", "container", ["0.0.0.0:9123", '"shop", "run"']),
        ("compose", "api | Deploy the reverse proxy", ["titanic-api-green-1:9123", "health_uri /serves"]),
        ("local", "api | Deploy the reverse proxy", ["health_uri /serves"]),
        ("local", "api | Deploy the release", ["/lives", "/serves", "/goods", "/numbers", "/other", "it sells"]),
        ("kubernetes", "api | Apply Service and Ingress", ['"targetPort": 9123']),
        ("kubernetes", "api | Deploy the release", ['"containerPort": 9123', '"path": "/lives"', '"path": "/serves"']),
        ("kubernetes", "api | Deploy the release", ['"prometheus.io/port": "9123"', "/numbers", "0.0.0.0:9123"]),
        ("kubernetes", "target | Return the objects", ['"port": 9123']),
        ("kubernetes", "maintenance | Ensure the maintenance state", ["http://:9123 ", '"containerPort": 9123']),
        ("kubernetes", "rollback | Roll back to the release", ["/goods"]),
        ("kubernetes", "seed | Return the Job", ['"shop", "fill"']),
        *(
            (provider, task, words)
            for provider in ("local", "compose", "kubernetes")
            for task, words in (
                ("schema | Migrate the schema", ['"shop", "upgrade"']),
                ("seed | Load the rows", ['"shop", "fill"']),
                ("status | Gather the status", ["/goods/count", "/serves"]),
                ("teardown | Stop, start or remove the deployment", ["/goods/count", "/serves"]),
                ("verify | Verify each promise", ["it sells", "/goods/one"]),
            )
        ),
    ],
)
def test_another_service_arrives(others: dict[str, dict[str, str]], provider: str, task: str, words: list[str]) -> None:
    assert [word for word in words if word not in others[provider][task]] == [], others[provider][task]


def test_nothing_of_the_usual_service_is_left(others: dict[str, dict[str, str]]) -> None:
    left = {
        (provider, task): match[0]
        for provider, tasks in others.items()
        for task, text in tasks.items()
        if (match := USUAL.search(text))
    }
    assert left == {}


def test_the_usual_service_would_be_seen() -> None:
    for tasks in rendered(SERVICE).values():
        assert sum(bool(USUAL.search(text)) for text in tasks.values()) >= 6


def literals(path: Path) -> Iterator[Any]:
    """Every constant of a Python file that is no documentation."""
    tree = ast.parse(path.read_text())
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, (ast.Expr, ast.Assign)) and _documents(node)}
    return (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in said)


def _documents(node: ast.Expr | ast.Assign) -> bool:
    names = ("DOCUMENTATION", "EXAMPLES", "RETURN")
    return isinstance(node, ast.Expr) or any(getattr(target, "id", "") in names for target in node.targets)


def test_no_plugin_knows_the_port_or_a_path() -> None:
    probes = SERVICE["probes"]
    paths = {probes["alive"], probes["ready"], probes["metrics"], *probes["aliases"], "/people"}
    known = [
        (path.name, value)
        for path in COLLECTION.glob("plugins/**/*.py")
        for value in literals(path)
        if value in (SERVICE["port"], str(SERVICE["port"])) or str(value).partition("?")[0] in paths
    ]
    # There a release keeps its metrics in its container: a directory, as literals go.
    assert set(known) == {("runtime.py", "/metrics"), ("manifests.py", "/metrics")}


def test_roles_and_modules_mark_what_is_ours_alike() -> None:
    found = load(COLLECTION / "roles/titanic_common/vars/main.yml")["__titanic_common_managed"]
    assert found == LABELS
