"""`python -m bench.seed`: a million rows by `titanic-api seed` beside a bare COPY of the same rows, in turn."""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.candidates import service
from bench.postgres import Postgres, running_postgres

HEADER = "Survived,Pclass,Name,Sex,Age,Siblings/Spouses Aboard,Parents/Children Aboard,Fare"
GOAL = 2.0  # a seed may take this many times as long as the COPY


def write_passengers(path: Path, rows: int) -> None:
    """Write so many passengers as a CSV that a seed takes."""
    with path.open("w") as file:
        file.write(HEADER + "\n")
        for number in range(rows):
            sex, age = ("male", number % 80) if number % 3 else ("female", "")
            name = f"Mr. Number {number * 7919 % rows} Someone"
            file.write(f"{number % 2},{number % 3 + 1},{name},{sex},{age},1,0,{number % 512}\n")


def _command(postgres: Postgres, *words: str) -> None:
    environment = {**os.environ, **service(postgres).environment, "TITANIC_BIND": "127.0.0.1:8000"}
    command = [sys.executable, "-m", "titanic_api", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"titanic-api {words[0]} failed: {done.stderr[-2000:]}")


def _pair(postgres: Postgres, passengers: Path, copied: Path) -> tuple[float, float]:
    """Seconds of one seed into an empty database, and of one COPY into a table just like it."""
    postgres.execute("DROP DATABASE IF EXISTS titanic; CREATE DATABASE titanic OWNER titanic_owner")
    _command(postgres, "migrate")
    started = time.monotonic()
    _command(postgres, "seed", "--file", str(passengers))
    seeding = time.monotonic() - started
    postgres.execute("CREATE TABLE other (LIKE people INCLUDING ALL)", "titanic")
    connection = postgres.connect("titanic")
    with connection.cursor() as cursor:
        with copied.open("w") as file:
            cursor.copy_expert("COPY people TO STDOUT", file)
        with copied.open() as file:
            started = time.monotonic()
            cursor.copy_expert("COPY other FROM STDIN", file)
            copying = time.monotonic() - started
    connection.close()
    return seeding, copying


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when the goal is met."""
    parser = argparse.ArgumentParser(prog="python -m bench.seed", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="titanic-bench-") as name, running_postgres(Path(name)) as postgres:
        postgres.execute("CREATE ROLE titanic_owner LOGIN; CREATE ROLE titanic_app LOGIN")
        passengers = Path(name) / "passengers.csv"
        write_passengers(passengers, chosen.rows)
        pairs = [_pair(postgres, passengers, Path(name) / "copy") for _ in range(chosen.rounds)]
    ratio = statistics.median(seeding / copying for seeding, copying in pairs)
    seconds = ", ".join(f"{seeding:.1f} s and {copying:.1f} s" for seeding, copying in pairs)
    print(f"{chosen.rows} rows, seed and bare COPY: {seconds}; ratio {ratio:.2f} (goal: {GOAL:g} at most)")
    return 0 if ratio <= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
