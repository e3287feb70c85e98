"""What is asked of each candidate, and the check that all of them give the same answers."""

import random
import time
from dataclasses import dataclass
from typing import Any

from bench.candidates import STALE_SECONDS, Running
from bench.exchange import get, post, raw_request
from bench.postgres import Postgres

NEW_NAME = "Bench"
REMOVE_NEW = f"DELETE FROM people WHERE name LIKE '{NEW_NAME} %'; VACUUM ANALYZE people; CHECKPOINT"


@dataclass(frozen=True)
class Route:
    """One kind of request."""

    key: str
    label: str
    status: int
    requests: list[str]


def routes(people: list[dict[str, Any]]) -> list[Route]:
    """Return the three routes, given what `GET /people` answers."""
    identities = [person["uuid"] for person in people]
    random.Random(0).shuffle(identities)
    return [
        Route("one", "GET /people/{uuid}", 200, [raw_request("GET", f"/people/{identity}") for identity in identities]),
        Route("list", "GET /people (887 rows)", 200, [raw_request("GET", "/people")]),
        Route("create", "POST /people", 201, [raw_request("POST", "/people", new_person(n)) for n in range(500)]),
    ]


def new_person(number: int) -> dict[str, Any]:
    """Return a body for POST /people."""
    return {
        "survived": bool(number % 2),
        "passengerClass": number % 3 + 1,
        "name": f"{NEW_NAME} {number}",
        "sex": ("male", "female", "other")[number % 3],
        "age": number % 90,
        "siblingsOrSpousesAboard": number % 5,
        "parentsOrChildrenAboard": number % 4,
        "fare": number % 500 + 0.25,
    }


def remove_new(postgres: Postgres, database: str) -> None:
    """Delete what POST made and leave the table as compact as it was, so that no round pays for the one before."""
    postgres.execute(REMOVE_NEW, database)


def compare(servers: list[Running], postgres: Postgres) -> list[dict[str, Any]]:
    """Return the list all candidates agree on; raise `ValueError` if one answers any of the three routes differently.

    Bodies are compared as JSON values: 22 and 22.0 are the same age; the order of keys and white space do not matter.
    """
    time.sleep(STALE_SECONDS)
    reference = get(servers[0].port, "/people").json()
    if len(reference) != 887:
        raise ValueError(f"{len(reference)} people instead of 887")
    for server in servers:
        name = server.candidate.label
        if get(server.port, "/people").json() != reference:
            raise ValueError(f"{name} answers GET /people differently")
        for person in reference[::100]:
            if get(server.port, f"/people/{person['uuid']}").json() != person:
                raise ValueError(f"{name} answers GET /people/{person['uuid']} differently")
        created = post(server.port, "/people", new_person(0))
        person = {**new_person(0), "uuid": created.json().get("uuid")}
        if created.status != 201 or created.json() != person:
            raise ValueError(f"{name} answers POST /people differently: {created.status} {created.body!r}")
        if get(server.port, f"/people/{person['uuid']}").json() != person:
            raise ValueError(f"{name} does not give back what was posted")
        remove_new(postgres, server.candidate.database)
    return list(reference)
