"""The page at `GET /`: what is served, what its policy allows, and that it tells the truth."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from echo_service import page, serve
from echo_service.config import Config
from echo_service.controls import CONTROLS
from tests import wire

README = (Path(__file__).parents[1] / "README.md").read_text()
DOCUMENTS = ("https://www.rfc-editor.org/",)
"""Where links may lead, beside the service itself."""


class Markup(HTMLParser):
    """What the tests ask of the page: elements with their attributes, texts, table rows."""

    def __init__(self, html):
        super().__init__()
        self.elements = []
        self.inline = {"script": "", "style": ""}
        self.rows = []
        self._within = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._within = tag
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, _tag):
        self._within = ""

    def handle_data(self, data):
        if self._within in ("th", "td"):
            self.rows[-1][-1] += data
        elif self._within in self.inline:
            self.inline[self._within] += data

    def attributes(self, name):
        return [attrs[name] for _, attrs in self.elements if name in attrs]


@pytest.fixture(scope="module")
def markup():
    return Markup(page.html(controls=True))


@pytest.fixture(scope="module")
def policy():
    directives = dict(page.HEADERS)["Content-Security-Policy"].split("; ")
    return dict(directive.split(" ", 1) for directive in directives)


def test_the_policy_allows_nothing_but_what_is_named(policy):
    assert policy == {
        "default-src": "'none'",
        "script-src": policy["script-src"],
        "style-src": policy["style-src"],
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


@pytest.mark.parametrize("tag", ["script", "style"])
@pytest.mark.parametrize("controls", [True, False])
def test_the_policy_allows_the_inline_element_by_its_hash_and_no_other(policy, tag, controls):
    content = Markup(page.html(controls=controls)).inline[tag]
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert page.html(controls=controls).count(f"<{tag}") == 1


def test_the_other_headers_are_the_usual_ones():
    assert dict(page.HEADERS) == {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": dict(page.HEADERS)["Content-Security-Policy"],
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
        "Cache-Control": "no-cache",
    }


def test_nothing_is_fetched_from_anywhere(markup):
    assert markup.attributes("src") == []
    assert [attrs["href"][:5] for tag, attrs in markup.elements if tag == "link"] == ["data:"]
    assert not re.search(r"@import|url\(", markup.inline["style"])


def test_a_link_leads_to_the_service_into_the_page_or_to_a_document(markup):
    identifiers = markup.attributes("id")
    links = [attrs["href"] for tag, attrs in markup.elements if tag == "a"]
    assert {"healthz", "readyz", "#closing", "#command", "#docs"} <= set(links)
    for link in links:
        known = link in ("healthz", "readyz") or link[1:] in identifiers
        assert known or link.startswith(DOCUMENTS), link


def test_an_identifier_stands_once_and_what_refers_to_one_finds_it(markup):
    identifiers = markup.attributes("id")
    assert len(identifiers) == len(set(identifiers))
    for name in ("aria-labelledby", "aria-describedby", "list", "for"):
        assert set(markup.attributes(name)) <= set(identifiers)
    assert set(re.findall(r'(?:\$|show)\("([\w-]+)"', markup.inline["script"])) <= set(identifiers)


def test_nothing_in_the_markup_needs_what_the_policy_forbids(markup):
    names = {name for _, attrs in markup.elements for name in attrs}
    assert "style" not in names
    assert not [name for name in names if name.startswith("on")]


def test_foreign_text_never_becomes_markup(markup):
    script = markup.inline["script"]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", script)


def test_the_closing_table_is_that_of_the_readme_cell_by_cell(markup):
    (table,) = re.findall(r"## How it closes\n\n((?:\|.*\n)+)", README)
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]
    assert rows[1] == ["---", "---"]
    assert markup.rows == [rows[0], *rows[2:]]


def test_each_query_control_has_its_field(markup):
    fields = [attrs.get("name") for tag, attrs in markup.elements if tag in ("input", "select")]
    assert [name for name in CONTROLS if name not in fields] == []


def test_the_page_is_told_once_whether_there_are_controls():
    on, off = page.html(controls=True), page.html(controls=False)
    assert on.count('data-controls="on"') == 1
    assert on.replace('data-controls="on"', 'data-controls="off"') == off


@pytest.fixture
async def fetch(nursery, connect):
    """Ask a running server; returns head and body of its answer."""
    server = await nursery.start(serve, Config(bind=["127.0.0.1:0"]))

    async def fetch(method, target):
        client = await connect(server)
        await client.send(f"{method} {target} HTTP/1.1\r\nHost: echo.example\r\n\r\n".encode())
        return await client.head(), await client.rest()

    return fetch


@pytest.mark.parametrize("target", ["/", "/?room=1", "http://echo.example/"])
async def test_the_page_is_served_whole_with_its_headers(fetch, target):
    head, body = await fetch("GET", target)
    assert wire.status(head) == 200
    assert body.decode() == page.html(controls=True)
    for name, value in [*page.HEADERS, ("Content-Length", str(len(body)))]:
        assert f"\r\n{name}: {value}\r\n".lower() in head.decode().lower()


async def test_head_is_answered_like_get_without_the_body(fetch):
    head, _ = await fetch("GET", "/")
    without, nothing = await fetch("HEAD", "/")
    dates = re.compile(rb"Date: [^\r]*", re.IGNORECASE)
    assert dates.sub(b"", without) == dates.sub(b"", head)
    assert nothing == b""


async def test_another_path_has_no_page(fetch):
    head, _ = await fetch("GET", "/chat")
    assert wire.status(head) == 426


async def test_an_upgrade_at_the_same_path_is_echoed(nursery, connect):
    server = await nursery.start(serve, Config(bind=["127.0.0.1:0"]))
    client = await connect(server)
    await client.open("/")
    await client.echo()
