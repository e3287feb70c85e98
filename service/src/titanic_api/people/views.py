"""The operations on people, from a WSGI environment to a finished answer; SQL and rules are elsewhere.

They do not use Flask, so that the hot ones can be answered before it (``fast_path.py``) and by it (``blueprint.py``).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from time import monotonic, time
from typing import Any
from urllib.parse import parse_qsl, urlencode
from uuid import uuid4

from titanic_api.config import Settings
from titanic_api.db import Database, FairSemaphore, Session
from titanic_api.errors import (
    Answer,
    DatabaseUnavailable,
    Fault,
    InvalidHeader,
    InvalidQuery,
    ListTooLong,
    NotAcceptable,
    TokenRequired,
    UnsupportedMediaType,
)
from titanic_api.large_responses import LargeResponses
from titanic_api.people import store
from titanic_api.people.model import (
    NAME_LENGTH,
    SEXES,
    UNPRINTABLE,
    UUID,
    Person,
    Rendered,
    merge_person,
    parse_object,
    parse_person,
    render_people,
    render_person,
    rendered,
)
from titanic_api.people.preconditions import Preconditions, check_match, matches
from titanic_api.read_cache import ReadCache
from titanic_api.request_parsing import Environ, header, read_body
from titanic_api.write_batch import WriteBatcher

MAX_LIMIT = 1000
MAX_OFFSET = 2**31 - 1
# A q of the longest name takes 12 bytes for each character, when all are escaped.
MAX_QUERY_BYTES = 4096
KEY_LENGTH = 255
IDEMPOTENCY_KEY = re.compile(f"[!-~]{{1,{KEY_LENGTH}}}")

JSON = ("Content-Type", "application/json")
# A cache in between may keep an answer and must ask each time whether it still holds.
REVALIDATE = ("Cache-Control", "no-cache")


@lru_cache(maxsize=256)
def accepts(accept: str, media_type: str) -> bool:
    """Whether an Accept header (RFC 9110, 12.5.1) lets ``media_type`` through; an empty one lets everything through."""
    best = (-1, 0.0)
    family = media_type.partition("/")[0] + "/*"
    for part in accept.split(","):
        name, *parameters = (text.strip().lower() for text in part.split(";"))
        if name in (media_type, family, "*/*"):
            specific = 2 if name == media_type else 1 if name == family else 0
            best = max(best, (specific, _quality(parameters)))
    return best[1] > 0 or not accept.strip()


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


class People:
    """The operations of ``/people``. Each takes a WSGI environment and returns the answer, or raises a TitanicError."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._read_cache = ReadCache(database, settings.max_list_people, settings.cache_max_stale_seconds)
        self._write_batcher = WriteBatcher(database)
        self._long_lists = FairSemaphore(1)
        self._large_responses = LargeResponses()
        found = settings.write_tokens().items()
        self._tokens = [(hashlib.sha256(token.encode()).digest(), until) for token, until in found]

    def read(self, environ: Environ, uuid: str) -> Answer:
        """``GET /people/{uuid}``."""
        self._check_readable(environ)
        no_parameters(environ)
        return _conditional(environ, self._read_cache.person(_canonical(uuid)))

    def list(self, environ: Environ) -> Answer:
        """``GET /people``, whole or narrowed."""
        self._check_readable(environ)
        if not environ.get("QUERY_STRING"):
            everybody = _conditional(environ, self._read_cache.everybody())
            return self._large_responses.hold(everybody, self._database.deadline())
        query = parse_query(environ["QUERY_STRING"])
        deadline = self._database.deadline()
        with self._one_at_a_time(query, deadline), self._database.session(deadline) as session:
            page = store.search(session, query, self._settings.max_list_people)
            body = render_people(page.people)
        answer = _conditional(environ, body)
        headers = (*answer.headers, ("X-Total-Count", str(page.total)), *_links(query, page.total))
        return self._large_responses.hold(Answer(answer.status, answer.body, headers), deadline)

    def create(self, environ: Environ) -> Answer:
        """``POST /people``."""
        self._check_writable(environ)
        body = self._json_body(environ, "application/json")
        person = parse_person(parse_object(body), None)
        key = header(environ, "Idempotency-Key")
        if key is not None:
            key = _idempotency_key(key)
        wanted = Preconditions.of(environ)
        uuid = str(uuid4())
        answer = render_person(uuid, person)
        if key is None and not wanted:
            self._write_batcher.create(uuid, person, answer.body)
            return _created(answer, f"/people/{uuid}")
        first = store.Replay(answer.body, f"/people/{uuid}")
        request = hashlib.sha256(body).digest()
        with self._database.session() as session, session.transaction():
            # A repetition is answered as the first time was, whatever the list is by now (RFC 9110, 13.1.1).
            if key is not None and not store.claim(session, key, request, first):
                first = store.replay(session, key, request)
            else:
                if wanted:
                    wanted.check(self._locked_list(session))
                store.insert(session, uuid, person)
        return _created(rendered(first.body.decode()), first.location)

    def replace(self, environ: Environ, uuid: str) -> Answer:
        """``PUT /people/{uuid}``."""
        uuid = self._check_target(environ, uuid)
        data = parse_object(self._json_body(environ, "application/json"))
        person = parse_person(data, uuid)
        wanted = Preconditions.of(environ)
        with self._database.session() as session:
            if not wanted:
                store.replace(session, uuid, person)
            else:
                with session.transaction():
                    wanted.check(render_person(uuid, store.lock(session, uuid)))
                    store.replace(session, uuid, person)
        return _found(render_person(uuid, person))

    def change(self, environ: Environ, uuid: str) -> Answer:
        """``PATCH /people/{uuid}``: RFC 7396 merge patch, where a person has no member that can be removed."""
        uuid = self._check_target(environ, uuid)
        data = parse_object(self._json_body(environ, "application/json", "application/merge-patch+json"))
        wanted = Preconditions.of(environ)
        with self._database.session() as session, session.transaction():
            old = store.lock(session, uuid)
            person = merge_person(old, data, uuid)
            if wanted:
                wanted.check(render_person(uuid, old))
            if person != old:
                store.replace(session, uuid, person)
        return _found(render_person(uuid, person))

    def delete(self, environ: Environ, uuid: str) -> Answer:
        """``DELETE /people/{uuid}``."""
        uuid = self._check_target(environ, uuid)
        # A body has no meaning here, but one that is cut off or not framed is no request, and must delete nobody.
        self._body(environ)
        wanted = Preconditions.of(environ)
        with self._database.session() as session:
            if not wanted:
                store.delete(session, uuid)
            else:
                with session.transaction():
                    wanted.check(render_person(uuid, store.lock(session, uuid)))
                    store.delete(session, uuid)
        return Answer(204, b"", ())

    @contextmanager
    def _one_at_a_time(self, query: store.Query, deadline: float) -> Iterator[None]:
        """Lists without a length are read one after another, so that many of them take no more memory than one."""
        if query.limit is not None:
            yield
            return
        if not self._long_lists.acquire(max(0.0, deadline - monotonic())):
            raise DatabaseUnavailable(Fault("database", "other long lists are being read; try again, or ask for pages"))
        try:
            yield
        finally:
            self._long_lists.release()

    def _locked_list(self, session: Session) -> Rendered:
        """The whole list, which nobody changes until the transaction ends; one too long for an answer has no tag."""
        store.lock_list(session)
        try:
            return render_people(store.all_people(session, self._settings.max_list_people)[1])
        except ListTooLong as error:
            return Rendered(b"", f"none ({error})")

    def _check_readable(self, environ: Environ) -> None:
        accept = environ.get("HTTP_ACCEPT")
        if accept is not None and not accepts(accept, "application/json"):
            raise NotAcceptable(Fault("Accept", "must allow application/json"))

    def _check_target(self, environ: Environ, uuid: str) -> str:
        self._check_writable(environ)
        return _canonical(uuid)

    def _check_writable(self, environ: Environ) -> None:
        no_parameters(environ)
        if not self._tokens:
            return
        scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        digest = hashlib.sha256(token.strip().encode("latin-1", "replace")).digest()
        # Every token is compared in full, so that the time taken tells nothing.
        now = time()
        known = [hmac.compare_digest(digest, expected) and now < until for expected, until in self._tokens]
        if scheme.lower() != "bearer" or not any(known):
            raise TokenRequired(Fault("Authorization", "must be a bearer token that may write"))

    def _json_body(self, environ: Environ, *media_types: str) -> bytes:
        content_type = environ.get("CONTENT_TYPE", "")
        if content_type not in media_types and not _is_json(content_type, media_types):
            raise UnsupportedMediaType(Fault("Content-Type", "must be " + " or ".join(media_types)))
        if environ.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
            raise UnsupportedMediaType(Fault("Content-Encoding", "must be identity"))
        return self._body(environ)

    def _body(self, environ: Environ) -> bytes:
        return read_body(environ, self._settings.max_body_bytes, self._settings.request_timeout_seconds)


