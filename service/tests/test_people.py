"""The contract of /people, asked over HTTP of a real gunicorn on a real PostgreSQL."""

from __future__ import annotations

import json
import threading
import uuid as uuids
from pathlib import Path
from typing import Any

import pytest
import requests

from service.tests.lab import PERSON, Serve, Service

FIELDS = ["uuid", *PERSON]
ABSENT = "/people/" + "0" * 8 + "-0000-4000-8000-" + "0" * 12
JSON = {"Content-Type": "application/json"}


def problem(answer: requests.Response, status: int, *fields: str) -> dict[str, Any]:
    """The problem document of an answer, which must be one with this status that names these fields."""
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["Content-Type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert {"type", "title", "detail", "errors"} <= document.keys()
    assert document["errors"], "an error names what is wrong"
    for field in fields:
        assert field in [error["field"] for error in document["errors"]], document
    return document


def test_everybody_in_the_data_set_s_order(service: Service) -> None:
    answer = service.get("/people")
    people = answer.json()
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert len(people) == 887
    assert [list(person) for person in people] == [FIELDS] * 887
    assert people[0]["name"] == "Mr. Owen Harris Braund"
    assert people[886]["name"] == "Mr. Patrick Dooley"
    assert sum(person["survived"] is True for person in people) == 342
    assert sum(person["age"] is None for person in people) == 173


def test_numbers_are_written_as_the_contract_says(service: Service) -> None:
    text = service.get("/people").text
    people = json.loads(text, parse_float=str, parse_int=str)
    assert all("." in person["fare"] for person in people)
    assert {"fare": people[27]["fare"], "age": people[27]["age"]} == {"fare": "263.0", "age": "19"}
    assert "0.42" in {person["age"] for person in people}


@pytest.mark.parametrize(
    ("age", "fare", "written"),
    [
        (22, 7, '"age":22,"siblings…"fare":7.0}'),
        (22.0, 7.25, '"age":22,"siblings…"fare":7.25}'),
        (0.42, 0, '"age":0.42,"siblings…"fare":0.0}'),
        (None, 1e-7, '"age":null,"siblings…"fare":0.0000001}'),
        (1e-9, 1000000, '"age":0.000000001,"siblings…"fare":1000000.0}'),
        (-0.0, -0.0, '"age":0,"siblings…"fare":0.0}'),
        (150, 512.3292, '"age":150,"siblings…"fare":512.3292}'),
    ],
)
def test_numbers_that_come_in(service: Service, person: dict[str, Any], age: Any, fare: Any, written: str) -> None:
    answer = service.post({**person, "age": age, "fare": fare})
    assert answer.status_code == 201
    for part in written.split("…"):
        assert part in answer.text
    again = service.get(answer.headers["Location"])
    assert again.content == answer.content
    service("DELETE", answer.headers["Location"])


def test_a_life(service: Service, person: dict[str, Any]) -> None:
    made = service.post(person)
    assert made.status_code == 201
    uuid = made.json()["uuid"]
    assert str(uuids.UUID(uuid)) == uuid
    path = made.headers["Location"]
    assert path == f"/people/{uuid}"
    assert made.json() == {"uuid": uuid, **person}
    found = service.get(path)
    assert (found.status_code, found.content, found.headers["ETag"]) == (200, made.content, made.headers["ETag"])
    assert service.get(path.upper().replace("/PEOPLE", "/people")).content == made.content
    assert service.get("/people").json()[-1] == made.json()

    whole = {**person, "name": "Dr. Other Person", "survived": 0, "uuid": uuid}
    del whole["age"]
    replaced = service("PUT", path, json=whole)
    assert replaced.status_code == 200
    assert replaced.json() == {"uuid": uuid, **person, "name": "Dr. Other Person", "survived": False, "age": None}
    assert service.get(path).content == replaced.content

    changed = service("PATCH", path, json={"age": 4, "survived": 1})
    assert changed.status_code == 200
    assert changed.json() == {**replaced.json(), "age": 4, "survived": True}
    assert service("PATCH", path, json={"age": None}).json()["age"] is None
    assert service("PATCH", path, data=b"{}", headers={"Content-Type": "application/merge-patch+json"}).ok
    assert service("PATCH", path, json={}).headers["ETag"] == service.get(path).headers["ETag"]

    gone = service("DELETE", path)
    assert (gone.status_code, gone.content) == (204, b"")
    for method in ("GET", "DELETE"):
        problem(service(method, path), 404, "uuid")
    problem(service("PUT", path, json=person), 404, "uuid")
    problem(service("PATCH", path, json={}), 404, "uuid")


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "path", [ABSENT, "/people/1", "/people/x", "/people/" + "0" * 32, "/people/{" + ABSENT[8:] + "}", "/people/%00"]
)
def test_nobody_there(service: Service, person: dict[str, Any], method: str, path: str) -> None:
    problem(service(method, path, json=None if method in ("GET", "DELETE") else person), 404, "uuid")


