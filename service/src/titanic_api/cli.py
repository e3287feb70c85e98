"""The commands: JSON on standard output, one clear line on standard error when something is refused.

Each command imports what it needs when it is run. Psycopg2, gevent and gunicorn take 0.15 s to import; Python with this
module alone starts in 0.09 s. The master of ``serve`` must not import what gevent has still to patch in its workers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from titanic_api import __version__
from titanic_api.config import ConfigurationError, Settings

OK, FAILED, USAGE = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 refused or failed, 2 wrong usage or configuration."""
    options = _parser().parse_args(arguments)
    try:
        result: int = options.run(options)
        return result
    except ConfigurationError as error:
        return _say(str(error), USAGE)
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except BrokenPipeError:
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="titanic-api", description="The Titanic API. Settings: TITANIC_* variables.")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    command("serve", _serve, "Serve the API until SIGTERM.")
    migrate = command("migrate", _migrate, "Bring the database's schema to this release's revision.")
    migrate.add_argument("--check", action="store_true", help="only say what would be done")
    seed = command("seed", _seed, "Load passengers from a CSV; what users changed or deleted is left alone.")
    seed.add_argument("--file", metavar="CSV", help="the CSV, - for standard input; by default the packaged data set")
    seed.add_argument("--reset", action="store_true", help="give the CSV's passengers the CSV's values again")
    seed.add_argument("--check", action="store_true", help="only say what would be done")
    command("check", _check, "Say whether this release can serve this database.")
    command("version", _version, "Say which version, schema revision and packaged data set this is.")
    command("openapi", _openapi, "Print the OpenAPI document.")
    return parser


def _print(value: Any) -> None:
    print(json.dumps(value), flush=True)


def _say(message: str, code: int) -> int:
    print("titanic-api: " + " ".join(message.split()), file=sys.stderr)
    return code


def _settings() -> Settings:
    return Settings.from_environment(os.environ)


def _serve(_: argparse.Namespace) -> int:
    from titanic_api.serve import serve

    serve(_settings())
    return OK


def _migrate(options: argparse.Namespace) -> int:
    from titanic_api import schema

    return _database_command(lambda: schema.migrate(_settings(), check=options.check))


def _seed(options: argparse.Namespace) -> int:
    from titanic_api.seed import seed

    return _database_command(lambda: seed(_settings(), options.file, reset=options.reset, check=options.check))


def _database_command(run: Callable[[], dict[str, Any]]) -> int:
    from titanic_api import db, schema

    try:
        _print(run())
    except schema.Refused as error:
        return _say(str(error), FAILED)
    except db.Error as error:
        return _say(f"the database refused: {error}", FAILED)
    return OK


def _check(_: argparse.Namespace) -> int:
    from titanic_api import db, schema

    settings = _settings()
    state, rows, problems = schema.State(None, None), None, []
    try:
        state, rows = schema.inspect(settings)
        problem = schema.problem(state)
        problems = [problem] if problem else []
    except db.Error as error:
        problems.append("the database refused: " + " ".join(str(error).split()))
    report = {
        "ok": not problems,
        "problems": problems,
        "release": settings.release,
        "version": __version__,
        "rows": rows,
        "schema": {
            "current": state.current,
            "required": schema.REQUIRED,
            "oldest_tolerated": state.oldest_tolerated,
        },
    }
    _print(report)
    return _say("; ".join(problems), FAILED) if problems else OK


def _version(_: argparse.Namespace) -> int:
    from titanic_api import schema
    from titanic_api.seed import packaged_sha256

    required = {"required": schema.REQUIRED, "oldest_tolerated": schema.OLDEST_TOLERATED}
    settings = {"settings": Settings.variables(), "rules": Settings.rules()}
    _print({"version": __version__, "schema": required, "seed": packaged_sha256(), **settings})
    return OK


def _openapi(_: argparse.Namespace) -> int:
    from titanic_api.openapi import document

    _print(document())
    return OK
