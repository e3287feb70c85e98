"""What a person is: the checks on what comes in, and the one JSON form that goes out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from hashlib import blake2b
from typing import Any, NamedTuple

from titanic_api.errors import Fault, InvalidPerson, MalformedBody

SEXES = ("male", "female", "other")
NAME_LENGTH = 200
MAX_AGE = 150
MAX_RELATIVES = 100
MAX_FARE = 1_000_000

# As classes of a regular expression, which the OpenAPI document has too. C0 and C1 control characters, DEL, what ends a
# line, and what turns the direction of the text around it (UAX 9, 2.1 and 2.2); then what shows nothing by itself:
# spaces, joiners, fillers, variation selectors, tags, and marks that need a letter to stand on.
CONTROL = r"\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069"
BLANK = (
    r" \u00a0\u00ad\u0300-\u036f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u1ab0-\u1aff\u1dc0-\u1dff"
    r"\u2000-\u200f\u202f\u205f-\u2065\u206a-\u206f\u20d0-\u20ff\u2800\u3000\u3164\ufe00-\ufe0f\ufe20-\ufe2f\ufeff\uffa0"
    r"\ufff9-\ufffb"
    # Not escaped: beyond four digits each language writes that in its own way.
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Halves of surrogate pairs are no characters at all.
UNPRINTABLE = re.compile(rf"[{CONTROL}\ud800-\udfff]")
VISIBLE = re.compile(rf"[^{CONTROL}{BLANK}\ud800-\udfff]")
UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Person(NamedTuple):
    """A person without uuid, in the order of the table's columns. ``age`` in years, ``fare`` in pounds of 1912."""

    survived: bool
    passenger_class: int
    name: str
    sex: str
    age: float | None
    siblings_or_spouses: int
    parents_or_children: int
    fare: float


class Rendered(NamedTuple):
    """A finished JSON body with its strong entity tag (quoted), which is a hash of the body."""

    body: bytes
    etag: str


def _survived(value: Any) -> bool:
    if type(value) in (bool, int, float) and value in (0, 1):
        return bool(value)
    raise ValueError("must be true or false (or 1 or 0)")


