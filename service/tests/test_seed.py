"""The seed: the data set itself, merging, refusing, racing, dying, and its speed."""

from __future__ import annotations

import csv
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from decimal import Decimal
from importlib.resources import files
from pathlib import Path

import pytest

from service.tests.lab import PERSON, Database, Serve
from titanic_api.seed import passenger_uuid

PACKAGED = Path(str(files("titanic_api"))) / "data" / "titanic.csv"
HEADER = "Survived,Pclass,Name,Sex,Age,Siblings/Spouses Aboard,Parents/Children Aboard,Fare"
ROWS = ["1,1,Ms. A One,female,30,0,0,7.25", '0,3,"Mr. B, Two",male,,1,2,8', "0,2,Mr. C Three,other,0.42,0,0,0"]
CSV = "\n".join([HEADER, *ROWS]) + "\n"
MANY = 30_000


def test_the_data_set_is_the_one_of_the_design() -> None:
    raw = PACKAGED.read_bytes()
    rows = list(csv.DictReader(io.StringIO(raw.decode())))
    assert raw.decode().splitlines()[0] == HEADER
    assert b"\r" not in raw
    assert raw.endswith(b"\n")
    assert len(rows) == 887
    assert Counter(row["Survived"] for row in rows) == {"1": 342, "0": 545}
    assert Counter(row["Pclass"] for row in rows) == {"1": 216, "2": 184, "3": 487}
    assert Counter(row["Sex"] for row in rows) == {"male": 573, "female": 314}
    fares = [Decimal(row["Fare"]) for row in rows]
    assert (sum(fares), fares.count(Decimal(0)), max(fares)) == (Decimal("28654.9077"), 15, Decimal("512.3292"))
    assert sum(row["Age"] == "" for row in rows) == 173
    assert not any('"' in row["Name"] for row in rows)


def test_a_release_says_without_a_database_what_it_would_seed(template_copy: Database) -> None:
    told = template_copy.ok("version", DATABASE_HOST="/nowhere")
    assert told["seed"] == template_copy.ok("seed", "--check")["sha256"]
    assert told["seed"] == "ddade662d3bb8b6fceea4c8fc24fb30162a640a50996a78770d18caaa99d5f78"
    assert {"TITANIC_BIND", "TITANIC_POOL_SIZE", "TITANIC_DATABASE_HOST"} <= set(told["settings"])


def seeded(database: Database, text: str | bytes, *arguments: str) -> dict[str, object]:
    data = text.encode() if isinstance(text, str) else text
    result: dict[str, object] = database.ok("seed", "--file", "-", *arguments, stdin=data)
    return result


def test_twice_is_once(database: Database) -> None:
    before = database.people()
    assert len(before) == 887
    again = database.ok("seed")
    assert {name: again[name] for name in ("inserted", "updated", "unchanged", "total", "changed")} == {
        "inserted": 0,
        "updated": 0,
        "unchanged": 887,
        "total": 887,
        "changed": False,
    }
    assert database.people() == before
    assert database.ok("check")["rows"] == 887


def test_what_is_remembered_tells_of_seeds_and_not_of_users(database: Database) -> None:
    first = database.ok("seed")["remembered"]
    database.sql("UPDATE people SET age = 99 WHERE position = 1")
    database.sql("DELETE FROM people WHERE position = 2")
    assert database.ok("seed", "--check")["remembered"] == first
    database.sql("DELETE FROM seeded_people WHERE uuid = (SELECT uuid FROM people WHERE position = 3)")
    assert database.ok("seed")["remembered"] == first
    assert seeded(database, CSV)["remembered"] != first


def test_line_ends_and_what_spreadsheets_add_do_not_matter(empty_database: Database) -> None:
    empty_database.ok("migrate")
    first = seeded(empty_database, CSV)
    assert first["inserted"] == 3
    spreadsheet = "\ufeff" + CSV.replace("\n", "\r\n") + "\r\n\r\n"
    for text in (CSV.replace("\n", "\r\n"), CSV.rstrip("\n"), CSV.replace("\n", "\r\n").rstrip(), spreadsheet):
        again = seeded(empty_database, text)
        assert (again["unchanged"], again["sha256"]) == (3, first["sha256"])
    columns = list(csv.reader(io.StringIO(CSV)))
    turned = io.StringIO()
    csv.writer(turned).writerows([row[::-1] for row in columns])
    assert seeded(empty_database, turned.getvalue())["sha256"] == first["sha256"]
    assert seeded(empty_database, CSV.replace(",30,", ",30.0,").replace(",8\n", ",8.00\n"))["sha256"] == first["sha256"]


