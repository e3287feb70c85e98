"""Answers the hottest operations before Flask sees them: routing and request objects cost more than the work itself.

What is answered here is answered the same way by the blueprint; tests compare the two.
"""

from __future__ import annotations

from collections.abc import Iterable

from titanic_api.errors import TitanicError, answer_for
from titanic_api.observability import ROUTE, internal_error
from titanic_api.people.views import People
from titanic_api.request_parsing import Environ
from titanic_api.responses import Application, StartResponse, send

LIST, PERSON = "/people", "/people/{uuid}"
PREFIX = "/people/"


class FastPath:
    """WSGI middleware for ``GET /people``, ``POST /people`` and ``GET /people/{uuid}``."""

    def __init__(self, application: Application, people: People) -> None:
        self._application = application
        self._people = people

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, or let Flask."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        try:
            if path == LIST and (method == "GET" or method == "POST"):
                environ[ROUTE] = LIST
                answer = self._people.list(environ) if method == "GET" else self._people.create(environ)
            elif method == "GET" and path.startswith(PREFIX) and path.find("/", len(PREFIX)) < 0:
                environ[ROUTE] = PERSON
                answer = self._people.read(environ, path[len(PREFIX) :])
            else:
                return self._application(environ, start_response)
        except TitanicError as error:
            answer = answer_for(error)
        except Exception:  # noqa: BLE001 (whatever it is, the client gets an answer and the log the reason)
            answer = internal_error(environ)
        return send(answer, environ, start_response)
