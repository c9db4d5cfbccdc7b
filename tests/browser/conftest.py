"""A real browser, and a visit to the page of a running service."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from echo_service.testing import running
from tests.conftest import PATIENCE, missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Locator, Page

    from echo_service.testing import RunningServer

FLAGS = [
    "--no-sandbox",  # it may be root that tests, and the page is ours
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 780}


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Browser]:
    """Debian's chromium, without a window."""
    path = shutil.which("chromium")
    if path is None:
        missing("chromium is not here; it comes from Debian's package of this name")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """The page of a service in a browser of its own: a tab, without history or cache.

    ``complaints`` are the errors and warnings of its console, ``requests`` the URLs that
    were asked for.
    """

    def __init__(self, page: Page, server: RunningServer) -> None:
        self.page = page
        self.server = server
        self.origin = server.urls[0].replace("ws", "http", 1)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda websocket: self.requests.append(websocket.url))
        page.goto(self.origin + "/")

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def field(self, form: str, name: str) -> Locator:
        """A field of the form with this heading."""
        return self.page.get_by_role("form", name=form).get_by_label(name)

    def control(self, name: str) -> Locator:
        """The field of this query control."""
        return self.page.locator(f".controls [name={name}]")

    def rows(self, kind: str) -> Locator:
        """The lines of the log of this kind: ``sent``, ``echo``, ``open`` and so on."""
        log = self.page.get_by_role("log", name="Log")
        return log.get_by_role("listitem").filter(has=self.page.locator(f".kind:text-is('{kind}')"))

    def state_is(self, words: str) -> None:
        """Wait until the line of the state begins so."""
        from playwright.sync_api import expect

        expect(self.page.locator("#state")).to_have_text(words)

    def connect(self) -> None:
        """Connect as the fields say."""
        self.button("Connect").click()
        self.state_is("Open")

    def send(self, text: str) -> None:
        """Send a message of text."""
        self.page.get_by_role("radio", name="text").check()
        self.page.get_by_role("textbox", name="Your text").fill(text)
        self.button("Send").click()

    def choose_bytes(self, number: int) -> None:
        """Have the next messages be of so many random bytes."""
        self.page.get_by_role("radio", name="random bytes").check()
        self.field("Send", "Number of bytes").fill(str(number))

    def end(self) -> dict[str, str]:
        """How the last connection ended, as the page tells it."""
        ended = self.page.locator("#ended")
        return dict(
            zip(
                ended.locator("dt").all_inner_texts(),
                ended.locator("dd").all_inner_texts(),
                strict=True,
            )
        )


@pytest.fixture
def visit(browser):
    """Run a service with these options, and visit its page."""
    with ExitStack() as stack:

        def visit(*, viewport=WIDE, color_scheme="light", **options) -> Visit:
            server = stack.enter_context(running(**options))
            context = browser.new_context(
                viewport=viewport, color_scheme=color_scheme, ignore_https_errors=True
            )
            context.set_default_timeout(PATIENCE * 1000)
            stack.callback(context.close)
            return Visit(context.new_page(), server)

        yield visit
