"""Runs the migrations on the connection that ``titanic_api.schema`` hands over, one transaction each."""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import text

# A migration waits this long for its locks at most, since everybody else queues behind it, and then fails as a whole.
LOCK_TIMEOUT = "5s"
STATEMENT_TIMEOUT = "600s"


def _record(ctx: Any, step: Any, heads: Any, run_args: Any) -> None:  # noqa: ARG001 (Alembic names them)
    """Write what the new schema tolerates, in the migration's own transaction."""
    oldest = context.script.get_revision(step.up_revision_id).module.oldest_tolerated
    ctx.connection.execute(text("UPDATE schema_contract SET oldest_tolerated = :oldest"), {"oldest": oldest})


connection = context.config.attributes["connection"]
connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
connection.execute(text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
connection.commit()
context.configure(connection=connection, transaction_per_migration=True, on_version_apply=_record)
context.run_migrations()
