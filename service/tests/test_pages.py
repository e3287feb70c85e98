"""The pages over plain HTTP: negotiation, caching, security headers, nothing inline, nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from flask import Flask
from flask.testing import FlaskClient

from titanic_api import pages
from titanic_api.errors import PreconditionFailed

ASSET_NAMES = sorted(pages.ASSETS)
BROWSER_ACCEPT = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.fixture
def client() -> FlaskClient:
    """A client of the blueprint alone, with its index where the service puts it. No database is needed."""
    app = Flask("pages_alone")
    app.testing = True
    app.register_blueprint(pages.blueprint)
    app.add_url_rule("/", "root", pages.index)
    return app.test_client()


class Markup(HTMLParser):
    """Every tag with its attributes, and the text of script and style elements."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[str] = []
        self._inside = ""
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - HTMLParser asks for it
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in {"script", "style"} and data.strip():
            self.inline.append(data)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_is_html_with_its_landmarks(client: FlaskClient, path: str) -> None:
    response = client.get(path, headers=BROWSER_ACCEPT)
    assert response.status_code == 200
    assert response.content_type == "text/html; charset=utf-8"
    markup = Markup(response.text)
    names = [tag for tag, _ in markup.tags]
    for tag in ("title", "header", "main", "footer", "nav", "noscript", "h1"):
        assert tag in names, tag
    assert dict(markup.tags)["html"]["lang"] == "en-GB"
    links = [attributes for tag, attributes in markup.tags if tag == "a"]
    assert links[0] == {"class": "skip-link", "href": "#content"}
    assert response.text.count("<h1") == 1
    noscript = response.text.split("<noscript>")[1].split("</noscript>")[0]
    assert 'href="people"' in noscript
    assert 'href="openapi.json"' in noscript


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_has_nothing_inline_and_nothing_from_elsewhere(client: FlaskClient, path: str) -> None:
    markup = Markup(client.get(path).text)
    assert markup.inline == []
    for tag, attributes in markup.tags:
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "action"):
            address = attributes.get(name)
            # Relative, so that the pages work behind a path prefix too.
            assert address is None or not re.match(r"[a-z]+:|/", address), (tag, address)


@pytest.mark.parametrize("path", ["/", "/docs", f"/pages/{pages.ASSETS_VERSION}/site.css"])
def test_the_content_security_policy_is_strict(client: FlaskClient, path: str) -> None:
    headers = client.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    for kind in ("script-src", "style-src", "img-src", "connect-src", "form-action"):
        assert policy[kind] == "'self'", kind
    for kind in ("base-uri", "frame-ancestors", "trusted-types"):
        assert policy[kind] == "'none'", kind
    assert policy["require-trusted-types-for"] == "'script'"


@pytest.mark.parametrize("path", ["/", "/docs", f"/pages/{pages.ASSETS_VERSION}/docs.js", "/pages/older/docs.js"])
def test_an_answer_is_not_sent_twice(client: FlaskClient, path: str) -> None:
    first = client.get(path)
    again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert client.get(path, headers={"If-None-Match": '"another"'}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", f"/pages/{pages.ASSETS_VERSION}/docs.js"])
def test_what_has_changed_since_is_refused(client: FlaskClient, path: str) -> None:
    tag = client.get(path).headers["ETag"]
    for same in (tag, "*", f'"a", {tag}'):
        assert client.get(path, headers={"If-Match": same}).status_code == 200
    with pytest.raises(PreconditionFailed):  # which the service tells as a problem document
        client.get(path, headers={"If-Match": '"another"'})


def test_pages_are_revalidated_and_vary(client: FlaskClient) -> None:
    headers = client.get("/").headers
    assert headers["Cache-Control"] == "no-cache"
    assert "Accept" in headers["Vary"]


@pytest.mark.parametrize("name", ASSET_NAMES)
def test_an_asset_of_this_version_is_kept_for_a_year(client: FlaskClient, name: str) -> None:
    response = client.get(f"/pages/{pages.ASSETS_VERSION}/{name}")
    assert response.status_code == 200
    assert "immutable" in response.headers["Cache-Control"]
    expected = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}[name.rsplit(".", 1)[1]]
    assert response.mimetype == expected


def test_a_page_of_another_release_still_gets_its_files(client: FlaskClient) -> None:
    response = client.get("/pages/0123456789abcdef/site.css")
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "path",
    [
        "/pages/x/__init__.py",
        "/pages/x/../__init__.py",
        "/pages/x/..%2f__init__.py",
        "/pages/x/%2e%2e%2ftemplates%2fpages%2fbase.html",
        "/pages/x/site.css%00.js",
        "/pages/x/site.css/",
        "/pages/site.css",
        "/pages/",
    ],
)
def test_nothing_but_the_assets_can_be_reached(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("name", [name for name in ASSET_NAMES if name.endswith(".js")])
def test_scripts_never_make_markup_from_text(name: str) -> None:
    source = pages.ASSETS[name].content.decode()
    for forbidden in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "DOMParser",
        "eval(",
        "Function(",
    ):
        assert forbidden not in source
    assert source.startswith("// "), "a file opens with what it is for"


@pytest.mark.parametrize("name", ASSET_NAMES)
def test_assets_name_no_other_origin(name: str) -> None:
    source = pages.ASSETS[name].content.decode()
    assert set(re.findall(r"[a-z]+://[^\s\"'`)]+", source)) <= {"http://www.w3.org/2000/svg"}


def test_what_a_page_needs_is_small() -> None:
    assert sum(len(found.content) for found in pages.ASSETS.values()) < 80_000
