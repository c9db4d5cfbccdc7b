"""The page at `GET /` as a person meets it, in a real browser."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import product

import pytest

from tests.browser.conftest import PHONE, WIDE

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("in_time")]

MILLISECONDS = re.compile(r"^[0-9]+(\.[0-9]+)? ms$")


def expect(locator):
    from playwright.sync_api import expect

    return expect(locator)


@pytest.fixture
def quiet(visit):
    """A visit in the end of which the console has no complaint, and nobody else was asked."""
    visits = []

    def begin(**options):
        visits.append(visit(**options))
        return visits[-1]

    yield begin
    for each in visits:
        assert each.complaints == []
        places = each.origin + "/", each.server.urls[0] + "/", "data:"
        assert each.requests
        assert [url for url in each.requests if not url.startswith(places)] == []


# Messages


def test_text_comes_back_with_its_size_and_its_time(quiet):
    here = quiet()
    here.connect()
    here.send("Grüße, 👋")
    expect(here.rows("sent").locator(".what")).to_have_text("Grüße, 👋")
    expect(here.rows("sent").locator(".size")).to_have_text("13 B")
    expect(here.rows("echo").locator(".what")).to_have_text("Grüße, 👋")
    expect(here.rows("echo").locator(".size")).to_have_text("13 B")
    expect(here.rows("echo").locator(".ms")).to_have_text(MILLISECONDS)
    expect(here.rows("echo").locator("time")).to_have_text(re.compile(r"^\d\d:\d\d:\d\d\.\d{3}$"))
    expect(here.page.locator("#tally")).to_have_text(re.compile(r"^1 sent · 1 echo · last .* ms$"))
    assert here.server.statistics().texts == 1


@pytest.mark.parametrize("size, shown", [(0, "0 B"), (65535, "65,535 B"), (1048576, "1 MiB")])
def test_so_many_random_bytes_come_back_timed(quiet, size, shown):
    here = quiet()
    here.connect()
    here.choose_bytes(size)
    here.button("Send").click()
    expect(here.rows("echo").locator(".size")).to_have_text(shown)
    expect(here.rows("echo").locator(".ms")).to_have_text(MILLISECONDS)
    expect(here.page.locator("#last")).to_have_text(MILLISECONDS)
    statistics = here.server.statistics()
    assert (statistics.binaries, statistics.octets) == (1, size)


def test_a_file_comes_back(quiet, tmp_path):
    (tmp_path / "small").write_bytes(bytes(range(20)))
    here = quiet()
    here.connect()
    here.page.get_by_role("radio", name="file").check()
    here.field("Send", "Your file").set_input_files(tmp_path / "small")
    here.button("Send").click()
    beginning = "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f …"
    expect(here.rows("echo").locator(".what")).to_have_text(beginning)
    expect(here.rows("echo").locator(".size")).to_have_text("20 B")


def test_a_message_is_shown_as_it_is_and_not_as_markup(quiet):
    here = quiet()
    here.connect()
    here.send("<img src=x onerror=alert(1)>")
    expect(here.rows("echo").locator(".what")).to_have_text("<img src=x onerror=alert(1)>")
    assert here.page.locator("img").count() == 0


def test_a_long_message_is_shown_shortened(quiet):
    here = quiet()
    here.connect()
    here.send("x" * 100_000)
    expect(here.rows("echo").locator(".what")).to_have_text("x" * 240 + " …")
    expect(here.rows("echo").locator(".size")).to_have_text("100,000 B")


def test_repeated_messages_are_charted_and_the_log_stays_bounded(quiet):
    here = quiet()
    here.connect()
    here.choose_bytes(64)
    here.page.get_by_label("ms apart").fill("10")
    here.button("Repeat").click()
    expect(here.button("Repeat")).to_have_attribute("aria-pressed", "true")
    expect(here.page.get_by_role("log")).to_have_attribute("aria-live", "off")
    expect(here.page.locator("#kept")).to_contain_text("older ones are gone")
    here.button("Repeat").click()
    expect(here.page.get_by_role("log")).to_have_attribute("aria-live", "polite")
    assert here.page.get_by_role("log").get_by_role("listitem").count() == 200
    chart = here.page.get_by_role("img", name=re.compile("of the last 100 messages: median .* ms"))
    expect(chart).to_be_visible()
    assert chart.locator("#curve").get_attribute("d").count("L") == 99


# Endings


def test_a_chosen_code_and_reason_come_back(quiet):
    here = quiet()
    here.connect()
    here.field("Close", "Code").fill("3000")
    here.field("Close", "Reason").fill("that was all")
    here.button("Close").click()
    here.state_is("Closed")
    assert here.end() == {
        "code": "3000",
        "means": "registered by a library or framework",
        "reason": "that was all",
        "wasClean": "true",
    }
    expect(here.rows("close").locator(".what")).to_have_text("3000 that was all · clean")
    assert here.server.statistics().received_codes == {3000: 1}


def test_a_close_without_a_code_comes_back_without_one(quiet):
    here = quiet()
    here.connect()
    here.field("Close", "Code").fill("")
    here.button("Close").click()
    here.state_is("Closed")
    assert (here.end()["code"], here.end()["wasClean"]) == ("1005", "true")


@pytest.mark.parametrize(
    "code, reason",
    [("1001", ""), ("2999", ""), ("5000", ""), ("x", ""), ("", "why"), ("1000", "é" * 62)],
)
def test_what_a_browser_can_not_send_is_told_in_the_form(quiet, code, reason):
    here = quiet()
    here.connect()
    here.field("Close", "Code").fill(code)
    here.field("Close", "Reason").fill(reason)
    here.button("Close").click()
    expect(here.page.locator("#closing-form input:invalid")).to_have_count(1)
    here.state_is("Open")
    here.field("Close", "Code").fill("4999")
    here.field("Close", "Reason").fill("é" * 61)
    here.button("Close").click()
    here.state_is("Closed")
    assert here.server.statistics().received_codes == {4999: 1}


def test_a_drain_is_seen_as_1001_and_a_service_that_is_gone_as_such(visit):
    here = visit()
    here.connect()
    here.server.drain()
    here.state_is("Closed")
    assert here.end() == {
        "code": "1001",
        "means": "going away: the service stops",
        "reason": "the service is going away",
        "wasClean": "true",
    }
    assert here.complaints == []
    here.button("Connect").click()
    expect(here.page.get_by_role("status")).to_have_text(
        re.compile(r"Could not connect\s+The service can't be reached\.")
    )
    assert here.complaints  # the browser's own, of a connection that was refused
    assert all("ERR_CONNECTION_REFUSED" in each for each in here.complaints)


def test_a_connection_that_is_cut_off_is_seen_as_1006_and_not_clean(visit):
    here = visit()
    here.connect()
    here.server.stop()
    here.state_is("Closed")
    assert (here.end()["code"], here.end()["wasClean"]) == ("1006", "false")
    assert here.page.locator("#strip").get_attribute("data-clean") == "false"


@pytest.mark.parametrize(
    "sent, seen",
    [("0", ("0", "true")), ("2999", ("2999", "true")), ("1006", ("1006", "false"))],
)
def test_a_forbidden_code_of_the_service_is_shown_as_the_browser_takes_it(visit, sent, seen):
    """Chromium fails the connection for 1005, 1006 and 1015 alone (RFC 6455 7.4.1)."""
    here = visit()
    here.page.get_by_text("Query controls").click()
    here.control("close").fill(sent)
    expect(here.page.locator("#address")).to_have_text(f"{here.server.urls[0]}/?close={sent}")
    here.button("Connect").click()
    here.state_is("Closed")
    end = here.end()
    assert (end["code"], end["wasClean"]) == seen
    assert ("forbidden" in end["means"]) is (sent != "1006")
    assert len(here.complaints) == (sent == "1006")  # the browser's own


def test_the_controls_are_the_query_and_the_greeting_is_no_echo(quiet):
    here = quiet()
    here.page.get_by_text("Query controls").click()
    here.field("Connect", "Path").fill("/chat?room=a b")
    here.control("reason").fill("&=ü")
    here.control("close").fill("4000")
    here.control("after").fill("1")
    here.control("info").check()
    here.control("compress").check()
    query = "room=a%20b&close=4000&after=1&reason=%26%3D%C3%BC&compress=off&info=1"
    expect(here.page.locator("#address")).to_have_text(f"{here.server.urls[0]}/chat?{query}")
    here.connect()
    expect(here.rows("info").locator(".what")).to_contain_text("/chat?room=a%20b")
    here.send("hello")
    expect(here.rows("echo").locator(".what")).to_have_text("hello")
    here.state_is("Closed")
    assert (here.end()["code"], here.end()["reason"]) == ("4000", "&=ü")


def test_a_service_without_controls_offers_none(quiet):
    here = quiet(controls=False)
    assert here.page.get_by_text("Query controls").count() == 0
    assert here.page.locator("[data-needs-controls]").count() == 0


# The opening handshake


def test_a_subprotocol_is_agreed_on(quiet):
    here = quiet(subprotocol=["chat"])
    here.field("Connect", "Subprotocols").fill("soap, chat")
    here.connect()
    expect(here.rows("open").locator(".what")).to_contain_text("subprotocol chat")


def test_a_handshake_that_the_browser_gives_up_has_a_hint(visit):
    here = visit()
    here.field("Connect", "Subprotocols").fill("soap")
    here.button("Connect").click()
    here.state_is("Could not connect")
    expect(here.rows("why").locator(".what")).to_contain_text("The service is ready")


def test_a_subprotocol_that_can_not_be_offered_is_told_in_the_form(quiet):
    here = quiet()
    here.field("Connect", "Subprotocols").fill("no token")
    here.button("Connect").click()
    expect(here.page.locator("#connection input:invalid")).to_have_count(1)
    here.state_is("Not connected")
    here.field("Connect", "Subprotocols").fill("")
    here.connect()


def test_a_page_that_came_by_https_connects_by_wss(quiet, certificate):
    here = quiet(**certificate())
    assert here.origin.startswith("https://")
    here.connect()
    here.send("hello")
    expect(here.rows("echo")).to_have_count(1)
    expect(here.rows("connect").locator(".what")).to_have_text(here.server.urls[0] + "/")


def test_the_policy_is_in_force(visit):
    here = visit()
    tried = here.page.evaluate(
        """async () => {
            const broken = [];
            addEventListener("securitypolicyviolation", (event) =>
                broken.push(event.effectiveDirective));
            const script = document.createElement("script");
            script.textContent = "document.title = 'run'";
            document.body.append(script);
            document.body.setAttribute("style", "color: red");
            await fetch("http://127.0.0.1:1/").catch(() => {});
            try { new WebSocket("ws://127.0.0.1:1/"); } catch {}
            await new Promise((done) => setTimeout(done));
            return [document.title, ...broken];
        }"""
    )
    assert tried[0] == "echo-service"
    directives = {"script-src-elem", "style-src-attr", "connect-src"}
    assert set(tried[1:]) == directives


def test_the_clock_is_a_fine_one(quiet):
    assert quiet().page.evaluate("crossOriginIsolated") is True


# For everybody


def test_all_is_done_with_the_keyboard(quiet):
    here = quiet()
    press = here.page.keyboard.press
    seen = []

    def tab_to(name):
        while (focused := here.page.evaluate(FOCUSED)) != name:
            assert len(seen) < 50, seen
            seen.append(focused)
            press("Tab")

    tab_to("Connect")
    press("Enter")
    here.state_is("Open")
    tab_to("Your text")
    press("ControlOrMeta+A")
    here.page.keyboard.type("typed")
    press("Control+Enter")
    expect(here.rows("echo").locator(".what")).to_have_text("typed")
    tab_to("Code")
    here.page.keyboard.type("4000")
    press("Enter")
    here.state_is("Closed")
    assert here.end()["code"] == "4000"
    tab_to("log")
    assert [name for name in seen if name in ORDER] == ORDER


FOCUSED = """() => {
    const element = document.activeElement;
    const words = [...(element.labels?.[0] ?? element).childNodes]
        .filter((node) => node.nodeType === Node.TEXT_NODE)
        .map((node) => node.textContent.trim());
    return element.getAttribute("role") ?? words.join("");
}"""

ORDER = [
    "Health",
    "Path",
    "Connect",
    "text",
    "Your text",
    "Send",
    "Repeat",
    "ms apart",
    "Code",
    "Reason",
    "Close",
]


@pytest.fixture(
    params=list(product([WIDE, PHONE], ["light", "dark"])),
    ids=lambda it: f"{it[0]['width']} {it[1]}",
)
def states(quiet, request):
    """Go from state to state of the page, in this size and scheme."""
    viewport, color_scheme = request.param
    here = quiet(viewport=viewport, color_scheme=color_scheme)

    def go():
        yield "idle", here
        here.connect()
        here.send("hello " * 100)
        expect(here.rows("echo")).to_have_count(1)
        yield "open", here
        here.server.drain()
        here.state_is("Closed")
        yield "closed", here

    return go


def test_no_rule_of_accessibility_is_broken_in_any_state(states):
    from axe_playwright_python.sync_playwright import Axe

    for state, here in states():
        found = Axe().run(here.page)
        assert found.violations_count == 0, (state, found.generate_report())


def test_nothing_is_wider_than_the_window_in_any_state(states):
    for state, here in states():
        widths = here.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert widths[0] <= widths[1], state


def test_the_scheme_is_that_of_the_reader(visit):
    grounds = {
        scheme: visit(color_scheme=scheme).page.evaluate(
            "getComputedStyle(document.body).backgroundColor"
        )
        for scheme in ("light", "dark")
    }
    assert grounds == {"light": "rgb(243, 245, 247)", "dark": "rgb(15, 20, 25)"}


def test_the_command_line_that_is_shown_echoes(quiet):
    here = quiet()
    command = here.page.locator("#command code").inner_text().splitlines()[1].split()
    assert command[:3] == ["python", "-m", "websockets"]
    with subprocess.Popen(
        [sys.executable, *command[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        program.stdin.write("hello\n")
        program.stdin.flush()
        assert any("< hello" in line for line in program.stdout)
        program.stdin.close()
        assert "Connection closed: 1000 (OK)." in program.stdout.read()
