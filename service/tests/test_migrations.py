"""The schema: forward only, one at a time, constraints that hold, and earlier releases that go on working on it."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.errors
import pytest

from service.tests.lab import APP, OWNER, Database
from titanic_api import schema
from titanic_api.people import store

RELEASES = sorted((Path(__file__).parent / "releases").glob("*.json"))
UUID = "4b526675-9836-57f8-979a-6db7a63227bd"


def test_migrate_reports_and_repeats(empty_database: Database) -> None:
    expected: dict[str, Any] = {"from": None, "to": "0003", "changed": True, "pending": ["0001", "0002", "0003"]}
    expected["grants"] = grants = {table: names.split(", ") for table, names in schema.GRANTS.items()} | {
        "people_position": ["USAGE"]
    }
    assert empty_database.ok("migrate", "--check") == {**expected, "oldest_tolerated": "0001"}
    assert empty_database.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    assert empty_database.ok("migrate") == {**expected, "oldest_tolerated": "0001"}
    again = {"from": "0003", "to": "0003", "changed": False, "pending": [], "oldest_tolerated": "0001"}
    again["grants"] = grants
    assert empty_database.ok("migrate") == again
    assert empty_database.ok("migrate", "--check") == again


def test_ten_migrators_at_once(empty_database: Database) -> None:
    reports: list[Any] = []
    threads = [threading.Thread(target=lambda: reports.append(empty_database.ok("migrate"))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(report["changed"] for report in reports) == 1
    assert {report["to"] for report in reports} == {"0003"}


def test_a_lock_that_is_not_to_be_had_fails_the_migration_and_nothing_else(database: Database) -> None:
    database.sql("UPDATE alembic_version SET version_num = '0002'")
    database.sql("DROP INDEX people_by_part_of_name")
    database.sql("DROP TABLE idempotency_keys")
    connection = database.server.connect(database.name, OWNER)
    connection.autocommit = False
    with connection.cursor() as cursor:
        cursor.execute("LOCK TABLE people IN ROW EXCLUSIVE MODE")
        assert "lock timeout" in database.refused("migrate")
        assert database.ok("migrate", "--check")["from"] == "0002"
        connection.rollback()
    connection.close()
    assert database.ok("migrate")["to"] == "0003"


def test_a_schema_that_is_ahead_is_left_alone(database: Database) -> None:
    database.sql("UPDATE alembic_version SET version_num = '0007'")
    database.sql("UPDATE schema_contract SET oldest_tolerated = '0003'")
    report = database.ok("migrate")
    assert (report["changed"], report["to"], report["oldest_tolerated"]) == (False, "0007", "0003")
    assert database.ok("check")["schema"] == {"current": "0007", "required": "0003", "oldest_tolerated": "0003"}
    database.sql("UPDATE schema_contract SET oldest_tolerated = '0005'")
    said = database.refused("check")
    assert "tolerates no release older than 0005" in said


def test_without_the_application_s_role_it_refuses(empty_database: Database) -> None:
    said = empty_database.refused("migrate", DATABASE_USER="nobody_at_all")
    assert "nobody_at_all" in said
    assert empty_database.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_grants_are_mended(database: Database) -> None:
    database.sql(f"REVOKE INSERT ON people FROM {APP}")
    assert database.ok("migrate", "--check")["changed"] is True
    assert database.ok("migrate")["changed"] is True
    assert database.ok("migrate")["changed"] is False


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE people",
        "ALTER TABLE people ADD COLUMN x int",
        "CREATE TABLE mine (x int)",
        "TRUNCATE people",
        "DELETE FROM seeded_people",
        "UPDATE alembic_version SET version_num = '0009'",
        "SELECT setval('people_position', 1)",
    ],
)
def test_the_application_may_read_and_write_rows_only(template_copy: Database, statement: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        template_copy.sql(statement, user=APP)


INSERT = (
    "INSERT INTO people (survived, passenger_class, name, sex, age, siblings_or_spouses, parents_or_children, fare) "
    "VALUES (%(survived)s, %(passenger_class)s, %(name)s, %(sex)s, %(age)s, %(siblings)s, %(parents)s, %(fare)s)"
)
GOOD: dict[str, Any] = {
    "survived": True,
    "passenger_class": 1,
    "name": "A",
    "sex": "male",
    "age": None,
    "siblings": 0,
    "parents": 0,
    "fare": 0,
}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *[(column, None) for column in GOOD if column != "age"],
        ("passenger_class", 0),
        ("passenger_class", 4),
        ("name", ""),
        ("name", "x" * 201),
        *[("name", f"a{chr(code)}b") for code in (1, 9, 10, 13, 27, 31, 127, 128, 133, 159)],
        ("sex", "m"),
        ("age", -0.1),
        ("age", 150.1),
        ("age", float("nan")),
        ("siblings", -1),
        ("siblings", 101),
        ("parents", -1),
        ("parents", 101),
        ("fare", -0.01),
        ("fare", 1000000.01),
        ("fare", float("nan")),
        ("fare", float("inf")),
    ],
)
def test_the_database_itself_refuses(template_copy: Database, column: str, value: Any) -> None:
    with pytest.raises(psycopg2.errors.IntegrityError):
        template_copy.sql(INSERT, {**GOOD, column: value}, user=APP)


@pytest.mark.parametrize("sort", [None, *store.SORTS, *("-" + name for name in store.SORTS)])
def test_an_index_for_every_sort(database: Database, sort: str | None) -> None:
    plan = explain(database, f"SELECT uuid FROM people ORDER BY {store.order_by(sort)} LIMIT 10")
    assert "Index" in plan, plan
    assert "Seq Scan" not in plan, plan


@pytest.mark.parametrize("where", ["survived = true", "passenger_class = 3", "sex = 'male'"])
def test_an_index_for_every_filter(database: Database, where: str) -> None:
    # Without a limit: for the first ten of 887 the order's own index is as good.
    plan = explain(database, f"SELECT uuid FROM people WHERE {where}")
    assert "Seq Scan" not in plan, plan
    assert re.search(r"people_by_(survived|class|sex|part_of_name)", plan), plan


def test_an_index_for_a_part_of_a_name(database: Database) -> None:
    # Among 887 another index is as good; what counts is that there is one of the right kind, and that it can be used.
    for name in ("name", "age", "fare", "sex", "class", "survived"):
        database.sql(f"DROP INDEX people_by_{name}")
    database.sql("DROP INDEX people_in_order")
    plan = explain(database, "SELECT uuid FROM people WHERE name ILIKE '%dooley%'")
    assert "people_by_part_of_name" in plan, plan


def explain(database: Database, query: str) -> str:
    """The plan, where a table of 887 would be read as a whole if that were allowed."""
    connection = database.server.connect(database.name, OWNER)
    with connection.cursor() as cursor:
        # With known statistics, or the plan would depend on whether autovacuum has come by.
        cursor.execute("ANALYZE people")
        cursor.execute("SET enable_seqscan = off")
        cursor.execute("EXPLAIN " + query)
        plan = "\n".join(row[0] for row in cursor.fetchall())
    connection.close()
    return plan


# Every release leaves its queries here. They must work on this schema if it says that it tolerates the release.


def run_queries(database: Database, release: dict[str, Any]) -> None:
    """Everything the release does, as the application role."""
    connection = database.server.connect(database.name, APP)
    try:
        with connection.cursor() as cursor:
            for statement in release["statements"]:
                cursor.execute(statement)
    finally:
        connection.close()


@pytest.mark.parametrize("file", RELEASES, ids=lambda file: file.stem)
def test_every_tolerated_release_works_on_this_schema(database: Database, file: Path) -> None:
    release = json.loads(file.read_text())
    if release["required"] < schema.OLDEST_TOLERATED:
        pytest.skip("this schema says that it does not tolerate that release")
    run_queries(database, release)


def test_every_tolerated_revision_has_its_release() -> None:
    tolerated = [revision.id for revision in schema.REVISIONS if revision.id >= schema.OLDEST_TOLERATED]
    assert tolerated == [json.loads(file.read_text())["required"] for file in RELEASES]


def test_this_release_s_queries_are_recorded() -> None:
    """What the next release's migrations are tested with; it is written when a query changes."""
    recorded = json.loads(RELEASES[-1].read_text())["statements"]
    for statement in store.STATEMENTS:
        assert any(statement.sql in text for text in recorded), f"{statement.name} is not in {RELEASES[-1].name}"


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE people RENAME COLUMN fare TO price",
        "ALTER TABLE people DROP COLUMN age",
        "ALTER TABLE people ADD COLUMN cabin text; ALTER TABLE people ADD CHECK (cabin IS NOT NULL) NOT VALID",
        "ALTER TABLE people ADD CONSTRAINT old_enough CHECK (age > 100) NOT VALID",
        "DROP TABLE idempotency_keys",
        f"REVOKE UPDATE ON people FROM {APP}",
    ],
)
def test_an_incompatible_migration_is_found(database: Database, change: str) -> None:
    """The test above is worth something: each of these would break the running release, and it says so."""
    database.sql(change)
    with pytest.raises(psycopg2.Error):
        run_queries(database, json.loads(RELEASES[-1].read_text()))


def test_migrations_say_what_they_tolerate() -> None:
    ids = [revision.id for revision in schema.REVISIONS]
    assert ids == [f"{number:04}" for number in range(1, len(ids) + 1)]
    assert len(ids) >= 3
    tolerated = [revision.oldest_tolerated for revision in schema.REVISIONS]
    assert tolerated == sorted(tolerated), "what an earlier migration broke, a later one cannot mend"
    for path in sorted((schema.MIGRATIONS / "versions").glob("*.py")):
        text = path.read_text()
        assert "def downgrade" not in text, "forward only"
        assert path.name.startswith(re.findall(r'^revision: str = "(\d+)"', text, re.MULTILINE)[0])