def test_ages_that_come_later_reach_the_same_people(empty_database: Database) -> None:
    empty_database.ok("migrate")
    seeded(empty_database, CSV)
    uuids = [row[0] for row in empty_database.people()]
    assert uuids[1] == passenger_uuid("Mr. B, Two")
    later = seeded(empty_database, CSV.replace(",male,,", ",male,44,"))
    assert (later["inserted"], later["updated"], later["unchanged"]) == (0, 1, 2)
    assert [row[0] for row in empty_database.people()] == uuids
    assert empty_database.sql("SELECT age FROM people ORDER BY position")[1][0] == 44


def test_what_users_did_is_left_alone_until_reset(database: Database, serve: Serve) -> None:
    service = serve()
    people = service.get("/people").json()
    changed, deleted = people[3]["uuid"], people[5]["uuid"]
    assert service("PATCH", f"/people/{changed}", json={"name": "Changed"}).ok
    assert service("DELETE", f"/people/{deleted}").ok
    added = service.post(PERSON).json()
    before = service.get("/people").json()
    assert len(before) == 887

    assert database.ok("seed")["changed"] is False
    assert service.get("/people").json() == before

    report = database.ok("seed", "--reset", "--check")
    assert (report["inserted"], report["updated"], report["unchanged"], report["changed"]) == (1, 1, 885, True)
    assert service.get("/people").json() == before, "--check changes nothing"

    assert database.ok("seed", "--reset") == report
    assert service.get("/people").json() == [*people, added]
    assert database.ok("seed", "--reset")["changed"] is False


