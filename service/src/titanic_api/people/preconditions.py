"""What a client makes an answer or a write depend on: If-Match and If-None-Match (RFC 9110, 13)."""

from __future__ import annotations

import re
from typing import NamedTuple

from titanic_api.errors import Fault, PreconditionFailed
from titanic_api.people.model import Rendered
from titanic_api.request_parsing import Environ, header

# RFC 9110, 8.8.3: between its quotes a tag may have commas and asterisks.
ENTITY_TAG = re.compile(r'(?:W/)?"[^"]*"')


def _tags(value: str) -> list[str]:
    """The entity tags of If-Match or If-None-Match, or ``*`` alone; what is no tag matches nothing."""
    return ["*"] if value.strip() == "*" else ENTITY_TAG.findall(value)


def matches(wanted: str, found: Rendered) -> bool:
    """Whether If-None-Match names what was found; weak tags count (RFC 9110, 13.1.2)."""
    return bool({"*", found.etag} & {tag.removeprefix("W/") for tag in _tags(wanted)})


def check_match(wanted: str | None, etag: str) -> None:
    """Refuse a request whose If-Match does not name what is there, whatever its method. Raises PreconditionFailed."""
    # A weak tag never matches here (RFC 9110, 13.1.1).
    if wanted is not None and not {"*", etag} & set(_tags(wanted)):
        raise PreconditionFailed(Fault("If-Match", f"the entity tag is now {etag}"))


class Preconditions(NamedTuple):
    """What a client makes a write depend on: the values of If-Match and If-None-Match. Empty is false."""

    match: str | None
    none_match: str | None

    @classmethod
    def of(cls, environ: Environ) -> Preconditions:
        """Those of a request."""
        return cls(header(environ, "If-Match"), header(environ, "If-None-Match"))

    def __bool__(self) -> bool:
        return self.match is not None or self.none_match is not None

    def check(self, current: Rendered) -> None:
        """Compare them with what is there now, in the order of RFC 9110, 13.2.2. Raises PreconditionFailed."""
        check_match(self.match, current.etag)
        if self.none_match is not None and matches(self.none_match, current):
            raise PreconditionFailed(Fault("If-None-Match", f"it is there, its entity tag is now {current.etag}"))