BAD_VALUES: dict[str, list[Any]] = {
    "survived": [None, 2, -1, "true", "1", "", 0.5, [], {}, "yes"],
    "passengerClass": [None, 0, 4, -1, "1", True, False, 1.5, [], {}, 10**30, 1e300],
    "name": [
        None,
        "",
        1,
        True,
        [],
        {},
        "x" * 201,
        "a\x00b",
        "a\nb",
        "a\rb",
        "a\x1bb",
        "a\x7fb",
        "a\x85b",
        "\ud800",
        " ",
        "\u200b",
        "\u00a0\u3000",
        "\u3164",
        "a\u202eb",
        "\u2067a",
        "a\u2028b",
        "\u2029",
        "\u0301\u20dd",
        "\ufeff",
        "\U000e0041",
        "\U0001d173",
    ],
    "sex": [None, "", "m", "Male", 1, True, [], {}, "male "],
    "age": ["", "22", True, -1, -0.01, 150.01, 1e300, [], {}, 10**400],
    "siblingsOrSpousesAboard": [None, -1, 101, "1", True, 0.5, [], {}, 2**63],
    "parentsOrChildrenAboard": [None, -1, 101, "1", True, 0.5, [], {}, 2**63],
    "fare": [None, -0.01, 1000000.01, "7.25", True, [], {}, 1e309],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in BAD_VALUES.items() for value in values]
)
def test_a_bad_value_is_refused_by_name(service: Service, person: dict[str, Any], field: str, value: Any) -> None:
    body = json.dumps({**person, field: value})
    problem(service("POST", "/people", data=body, headers=JSON), 422, field)
    existing = service.get("/people?limit=1").json()[0]
    path = f"/people/{existing['uuid']}"
    problem(service("PUT", path, data=body, headers=JSON), 422, field)
    problem(service("PATCH", path, data=json.dumps({field: value}), headers=JSON), 422, field)
    assert service.get(path).json() == existing


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("field", PERSON)
def test_no_number_is_no_number(service: Service, person: dict[str, Any], field: str, text: str) -> None:
    body = json.dumps({**person, field: None}).replace("null", text)
    problem(service("POST", "/people", data=body, headers=JSON), 422, field)


def test_every_fault_is_named_at_once(service: Service, person: dict[str, Any]) -> None:
    bad = {**person, "age": -1, "sex": "x", "shoeSize": 1}
    del bad["fare"]
    problem(service.post(bad), 422, "age", "sex", "shoeSize", "fare")


@pytest.mark.parametrize("field", [name for name in PERSON if name != "age"])
def test_what_is_missing_is_named(service: Service, person: dict[str, Any], field: str) -> None:
    del person[field]
    problem(service.post(person), 422, field)
    problem(service("PUT", ABSENT, json=person), 422, field)


