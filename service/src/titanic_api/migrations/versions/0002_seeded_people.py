"""A ledger of what was seeded, so that a later seed can tell the users' own changes and deletions from its own rows."""

from __future__ import annotations

from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
oldest_tolerated: str = "0001"


def upgrade() -> None:
    """Expand only: a table that the application does not use."""
    op.execute(
        """
        CREATE TABLE seeded_people (
            uuid uuid PRIMARY KEY,
            values_hash uuid NOT NULL
        );
        COMMENT ON TABLE seeded_people IS 'The uuid of each person ever seeded, and the MD5 of the values it was given';
        """
    )