def _canonical(uuid: str) -> str:
    if not UUID.fullmatch(uuid):
        raise store.not_found(uuid)
    return uuid.lower()


def _is_json(content_type: str, media_types: tuple[str, ...]) -> bool:
    name, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = [part[len("charset=") :].strip('"') for part in parameters if part.startswith("charset=")]
    return name in media_types and all(charset in ("utf-8", "utf8", "us-ascii") for charset in charsets)


def no_parameters(environ: Environ) -> None:
    """Refuse a query string where none has a meaning. Raises InvalidQuery."""
    if environ.get("QUERY_STRING"):
        names = (name[:NAME_LENGTH] for name, _ in _pairs(environ["QUERY_STRING"])[:20])
        raise InvalidQuery(*(Fault(name, "is not a parameter of this operation") for name in names))


def _conditional(environ: Environ, found: Rendered) -> Answer:
    """The answer to a read, in the order of RFC 9110, 13.2.2. Raises PreconditionFailed."""
    check_match(environ.get("HTTP_IF_MATCH"), found.etag)
    wanted = environ.get("HTTP_IF_NONE_MATCH")
    if wanted is not None and matches(wanted, found):
        return Answer(304, b"", (("ETag", found.etag), REVALIDATE))
    return _found(found)


def _found(found: Rendered) -> Answer:
    return Answer(200, found.body, (JSON, ("ETag", found.etag), REVALIDATE))