def test_the_uuid_is_the_service_s(service: Service, made: requests.Response, person: dict[str, Any]) -> None:
    path = made.headers["Location"]
    other = str(uuids.uuid4())
    problem(service.post({**person, "uuid": other}), 422, "uuid")
    for uuid in (other, None, 1, ""):
        problem(service("PUT", path, json={**person, "uuid": uuid}), 422, "uuid")
        problem(service("PATCH", path, json={"uuid": uuid}), 422, "uuid")
    assert service("PATCH", path, json={"uuid": made.json()["uuid"]}).ok


def test_a_repeated_key_is_refused(service: Service, person: dict[str, Any]) -> None:
    body = json.dumps(person)[:-1] + ', "age": 2}'
    problem(service("POST", "/people", data=body, headers=JSON), 422, "age")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nope",
        b"{'a': 1}",
        b"\xff\xfe",
        b'{"name": "\xff"}',
        b"\xef\xbb\xbf{}",
        b"[" * 100_00,
        b'{"a":' * 9000,
    ],
)
def test_what_is_not_json_is_400(service: Service, body: bytes) -> None:
    problem(service("POST", "/people", data=body, headers=JSON), 400, "body")


@pytest.mark.parametrize("body", ["[]", "null", "1", '"x"', "true", "NaN", "1" * 5000])
def test_json_that_is_no_object_is_422(service: Service, body: str) -> None:
    problem(service("POST", "/people", data=body, headers=JSON), 422, "body")


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "application/xml", "application/json; charset=latin-1"],
)
def test_other_media_types_are_415(service: Service, person: dict[str, Any], content_type: str) -> None:
    headers = {"Content-Type": content_type}
    for method, path in (("POST", "/people"), ("PUT", ABSENT), ("PATCH", ABSENT)):
        problem(service(method, path, data=json.dumps(person), headers=headers), 415, "Content-Type")
    packed = {**JSON, "Content-Encoding": "gzip"}
    problem(service("POST", "/people", data=json.dumps(person), headers=packed), 415, "Content-Encoding")


def test_declared_utf_8_is_fine(service: Service, person: dict[str, Any]) -> None:
    person["name"] = "Fräulein 🚢 Ægir"
    body = json.dumps(person, ensure_ascii=False).encode()
    answer = service("POST", "/people", data=body, headers={"Content-Type": 'Application/JSON; charset="UTF-8"'})
    assert answer.status_code == 201
    assert answer.json()["name"] == person["name"]
    assert len(service.get("/people", params={"q": "🚢"}).json()) == 1
    service("DELETE", answer.headers["Location"])


def test_a_large_body_is_413(service: Service, person: dict[str, Any]) -> None:
    body = json.dumps({**person, "name": "x" * 70_000}).encode()
    problem(service("POST", "/people", data=body, headers=JSON), 413, "body")
    problem(service("POST", "/people", data=iter([body[:40_000], body[40_000:]]), headers=JSON), 413, "body")


def test_a_chunked_body_is_read(service: Service, person: dict[str, Any]) -> None:
    body = json.dumps(person).encode()
    answer = service("POST", "/people", data=iter([body[:10], body[10:]]), headers=JSON)
    assert answer.status_code == 201
    service("DELETE", answer.headers["Location"])


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/people", "GET, HEAD, OPTIONS, POST"),
        ("DELETE", "/people", "GET, HEAD, OPTIONS, POST"),
        ("POST", ABSENT, "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"),
        ("BREW", "/people", "GET, HEAD, OPTIONS, POST"),
        ("TRACE", "/", "GET, HEAD, OPTIONS"),
        ("POST", "/healthz", "GET, HEAD, OPTIONS"),
    ],
)
def test_other_methods_are_405(service: Service, method: str, path: str, allow: str) -> None:
    answer = service(method, path)
    problem(answer, 405, "method")
    assert answer.headers["Allow"] == allow


@pytest.mark.parametrize("path", ["/nope", "/people/", "/people/a/b", "/people/%2e%2e/x", "/../etc/passwd"])
def test_other_paths_are_404(service: Service, path: str) -> None:
    problem(service.get(path), 404)


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "application/json;q=0", "image/*", "nonsense"])
def test_other_representations_are_406(service: Service, accept: str) -> None:
    first = service.get("/people?limit=1").json()[0]["uuid"]
    for path in ("/people", "/people?limit=1", f"/people/{first}"):
        problem(service.get(path, headers={"Accept": accept}), 406, "Accept")


