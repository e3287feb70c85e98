"""Settings, and the README that describes them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import titanic_api
from service.tests.lab import Database
from titanic_api.config import ConfigurationError, Setting, Settings
from titanic_api.openapi import document

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
HOST = {"TITANIC_DATABASE_HOST": "db"}
SPECS: list[Setting] = [spec.metadata["setting"] for spec in Settings.__dataclass_fields__.values()]


def test_text_stays_text(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("012345\n")
    settings = Settings.from_environment(
        {**HOST, "TITANIC_DATABASE_PASSWORD_FILE": str(password), "TITANIC_RELEASE": "007"}
    )
    assert settings.password() == "012345"
    assert settings.release == "007"


def test_the_port_of_the_environment() -> None:
    assert Settings.from_environment(HOST).bind == "0.0.0.0:8000"
    assert Settings.from_environment({**HOST, "PORT": "81"}).bind == "0.0.0.0:81"
    assert Settings.from_environment({**HOST, "PORT": "81", "TITANIC_BIND": "unix:/x"}).bind == "unix:/x"


def test_what_kubernetes_adds_is_no_setting() -> None:
    links = {"TITANIC_SERVICE_HOST": "1", "TITANIC_PORT": "tcp://1:5", "TITANIC_PORT_5000_TCP_ADDR": "1"}
    assert Settings.from_environment({**HOST, **links, "TITANIC_SERVICE_PORT_HTTP": "5"}).workers == 2


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TITANIC_DATABASE_HOST", ""),
        ("TITANIC_DATABASE_PORT", "0"),
        ("TITANIC_DATABASE_PORT", "x"),
        ("TITANIC_DATABASE_SSLMODE", "yes"),
        ("TITANIC_BIND", "8000"),
        ("TITANIC_BIND", "localhost:99999"),
        ("PORT", "x"),
        ("TITANIC_WORKERS", "0"),
        ("TITANIC_WORKERS", "2.5"),
        ("TITANIC_POOL_TIMEOUT_SECONDS", "nan"),
        ("TITANIC_KEEPALIVE_SECONDS", "2.5"),
        ("TITANIC_KEEPALIVE_SECONDS", "3601"),
        ("TITANIC_CACHE_MAX_STALE_SECONDS", "-1"),
        ("TITANIC_MAX_BODY_BYTES", "64k"),
        ("TITANIC_LOG_LEVEL", "INFO"),
        ("TITANIC_WORKER", "3"),
        ("TITANIC_WRITE_TOKENS_FILE", "/nope"),
        ("TITANIC_WRITE_TOKENS_FILE", "/dev/null"),
        ("TITANIC_DATABASE_PASSWORD_FILE", "/nope"),
        ("TITANIC_METRICS_DIRECTORY", "/proc/nope"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_variable(template_copy: Database, variable: str, value: str) -> None:
    environment: dict[str, Any] = {variable.removeprefix("TITANIC_"): value}
    if variable == "PORT":
        with pytest.raises(ConfigurationError, match="PORT"):
            Settings.from_environment({**HOST, "PORT": value})
        return
    done = template_copy.command("serve", **environment)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert variable.encode() in done.stderr


def test_a_token_until_a_moment_that_is_none_is_told_without_the_token(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("planted-token until tomorrow\n")
    settings = Settings.from_environment({**HOST, "TITANIC_WRITE_TOKENS_FILE": str(tokens)})
    with pytest.raises(ConfigurationError, match="until a moment that is none") as refused:
        settings.write_tokens()
    assert "planted" not in str(refused.value)
    tokens.write_text("a b until 1970-01-01T00:01:00\nc\n")
    assert settings.write_tokens() == {"a b": 60.0, "c": float("inf")}


def test_the_table_of_settings_is_the_code_s() -> None:
    rows = re.findall(r"^\| `(TITANIC_\w+)` \| (.+?) \| (.+?) \|$", README, re.MULTILINE)
    assert rows == [(spec.variable, spec.default, spec.meaning) for spec in SPECS]


def test_the_readme_names_every_endpoint_and_command() -> None:
    for path in document()["paths"]:
        assert f"`{path}`" in README or f"{path}`" in README, path
    for command in ("serve", "migrate", "seed", "check", "version", "openapi"):
        assert f"titanic-api {command}" in README


def test_one_version() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == titanic_api.__version__


def test_the_lock_is_hashed_and_names_no_address() -> None:
    lock = (ROOT / "requirements.txt").read_text()
    assert "://" not in lock
    assert "index-url" not in lock
    packages = [line for line in lock.splitlines() if re.match(r"[a-z]", line)]
    assert all(line.endswith("\\") for line in packages)
    assert {"flask", "gunicorn", "psycopg2-binary"} <= {line.partition("==")[0] for line in packages}


def test_the_rules_that_are_told_are_those_that_hold() -> None:
    rules = Settings.rules()
    assert {"TITANIC_POOL_SIZE", "TITANIC_STATEMENT_TIMEOUT_SECONDS", "TITANIC_LOG_LEVEL"} <= set(rules)
    for name, rule in rules.items():
        good = rule["choices"] if rule["type"] == "choice" else [rule["least"], rule["most"]]
        bad = ["four", ""] if rule["type"] == "choice" else ["four", "", rule["most"] + 1, rule["least"] - 1]
        for value in good:
            Settings.from_environment({"TITANIC_DATABASE_HOST": "h", name: str(value)})
        for value in bad:
            with pytest.raises(ConfigurationError, match=name):
                Settings.from_environment({"TITANIC_DATABASE_HOST": "h", name: str(value)})
