"""Remembers what each Idempotency-Key was answered, and makes the search for a part of a name quick."""

from __future__ import annotations

from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
oldest_tolerated: str = "0001"


def upgrade() -> None:
    """Expand only: a new table and a new index. pg_trgm comes with PostgreSQL and needs no superuser."""
    op.execute(
        """
        CREATE TABLE idempotency_keys (
            key text PRIMARY KEY CHECK (char_length(key) BETWEEN 1 AND 255),
            request bytea NOT NULL,
            body bytea NOT NULL,
            location text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now()
        );
        CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

        CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public;
        CREATE INDEX people_by_part_of_name ON people USING gin (name gin_trgm_ops);
        """
    )