@pytest.mark.parametrize("accept", ["", "*/*", "application/*", "application/json", "text/html, */*;q=0.1"])
def test_accepted_representations(service: Service, accept: str) -> None:
    assert service.get("/people?limit=1", headers={"Accept": accept}).status_code == 200


def test_welcome(service: Service) -> None:
    answer = service.get("/")
    assert (answer.status_code, answer.json()) == (200, {"message": "Welcome to the Titanic API", "version": "1.0.0"})
    page = service.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.headers["Content-Type"].startswith("text/html")
    assert "Accept" in answer.headers["Vary"]
    assert "Accept" in page.headers["Vary"]
    problem(service.get("/", headers={"Accept": "image/png"}), 406, "Accept")


# Narrowed lists.


@pytest.mark.parametrize(
    ("query", "total"),
    [
        ("survived=true", 342),
        ("survived=0", 545),
        ("passengerClass=1", 216),
        ("sex=female", 314),
        ("sex=other", 0),
        ("q=mrs.", 125),
        ("q=%25", 0),
        ("q=_", 0),
        ("q=%5C", 0),
        ("q=" + "%F0%9F%9A%A2" * 200, 0),
        ("survived=true&passengerClass=3&sex=male", 47),
    ],
)
def test_filters(service: Service, query: str, total: int) -> None:
    answer = service.get(f"/people?{query}")
    everybody = service.get("/people").json()
    assert int(answer.headers["X-Total-Count"]) == len(answer.json()) == total
    assert [person for person in everybody if person in answer.json()] == answer.json()


@pytest.mark.parametrize("key", ["name", "age", "fare", "passengerClass", "survived", "sex"])
def test_sorts(service: Service, key: str) -> None:
    everybody = service.get("/people").json()
    for sign in ("", "-"):
        values = [person for person in everybody if person[key] is not None]
        expected = sorted(values, key=lambda person: person[key], reverse=sign == "-")
        expected += [person for person in everybody if person[key] is None]
        assert service.get(f"/people?sort={sign}{key}").json() == expected


def test_pages(service: Service) -> None:
    everybody = service.get("/people").json()
    path, seen = "/people?limit=100", []
    while path:
        answer = service.get(path)
        assert answer.headers["X-Total-Count"] == "887"
        seen += answer.json()
        path = answer.links.get("next", {}).get("url", "")
    assert seen == everybody
    links = service.get("/people?survived=true&limit=10&offset=25").links
    assert {relation: link["url"] for relation, link in links.items()} == {
        "first": "/people?survived=true&limit=10&offset=0",
        "prev": "/people?survived=true&limit=10&offset=15",
        "next": "/people?survived=true&limit=10&offset=35",
        "last": "/people?survived=true&limit=10&offset=340",
    }
    beyond = service.get("/people?limit=10&offset=1000")
    assert (beyond.json(), beyond.headers["X-Total-Count"]) == ([], "887")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("limit=1.5", "limit"),
        ("limit=" + "9" * 500, "limit"),
        ("limit=%D9%A1", "limit"),
        ("limit=1&limit=2", "limit"),
        ("offset=-1", "offset"),
        ("offset=99999999999", "offset"),
        ("survived=maybe", "survived"),
        ("passengerClass=4", "passengerClass"),
        ("sex=m", "sex"),
        ("q=", "q"),
        ("q=%00", "q"),
        ("q=" + "x" * 201, "q"),
        ("q=%ff", "query"),
        ("q=" + "x" * 5000, "query"),
        ("sort=uuid", "sort"),
        ("sort=name;drop", "sort"),
        ("nope=1", "nope"),
        ("&", "query"),
        ("a=1&" * 60, "query"),
    ],
)
def test_a_bad_query_is_400(service: Service, query: str, field: str) -> None:
    problem(service.get(f"/people?{query}"), 400, field)


