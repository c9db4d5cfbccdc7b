"""The reports: text, table, JSON, JUnit's XML and HTML."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from echo_service.check import report
from echo_service.check.judge import Judgement, Verdict
from echo_service.check.junit import junit
from echo_service.check.page import page
from echo_service.check.row import Check
from echo_service.check.run import Result
from echo_service.check.transcript import Passed

URL = "ws://a/?b&c"
TRANSCRIPT = [
    Passed(">", bytearray(b"GET / HTTP/1.1\r\n\r\n\x88\x00"), 20),
    Passed("=", bytearray(b"TCP closed"), 10),
]


def result(name: str, verdict: Verdict, observed: str, why: str = "", case: str = "") -> Result:
    check = Check(name, "RFC 6455 5.2", case, "Close 1002", lambda _: None)
    return Result(check, Judgement(verdict, observed, why), 0.25, [TRANSCRIPT])


RESULTS = [
    result("framing.a", Verdict.PASS, "Close 1002", case="3.1"),
    result("framing.b", Verdict.NON_STRICT, "TCP closed", "a <b>SHOULD</b>"),
    result("closing.c", Verdict.FAIL, "Close 1000 '\x01]]>'", "wrong"),
    result("deflate.d", Verdict.SKIPPED, "declined"),
]


def test_text_is_a_line_a_check_and_one_for_all():
    assert list(report.text(RESULTS, verbose=False)) == [
        (
            "pass        framing.a  RFC 6455 5.2, Autobahn 3.1: expected Close 1002;"
            " observed Close 1002"
        ),
        (
            "non-strict  framing.b  RFC 6455 5.2: expected Close 1002;"
            " observed TCP closed (a <b>SHOULD</b>)"
        ),
        (
            "fail        closing.c  RFC 6455 5.2: expected Close 1002;"
            " observed Close 1000 '\x01]]>' (wrong)"
        ),
        "skipped     deflate.d  RFC 6455 5.2: expected Close 1002; observed declined",
        "4 checks: 1 passed, 1 non-strict, 1 failed, 1 skipped",
    ]
    assert list(report.text(RESULTS[:1], verbose=True))[1:] == [
        "    > GET / HTTP/1.1",
        "    >",
        "    > 88 00                                              Close without a code",
        "    = TCP closed",
        "1 check: 1 passed",
    ]


def test_a_table_has_the_same(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    report.table(RESULTS, verbose=True)
    shown = capsys.readouterr().out
    for words in (
        "verdict",
        "framing.a",
        "3.1",
        "non-strict",
        "a <b>SHOULD</b>",
        "4 checks: 1 pas",
    ):
        assert words in shown
    assert shown.count("> 88 00") == 4


def test_a_table_keeps_what_looks_like_markup(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    report.table([result("framing.a", Verdict.PASS, "Text '[bold]x[/]'")], verbose=False)
    assert "Text '[bold]x[/]'" in capsys.readouterr().out


def test_json_has_all_and_the_bytes_where_they_are_asked_for():
    document = json.loads(report.as_json(URL, RESULTS, verbose=False))
    assert document["url"] == URL
    assert document["counts"] == {"pass": 1, "non-strict": 1, "fail": 1, "skipped": 1}
    assert document["checks"][0] == {
        "id": "framing.a",
        "clause": "RFC 6455 5.2",
        "autobahn": "3.1",
        "expected": "Close 1002",
        "observed": "Close 1002",
        "verdict": "pass",
        "why": None,
        "seconds": 0.25,
    }
    assert [check["autobahn"] for check in document["checks"]] == ["3.1", None, None, None]
    verbose = json.loads(report.as_json(URL, RESULTS, verbose=True))
    assert verbose["checks"][0]["transcript"][0] == "> GET / HTTP/1.1"


def test_junit_has_a_failure_for_what_failed_and_passes_what_is_allowed():
    (suite,) = ET.fromstring(junit(URL, RESULTS))
    assert suite.attrib | {"name": ""} == {
        "name": "",
        "tests": "4",
        "failures": "1",
        "errors": "0",
        "skipped": "1",
        "time": "1.000",
    }
    cases = {f"{case.get('classname')}.{case.get('name')}": case for case in suite}
    assert [child.tag for child in cases["framing.a"]] == []
    assert [child.tag for child in cases["framing.b"]] == ["system-out"]
    assert [child.tag for child in cases["deflate.d"]] == ["skipped"]
    (failure,) = cases["closing.c"]
    assert failure.tag == "failure"
    expected = "RFC 6455 5.2: expected Close 1002; observed Close 1000 '\ufffd]]>' (wrong)"
    assert failure.get("message") == expected
    assert "> 88 00" in failure.text


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def test_html_is_one_page_that_refers_to_nothing():
    text = page(URL, RESULTS)
    parsed = Page(text)
    assert not {name for name, _ in parsed.attributes} & {"src", "href"}
    assert not re.search(r"url\(|@import|<script", text)
    assert parsed.tags.count("tr") == 1 + len(RESULTS)
    assert "b" not in parsed.tags
    for words in (URL, "a <b>SHOULD</b>", "4 checks: 1 passed", "> 88 00", "closing.c"):
        assert words in parsed.text


@pytest.mark.parametrize("make", [junit, page])
def test_a_report_of_nothing_is_one_too(make):
    assert make(URL, [])


def test_where_there_was_no_connection_the_reports_say_so():
    (suite,) = ET.fromstring(junit(URL, [], "no connection: <refused>"))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "0", "1")
    ((error,),) = suite
    assert (error.tag, error.get("message")) == ("error", "no connection: <refused>")
    parsed = Page(page(URL, [], "no connection: <refused>"))
    assert "no connection: <refused>. Made by" in parsed.text
    assert "0 checks" not in parsed.text


@pytest.mark.parametrize("make", [junit, page])
def test_a_url_may_have_what_no_report_can(make):
    text = make("ws+unix:a\x01\udcff\x1bb", RESULTS)
    assert "ws+unix:a\ufffd\ufffd\ufffdb" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\ud800-\udfff]", text)
    assert text.encode()
