"""The table of people, with every rule that the API states, and an index for each filter and sort key."""

from __future__ import annotations

from alembic import op

revision: str = "0001"
down_revision: str | None = None
# The oldest application revision (the one that a release requires) that can live on this schema.
oldest_tolerated: str = "0001"


def upgrade() -> None:
    """Expand only: everything is new."""
    op.execute(
        r"""
        CREATE TABLE schema_contract (
            only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
            oldest_tolerated text NOT NULL
        );
        COMMENT ON TABLE schema_contract IS 'What this schema promises to the releases that run on it';
        INSERT INTO schema_contract (oldest_tolerated) VALUES ('0001');

        -- Seeded people stand at the line of their CSV, others after a thousand million in the order of creation.
        CREATE SEQUENCE people_position START 1000000001 MINVALUE 1000000001;
        CREATE TABLE people (
            uuid uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            position bigint NOT NULL DEFAULT nextval('people_position'),
            survived boolean NOT NULL,
            passenger_class smallint NOT NULL CONSTRAINT "passengerClass_valid" CHECK (passenger_class BETWEEN 1 AND 3),
            siblings_or_spouses smallint NOT NULL
                CONSTRAINT "siblingsOrSpousesAboard_valid" CHECK (siblings_or_spouses BETWEEN 0 AND 100),
            parents_or_children smallint NOT NULL
                CONSTRAINT "parentsOrChildrenAboard_valid" CHECK (parents_or_children BETWEEN 0 AND 100),
            age double precision CONSTRAINT age_valid CHECK (age BETWEEN 0 AND 150),
            fare double precision NOT NULL CONSTRAINT fare_valid CHECK (fare BETWEEN 0 AND 1000000),
            sex text NOT NULL CONSTRAINT sex_valid CHECK (sex IN ('male', 'female', 'other')),
            name text NOT NULL CONSTRAINT name_valid CHECK (
                char_length(name) BETWEEN 1 AND 200 AND name !~ '[\u0001-\u001F\u007F-\u009F]'
            )
        );
        ALTER SEQUENCE people_position OWNED BY people.position;

        CREATE INDEX people_in_order ON people (position, uuid);
        CREATE INDEX people_by_survived ON people (survived, position, uuid);
        CREATE INDEX people_by_class ON people (passenger_class, position, uuid);
        CREATE INDEX people_by_sex ON people (sex, position, uuid);
        CREATE INDEX people_by_name ON people (name, position, uuid);
        CREATE INDEX people_by_age ON people (age, position, uuid);
        CREATE INDEX people_by_age_falling ON people (age DESC NULLS LAST);
        CREATE INDEX people_by_fare ON people (fare, position, uuid);
        """
    )