def test_no_parameters_where_none_have_a_meaning(service: Service, made: requests.Response, person: Any) -> None:
    path = made.headers["Location"]
    problem(service.get(path + "?a=1"), 400, "a")
    problem(service("PUT", path + "?a=1", json=person), 400, "a")
    problem(service("DELETE", path + "?a=1"), 400, "a")
    problem(service("POST", "/people?a=1", json=person), 400, "a")
    problem(service.get("/?a=1"), 400, "a")


# Conditional requests.


@pytest.mark.parametrize("path", ["/people", "/people?limit=3", "{one}"])
def test_unchanged_is_304(service: Service, made: requests.Response, path: str) -> None:
    path = path.replace("{one}", made.headers["Location"])
    etag = service.get(path).headers["ETag"]
    for wanted in (etag, "W/" + etag, f'"x", {etag}', f'"x,y",{etag}', "*"):
        answer = service.get(path, headers={"If-None-Match": wanted})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)
    for wanted in ('"x"', '"x,*,y"'):
        assert service.get(path, headers={"If-None-Match": wanted}).status_code == 200


@pytest.mark.parametrize("path", ["/people", "/people?limit=3", "{one}"])
def test_a_read_of_what_has_changed_is_412(service: Service, made: requests.Response, path: str) -> None:
    """In the fast path and by Flask, which answers HEAD; from the read cache and from the database."""
    path = path.replace("{one}", made.headers["Location"])
    etag = service.get(path).headers["ETag"]
    for other in ('"x"', f"W/{etag}", etag.strip('"'), '"x", *', ""):
        problem(service.get(path, headers={"If-Match": other}), 412, "If-Match")
        assert service("HEAD", path, headers={"If-Match": other}).status_code == 412
    problem(service.get(path, headers={"If-Match": '"x"', "If-None-Match": etag}), 412, "If-Match")
    for same in (etag, f'"x", {etag}', "*"):
        answer = service.get(path, headers={"If-Match": same})
        assert (answer.status_code, answer.headers["ETag"]) == (200, etag)
    assert service.get(path, headers={"If-Match": etag, "If-None-Match": etag}).status_code == 304


def test_what_is_not_answered_anyway_has_no_preconditions(service: Service) -> None:
    """RFC 9110, 13.2.1: they count only where the answer would else be a success."""
    missing = f"/people/{uuids.uuid4()}"
    problem(service.get(missing, headers={"If-Match": "*"}), 404, "uuid")
    problem(service.get("/people?limit=0", headers={"If-Match": '"x"'}), 400, "limit")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_a_write_on_what_has_changed_is_412(service: Service, person: dict[str, Any], method: str) -> None:
    made = service.post(person)
    path, old = made.headers["Location"], made.headers["ETag"]
    new = service("PATCH", path, json={"age": 1}).headers["ETag"]
    assert new != old
    body = {} if method == "DELETE" else {"json": {**person, "age": 2}}
    for stale in (old, f"W/{new}", '"x"', new.strip('"'), '"x,*,y"', '"x", *', ""):
        answer = service(method, path, headers={"If-Match": stale}, **body)
        problem(answer, 412, "If-Match")
    assert service.get(path).headers["ETag"] == new
    assert service(method, path, headers={"If-Match": f'"x", {new}'}, **body).ok
    service("DELETE", path)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_a_write_unless_there_is_one_is_412_where_there_is(
    service: Service, person: dict[str, Any], method: str
) -> None:
    made = service.post(person)
    path, etag = made.headers["Location"], made.headers["ETag"]
    body = {} if method == "DELETE" else {"json": {**person, "age": 2}}
    for there in ("*", etag, f"W/{etag}", f'"x", {etag}'):
        problem(service(method, path, headers={"If-None-Match": there}, **body), 412, "If-None-Match")
    both = {"If-Match": '"x"', "If-None-Match": "*"}
    problem(service(method, path, headers=both, **body), 412, "If-Match")
    assert service.get(path).headers["ETag"] == etag
    assert service(method, path, headers={"If-Match": etag, "If-None-Match": '"x"'}, **body).ok
    service("DELETE", path)


