"""Creations that share a commit: nobody is answered early, refused for a neighbour or put behind a newcomer."""

from __future__ import annotations

import collections
import concurrent.futures
import threading
import time
from typing import Any

import requests

from service.tests.lab import Database, Serve, Service
from titanic_api.db import FairSemaphore

CLIENTS = 16
POSTS = 400


def post_all(service: Service, people: list[dict[str, Any]]) -> list[requests.Response]:
    """Every person by a client of their own, many at once; the answers in order."""
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as clients:
        url = service.url + "/people"
        return list(clients.map(lambda person: requests.post(url, json=person, timeout=20), people))


def test_creations_that_arrive_together_share_commits_and_are_all_there(
    serve: Serve, database: Database, person: dict[str, Any]
) -> None:
    service = serve(WORKERS=1)
    database.sql("ALTER TABLE people ADD COLUMN made_by xid8 DEFAULT pg_current_xact_id()")
    answers = post_all(service, [{**person, "name": f"Shared {number}"} for number in range(POSTS)])
    assert collections.Counter(answer.status_code for answer in answers) == {201: POSTS}
    rows = database.sql("SELECT name, uuid::text, made_by::text FROM people WHERE name LIKE 'Shared %'")
    assert sorted(row[0] for row in rows) == sorted(f"Shared {number}" for number in range(POSTS))
    assert {row[1] for row in rows} == {answer.json()["uuid"] for answer in answers}
    assert len({row[2] for row in rows}) < POSTS, "no two creations shared a transaction"
    for answer in answers[:20]:
        assert service.get(answer.headers["Location"]).json() == answer.json()


def test_a_refused_neighbour_is_refused_alone(serve: Serve, database: Database, person: dict[str, Any]) -> None:
    service = serve(WORKERS=1)
    database.sql("ALTER TABLE people ADD CONSTRAINT planted_valid CHECK (name NOT LIKE 'Refused %') NOT VALID")
    names = [f"{'Refused' if number % 10 == 3 else 'Taken'} {number}" for number in range(POSTS)]
    answers = post_all(service, [{**person, "name": name} for name in names])
    for name, answer in zip(names, answers, strict=True):
        assert answer.status_code == (422 if name.startswith("Refused") else 201), (name, answer.text)
    assert database.sql("SELECT count(*) FROM people WHERE name LIKE 'Taken %'") == [(POSTS - POSTS // 10,)]


def test_places_go_to_who_has_waited_longest() -> None:
    semaphore = FairSemaphore(1)
    assert semaphore.acquire(0)
    served: list[int] = []

    def wait(number: int) -> None:
        assert semaphore.acquire(10)
        served.append(number)
        time.sleep(0.01)
        semaphore.release()

    waiting = []
    for number in range(5):
        waiting.append(threading.Thread(target=wait, args=(number,)))
        waiting[-1].start()
        time.sleep(0.05)
    semaphore.release()
    for thread in waiting:
        thread.join()
    assert served == [0, 1, 2, 3, 4]


def test_a_place_that_nobody_gives_back_is_waited_for_no_longer_than_allowed() -> None:
    semaphore = FairSemaphore(1)
    assert semaphore.acquire(0)
    began = time.monotonic()
    assert not semaphore.acquire(0.1)
    assert time.monotonic() - began < 60
    semaphore.release()
    assert semaphore.acquire(0)