def _integer(least: int, most: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        # JSON has one kind of number, so 3.0 is an integer too.
        if type(value) in (int, float) and least <= value <= most and value == int(value):
            return int(value)
        raise ValueError(f"must be an integer from {least} to {most}")

    return parse


def _real(most: int) -> Callable[[Any], float]:
    def parse(value: Any) -> float:
        if type(value) in (int, float) and 0 <= value <= most:
            return float(value) + 0.0  # -0.0 becomes 0.0
        raise ValueError(f"must be a number from 0 to {most}")

    return parse


_age_in_years = _real(MAX_AGE)


def _age(value: Any) -> float | None:
    try:
        return None if value is None else _age_in_years(value)
    except ValueError as error:
        raise ValueError(f"{error} or null") from None


def _name(value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= NAME_LENGTH:
        raise ValueError(f"must be text of 1 to {NAME_LENGTH} characters")
    require_visible(value)
    return value


def require_visible(text: str) -> None:
    """Raise ValueError for a text that shows nothing, or that changes how what is around it is shown."""
    if UNPRINTABLE.search(text):
        what = "a control character, a line separator, a direction override or half a surrogate pair"
        raise ValueError(f"must not hold {what}")
    if not VISIBLE.search(text):
        raise ValueError("must hold a visible character")


def _sex(value: Any) -> str:
    if isinstance(value, str) and value in SEXES:
        return value
    raise ValueError("must be one of " + ", ".join(SEXES))


# The JSON names, in the order of Person.
FIELDS: dict[str, Callable[[Any], Any]] = {
    "survived": _survived,
    "passengerClass": _integer(1, 3),
    "name": _name,
    "sex": _sex,
    "age": _age,
    "siblingsOrSpousesAboard": _integer(0, MAX_RELATIVES),
    "parentsOrChildrenAboard": _integer(0, MAX_RELATIVES),
    "fare": _real(MAX_FARE),
}


class _RepeatedKeyError(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedKeyError(next(name for name in names if names.count(name) > 1))
    return result


def _bounded_int(text: str) -> int | float:
    # Python refuses to read thousands of digits; no field takes that many either.
    return int(text) if len(text) < 64 else float(text)


_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_bounded_int)


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a request's body. Raises MalformedBody (not JSON) or InvalidPerson (not a usable object)."""
    try:
        value = _decoder.decode(body.decode("utf-8"))
    except _RepeatedKeyError as error:
        raise InvalidPerson(Fault(str(error)[:NAME_LENGTH], "is given more than once")) from None
    except UnicodeDecodeError as error:
        raise MalformedBody(Fault("body", f"is not UTF-8 at byte {error.start}")) from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise MalformedBody(Fault("body", f"is not JSON: {error.msg} at {where}")) from None
    except RecursionError:
        raise MalformedBody(Fault("body", "is nested too deeply")) from None
    if not isinstance(value, dict):
        raise InvalidPerson(Fault("body", "must be a JSON object"))
    return value


def parse_person(data: dict[str, Any], uuid: str | None) -> Person:
    """A whole person from a JSON object; ``uuid`` is the path's. Raises InvalidPerson naming every bad field."""
    values = _checked({"age": None, **data}, uuid, required=True)
    return Person._make(values[name] for name in FIELDS)


def merge_person(person: Person, data: dict[str, Any], uuid: str) -> Person:
    """The person with some fields replaced. Raises InvalidPerson naming every bad field."""
    values = _checked(data, uuid, required=False)
    return Person._make(values.get(name, old) for name, old in zip(FIELDS, person, strict=True))


def _checked(data: dict[str, Any], uuid: str | None, *, required: bool) -> dict[str, Any]:
    faults = []
    values = {}
    for name, parse in FIELDS.items():
        if name in data:
            try:
                values[name] = parse(data[name])
            except ValueError as error:
                faults.append(Fault(name, str(error)))
        elif required:
            faults.append(Fault(name, "is required"))
    if not data.keys() <= FIELDS.keys():
        faults.extend(_strangers(data, uuid))
    if faults:
        raise InvalidPerson(*faults)
    return values


def _strangers(data: dict[str, Any], uuid: str | None) -> list[Fault]:
    faults = []
    for name, value in data.items():
        if name == "uuid":
            if uuid is None:
                faults.append(Fault("uuid", "is chosen by the service"))
            elif not isinstance(value, str) or value.lower() != uuid:
                faults.append(Fault("uuid", "cannot be changed"))
        elif name not in FIELDS:
            faults.append(Fault(name[:NAME_LENGTH], "is not a field of a person"))
    return faults[:20]


_quoted = json.JSONEncoder(ensure_ascii=False).encode


def decimal_text(value: float) -> str:
    """The shortest text that reads back as ``value``, always with a decimal point and never with an exponent."""
    text = repr(value)
    if "e" not in text:
        return text
    text = format(Decimal(text), "f")
    return text if "." in text else text + ".0"


def _age_text(age: float | None) -> str:
    if age is None:
        return "null"
    return str(int(age)) if age.is_integer() else decimal_text(age)


def person_json(uuid: str, person: Person) -> str:
    """The JSON object of a person, without blanks, the fields in the order of the contract."""
    survived, passenger_class, name, sex, age, siblings, parents, fare = person
    return (
        f'{{"uuid":"{uuid}","survived":{"true" if survived else "false"},"passengerClass":{passenger_class},'
        f'"name":{_quoted(name)},"sex":"{sex}","age":{_age_text(age)},"siblingsOrSpousesAboard":{siblings},'
        f'"parentsOrChildrenAboard":{parents},"fare":{decimal_text(fare)}}}'
    )


def rendered(text: str) -> Rendered:
    """The body and entity tag of a finished JSON text."""
    return _tagged(text.encode("utf-8"))


def render_people(pieces: Iterable[list[tuple[str, Person]]]) -> Rendered:
    """The body and entity tag of a list that comes in pieces."""
    parts = [",".join(person_json(uuid, person) for uuid, person in people).encode("utf-8") for people in pieces]
    return _tagged(b"[" + b",".join(parts) + b"]")


def _tagged(body: bytes) -> Rendered:
    return Rendered(body, f'"{blake2b(body, digest_size=12).hexdigest()}"')


def render_person(uuid: str, person: Person) -> Rendered:
    """The body and entity tag of one person."""
    return rendered(person_json(uuid, person))