def test_a_person_is_added_unless_the_list_is_this_one(service: Service, person: dict[str, Any]) -> None:
    everybody = service.get("/people")
    for header, value in (("If-None-Match", "*"), ("If-None-Match", everybody.headers["ETag"]), ("If-Match", '"x"')):
        problem(service.post(person, **{header: value}), 412, header)
    assert service.get("/people").json() == everybody.json()
    made = service.post(person, **{"If-Match": everybody.headers["ETag"]})
    assert made.status_code == 201
    service("DELETE", made.headers["Location"])


@pytest.mark.parametrize(
    "name", ["مهران", "נועה", "می\u200cخواهم", "👩\u200d🚀", "e\u0301", "🏴\U000e0067\U000e007f", "O\u2019Brien-\u0141"]
)
def test_names_of_every_script_are_taken(service: Service, person: dict[str, Any], name: str) -> None:
    made = service.post({**person, "name": name})
    assert made.json()["name"] == name
    service("DELETE", made.headers["Location"])


@pytest.mark.parametrize("method", ["PATCH", "POST"])
def test_of_many_writers_with_one_tag_one_wins(
    service: Service, made: requests.Response, person: dict[str, Any], method: str
) -> None:
    path = "/people" if method == "POST" else made.headers["Location"]
    headers = {"If-Match": service.get(path).headers["ETag"]}
    statuses: list[int] = []
    added: list[str] = []

    def write(age: int) -> None:
        body = {**person, "age": age}
        answer = requests.request(method, service.url + path, json=body, headers=headers, timeout=20)
        statuses.append(answer.status_code)
        if "Location" in answer.headers:
            added.append(answer.headers["Location"])

    threads = [threading.Thread(target=write, args=(age,)) for age in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201 if method == "POST" else 200] + [412] * 7
    for path in added:
        service("DELETE", path)


# Idempotency keys.


def test_a_repeated_key_repeats_the_answer(service: Service, person: dict[str, Any]) -> None:
    key = str(uuids.uuid4())
    first = service.post(person, **{"Idempotency-Key": key})
    again = service.post(person, **{"Idempotency-Key": key})
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["ETag"] == first.headers["ETag"]
    other = service.post({**person, "age": 1}, **{"Idempotency-Key": key})
    problem(other, 409, "Idempotency-Key")
    assert service.get("/people").headers.get("X-Total-Count") is None
    assert len(service.get("/people").json()) == 888
    service("DELETE", first.headers["Location"])