REFUSED = {
    "empty": (b"", "is empty"),
    "header only": (HEADER.encode() + b"\n", "no passenger"),
    "byte order mark later": (CSV.replace("\n1,1", "\n\ufeff1,1").encode(), "line 2: column 1 (Survived)"),
    "lines that end in CR": (CSV.replace("\n", "\r").encode(), "line 1: ends in CR alone"),
    "many lines that end in CR": (CSV.replace("\n", "\r").encode() * 2000, "line 1: ends in CR alone"),
    "missing column": (CSV.replace(",Fare", "").encode(), "line 1: column 'Fare' is missing"),
    "unknown column": (CSV.replace(",Fare", ",Price").encode(), "line 1: column 8: 'Price' is not a column"),
    "repeated column": (CSV.replace(",Fare", ",Age").encode(), "line 1: column 8: 'Age' is there twice"),
    "no header": ("\n".join(ROWS).encode(), "line 1: column 1: '1' is not a column"),
    "short row": (CSV.encode() + b"1,1,x\n", "line 5: has 3 columns and not 8"),
    "long row": (CSV.encode() + b"1,1,x,male,1,0,0,1,9\n", "line 5: has 9 columns and not 8"),
    "blank line": (CSV.encode() + b"\n" + b"1,1,x,male,1,0,0,1\n", "line 5: is blank"),
    "wrong survived": (CSV.replace("\n0,3", "\nyes,3").encode(), "line 3: column 1 (Survived): must be an integer"),
    "wrong class": (CSV.replace("\n0,3", "\n0,4").encode(), "line 3: column 2 (Pclass): must be an integer"),
    "wrong sex": (CSV.replace("other", "cat").encode(), "line 4: column 4 (Sex): must be one of"),
    "wrong age": (CSV.replace("0.42", "young").encode(), "line 4: column 5 (Age): must be a number"),
    "negative age": (CSV.replace("0.42", "-1").encode(), "line 4: column 5 (Age)"),
    "age with blank": (CSV.replace("0.42", " 4").encode(), "line 4: column 5 (Age)"),
    "infinite age": (CSV.replace("0.42", "inf").encode(), "line 4: column 5 (Age)"),
    "digits of elsewhere": (CSV.replace("0.42", "٣").encode(), "line 4: column 5 (Age)"),
    "large fare": (CSV.replace("7.25", "1000001").encode(), "line 2: column 8 (Fare)"),
    "no fare": (CSV.replace("7.25", "").encode(), "line 2: column 8 (Fare)"),
    "many relatives": (CSV.replace(",1,2,8", ",101,2,8").encode(), "line 3: column 6 (Siblings/Spouses Aboard)"),
    "no name": (CSV.replace("Mr. C Three", "").encode(), "line 4: column 3 (Name)"),
    "blank name": (CSV.replace("Mr. C Three", "\u200b").encode(), "line 4: column 3 (Name): must hold a visible"),
    "turned name": (
        CSV.replace("Mr. C Three", "\u202eMr.").encode(),
        "line 4: column 3 (Name): must not hold a control",
    ),
    "long name": (CSV.replace("Mr. C Three", "x" * 201).encode(), "line 4: column 3 (Name)"),
    "name over two lines": (CSV.replace("Mr. B, Two", "Mr. B\nTwo").encode(), "line 4: column 3 (Name)"),
    "tab in a name": (CSV.replace("C Three", "C\tThree").encode(), "line 4: column 3 (Name)"),
    "same name twice": (CSV.encode() + ROWS[0].encode() + b"\n", "line 5: column 3 (Name): 'Ms. A One' is on line 2"),
    "NUL": (CSV.replace("C Three", "C\x00Three").encode(), "line 4: byte 10: holds a NUL"),
    "Latin-1": (CSV.replace("C Three", "C Thré").encode("latin-1"), "line 4: byte 14: is not UTF-8"),
    "UTF-16": (CSV.encode("utf-16"), "line 1"),
    "open quote": (CSV.encode() + b'1,1,"x,male,1,0,0,1\n', "line 5"),
    "quote inside": (CSV.replace('"Mr. B, Two"', '"Mr. B" x').encode(), "line 3"),
    "lone CR": (CSV.replace("C Three", "C\rThree").encode(), "line 4: holds a CR that ends no line"),
    "endless line": (CSV.encode() + b"x" * 70_000, "line 5: is longer"),
    "binary": (os.urandom(4000), "line 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_csv_is_refused_whole(template_copy: Database, case: str) -> None:
    before = template_copy.people()
    data, says = REFUSED[case]
    said = template_copy.refused("seed", "--file", "-", stdin=data)
    assert "the database" not in said, "the file is at fault, and the message says so"
    assert says in said, said
    assert template_copy.people() == before


def test_a_missing_file_is_refused(template_copy: Database, tmp_path: Path) -> None:
    assert "No such file" in template_copy.refused("seed", "--file", str(tmp_path / "nope.csv"))
    assert "directory" in template_copy.refused("seed", "--file", str(tmp_path))


def test_without_a_schema_it_refuses(empty_database: Database) -> None:
    assert "titanic-api migrate" in empty_database.refused("seed")


def test_ten_at_once_leave_the_exact_set(empty_database: Database, database: Database) -> None:
    empty_database.ok("migrate")
    reports = []
    threads = [threading.Thread(target=lambda: reports.append(empty_database.ok("seed"))) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(report["inserted"] for report in reports) == [0] * 9 + [887]
    assert empty_database.people() == database.people()


def test_killed_half_way_nothing_is_visible(empty_database: Database) -> None:
    empty_database.ok("migrate")
    process = subprocess.Popen(
        [sys.executable, "-m", "titanic_api", "seed", "--file", "-"],
        stdin=subprocess.PIPE,
        env=empty_database.environment(),
    )
    assert process.stdin is not None
    process.stdin.write(CSV.encode() + b"".join(b"1,1,Mr. %d,male,1,0,0,1\n" % number for number in range(20_000)))
    process.stdin.flush()
    time.sleep(1)
    assert empty_database.people() == []
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    assert empty_database.people() == []
    assert seeded(empty_database, CSV)["inserted"] == 3


def test_the_application_cannot_seed(database: Database) -> None:
    assert "permission denied" in database.refused("seed", DATABASE_OWNER="titanic_app")


def test_many_rows_arrive_as_they_are(empty_database: Database, tmp_path: Path) -> None:
    """More than one piece of the stream. How long a million take is measured beside COPY: python -m bench.seed."""
    empty_database.ok("migrate")
    path = tmp_path / "people.csv"
    lines = [f"{n % 2},{n % 3 + 1},Mr. Number {n} Someone,male,{n % 80},1,0,{n % 512}" for n in range(MANY)]
    path.write_text("\n".join([HEADER, *lines]))
    assert empty_database.ok("seed", "--file", str(path))["inserted"] == MANY
    assert empty_database.ok("seed", "--file", str(path))["unchanged"] == MANY
    rows = empty_database.sql("SELECT name, age, fare FROM people ORDER BY position")
    assert rows == [(f"Mr. Number {n} Someone", n % 80, n % 512) for n in range(MANY)]