def _created(created: Rendered, location: str) -> Answer:
    return Answer(201, created.body, (JSON, ("ETag", created.etag), ("Location", location)))


def _idempotency_key(value: str) -> str:
    if not IDEMPOTENCY_KEY.fullmatch(value):
        raise InvalidHeader(Fault("Idempotency-Key", f"must be 1 to {KEY_LENGTH} visible ASCII characters"))
    return value


def _pairs(query_string: str) -> list[tuple[str, str]]:
    if len(query_string) > MAX_QUERY_BYTES:
        raise InvalidQuery(Fault("query", f"must not be longer than {MAX_QUERY_BYTES} bytes"))
    try:
        # WSGI hands bytes over as if they were Latin-1 (PEP 3333).
        text = query_string.encode("latin-1").decode("utf-8")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=50)
    except ValueError:
        raise InvalidQuery(Fault("query", "is not a list of at most 50 parameters in UTF-8")) from None
    return pairs or [("query", "")]


def _flag(value: str) -> bool:
    if value not in ("true", "false", "1", "0"):
        raise ValueError("must be true or false")
    return value in ("true", "1")


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if value.isascii() and value.isdigit() and len(value) < 12 and least <= int(value) <= most:
            return int(value)
        raise ValueError(f"must be an integer from {least} to {most}")

    return parse


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value in choices:
            return value
        raise ValueError("must be one of " + ", ".join(choices))

    return parse


def _part_of_name(value: str) -> str:
    if not 1 <= len(value) <= NAME_LENGTH or UNPRINTABLE.search(value):
        raise ValueError(f"must be 1 to {NAME_LENGTH} characters and no control character")
    return value


SORT_KEYS = tuple(sign + name for name in store.SORTS for sign in ("", "-"))
# Each query parameter of the list: the attribute of Query that it sets, and how its text is read.
PARAMETERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "survived": ("survived", _flag),
    "passengerClass": ("passenger_class", _whole(1, 3)),
    "sex": ("sex", _one_of(SEXES)),
    "q": ("q", _part_of_name),
    "sort": ("sort", _one_of(SORT_KEYS)),
    "limit": ("limit", _whole(1, MAX_LIMIT)),
    "offset": ("offset", _whole(0, MAX_OFFSET)),
}


def parse_query(query_string: str) -> store.Query:
    """The query that a query string asks for. Raises InvalidQuery naming every bad parameter."""
    values: dict[str, Any] = {}
    faults = []
    for name, text in _pairs(query_string):
        if name not in PARAMETERS:
            faults.append(Fault(name[:NAME_LENGTH], "is not a parameter of this operation"))
            continue
        attribute, parse = PARAMETERS[name]
        if attribute in values:
            faults.append(Fault(name, "is given more than once"))
            continue
        try:
            values[attribute] = parse(text)
        except ValueError as error:
            faults.append(Fault(name, str(error)))
    if faults:
        raise InvalidQuery(*faults[:20])
    return store.Query(**values)


def _links(query: store.Query, total: int) -> tuple[tuple[str, str], ...]:
    """The Link header (RFC 8288) of one page: first, prev, next and last."""
    if query.limit is None:
        return ()
    offsets = {"first": 0}
    if query.offset > 0:
        offsets["prev"] = max(0, query.offset - query.limit)
    if query.offset + query.limit < total:
        offsets["next"] = query.offset + query.limit
    offsets["last"] = max(0, (total - 1) // query.limit * query.limit)
    given = {name: getattr(query, attribute) for name, (attribute, _) in PARAMETERS.items()}
    given = {name: str(value).lower() if value is True or value is False else value for name, value in given.items()}
    links = []
    for relation, offset in offsets.items():
        parameters = {name: value for name, value in {**given, "offset": offset}.items() if value is not None}
        links.append(f'</people?{urlencode(parameters)}>; rel="{relation}"')
    return (("Link", ", ".join(links)),)


__all__ = ["People", "Person", "accepts", "no_parameters", "parse_query"]