def test_a_repeated_key_is_answered_though_its_precondition_no_longer_holds(
    service: Service, person: dict[str, Any]
) -> None:
    """Who lost the answer sends the same request again: it was his own that changed the list."""
    headers = {"Idempotency-Key": str(uuids.uuid4()), "If-Match": service.get("/people").headers["ETag"]}
    problem(service.post(person, **{**headers, "If-Match": '"x"'}), 412, "If-Match")
    first, again = service.post(person, **headers), service.post(person, **headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    service("DELETE", first.headers["Location"])


def test_a_key_used_at_once_adds_one(service: Service, person: dict[str, Any]) -> None:
    key = str(uuids.uuid4())
    answers: list[bytes] = []

    def add() -> None:
        answer = requests.post(service.url + "/people", json=person, headers={"Idempotency-Key": key}, timeout=20)
        answers.append(answer.content)

    threads = [threading.Thread(target=add) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 12
    assert len(set(answers)) == 1
    assert len(service.get("/people").json()) == 888
    service("DELETE", "/people/" + json.loads(answers[0])["uuid"])


@pytest.mark.parametrize("key", ["x" * 256, "a b", "\xe9"])
def test_a_bad_key_is_400(service: Service, person: dict[str, Any], key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1"), b"Content-Type": b"application/json"}
    problem(service("POST", "/people", data=json.dumps(person), headers=headers), 400, "Idempotency-Key")


# Tokens and limits.


def test_write_tokens(serve: Serve, person: dict[str, Any], tmp_path: Any) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("one-token\n\n  another-token  \n")
    service = serve(WRITE_TOKENS_FILE=tokens)
    assert len(service.get("/people").json()) == 887
    for value in (None, "Bearer", "Bearer nope", "Basic one-token", "one-token", "Bearer one-token x", "Bearer \xe9"):
        headers = {} if value is None else {"Authorization": value.encode("latin-1")}
        answer = service.session.post(service.url + "/people", json=person, headers=headers, timeout=10)
        problem(answer, 401, "Authorization")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        for method in ("PUT", "PATCH", "DELETE"):
            problem(service(method, ABSENT, json=person, headers=headers), 401)
    for token in ("one-token", "another-token"):
        assert service.post(person, Authorization=f"Bearer {token}").status_code == 201
    assert "one-token" not in service.output + service.errors


def test_a_write_token_ends_when_its_file_says_so(serve: Serve, person: dict[str, Any], tmp_path: Any) -> None:
    tokens = tmp_path / "tokens"
    lines = ["old-token until 2001-01-01T00:00:00Z", "overlapping-token until 2999-01-01T00:00:00Z"]
    tokens.write_text("\n".join(["new-token", *lines]))
    service = serve(WRITE_TOKENS_FILE=tokens)

    def status(token: str) -> int:
        return int(service.post(person, Authorization=f"Bearer {token}").status_code)

    assert [status(f"{name}-token") for name in ("new", "old", "overlapping")] == [201, 401, 201]
    assert status(lines[1]) == 401, "the line is no token"


def test_rate_limit_counts_over_all_workers(serve: Serve) -> None:
    service = serve(RATE_LIMIT_PER_MINUTE=10, WORKERS=4)
    answers = [requests.get(service.url + "/people?limit=1", timeout=10) for _ in range(100)]
    refused = [answer for answer in answers if answer.status_code == 429]
    # In two minutes at most, should one turn in between. Workers that count each by themselves refuse 60.
    assert 80 <= len(refused) <= 90
    problem(refused[0], 429, "client")
    assert 1 <= int(refused[0].headers["Retry-After"]) <= 60
    assert service.get("/healthz").status_code == 200
    assert requests.get(service.url + "/people?limit=1", headers={"X-Forwarded-For": "10.1.2.3"}, timeout=10).ok
    assert service.log[-1]["client"] == "10.1.2.3"


def test_instances_on_one_host_keep_one_count(serve: Serve, tmp_path: Path) -> None:
    limited = {"RATE_LIMIT_PER_MINUTE": 10, "WORKERS": 2, "COUNTS_FILE": tmp_path / "counts"}
    services = [serve(**limited), serve(**limited)]
    answers = [requests.get(each.url + "/people?limit=1", timeout=10) for each in services for _ in range(20)]
    assert 20 <= [answer.status_code for answer in answers].count(429) <= 30
    # Where it cannot be had the limit is that of each instance, as without it.
    alone = serve(**limited | {"COUNTS_FILE": tmp_path / "missing" / "counts"})
    assert alone.get("/people?limit=1").status_code == 200
    assert "counted by this instance alone" in alone.errors


def test_the_fast_way_answers_like_flask(service: Service, made: requests.Response) -> None:
    """HEAD goes through Flask and the same operation, so its headers must be those of GET."""
    for path in ("/people", "/people?limit=2", made.headers["Location"], "/people/x", "/people?x=1"):
        fast, slow = service.get(path), service("HEAD", path)
        assert slow.status_code == fast.status_code
        assert slow.content == b""
        ours = {"date", "x-request-id", "connection"}
        assert {k.lower(): v for k, v in slow.headers.items() if k.lower() not in ours} == {
            k.lower(): v for k, v in fast.headers.items() if k.lower() not in ours
        }


def test_answers_are_hardened(service: Service) -> None:
    for path in ("/", "/people", "/nope", "/metrics"):
        headers = service.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
