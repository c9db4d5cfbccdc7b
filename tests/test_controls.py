"""The query controls: a target in, what was asked or why not out."""

from __future__ import annotations

import json
from contextlib import suppress
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_service import controls, policy
from echo_service.controls import Controls, parse
from echo_service.request import Refused


def refused(target: str | bytes) -> str:
    """Why a target is refused."""
    with pytest.raises(Refused) as caught:
        parse(target.encode() if isinstance(target, str) else target)
    assert (caught.value.status, caught.value.headers) == (400, ())
    return caught.value.cause


# What is read


@pytest.mark.parametrize(
    "query, expected",
    [
        ("delay=0", {"delay": 0}),
        ("delay=0.25", {"delay": 0.25}),
        ("delay=.5", {"delay": 0.5}),
        ("delay=60.0", {"delay": 60}),
        ("fragment=1", {"fragment": 1}),
        ("fragment=1048576", {"fragment": 1048576}),
        ("close=0", {"close": 0}),
        ("close=65535", {"close": 65535}),
        ("close=none", {"close": "none"}),
        ("close=1000&reason=", {"close": 1000, "reason": ""}),
        ("close=1000&reason=a%20b+c%2Bd", {"close": 1000, "reason": "a b c+d"}),
        ("reason=gr%C3%BCn&close=1", {"close": 1, "reason": "grün"}),
        ("close=none&after=7", {"close": "none", "after": 7}),
        ("close=1000&after=0", {"close": 1000, "after": 0}),
        ("drop=0", {"drop": 0}),
        ("drop=1.5", {"drop": 1.5}),
        ("ping=1", {"ping": 1}),
        ("ping=3600", {"ping": 3600}),
        ("compress=off", {"compress": "off"}),
        ("info=1", {"info": "1"}),
        ("%64elay=%31", {"delay": 1}),
        ("a=b&&delay=1&=&c", {"delay": 1}),
        ("delay=1&fragment=2&ping=3&compress=off&info=1&drop=4",
         {"delay": 1, "fragment": 2, "ping": 3, "compress": "off", "info": "1", "drop": 4}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/a/b", "http://echo.example/", "http://echo.example"])
def test_what_is_asked_is_read(query: str, expected: dict[str, object], path: str):
    found = parse(f"{path}?{query}".encode())
    assert found == Controls(**expected)
    assert found.asked == expected


@pytest.mark.parametrize(
    "target",
    ["/", "/?", "/delay=99", "/?delays=99&Delay=99&DELAY=99&close-code=x", "/?%ff=%ff&a=%zz"],
)
def test_other_parameters_are_left_alone(target: str):
    assert parse(target.encode()) is None


@pytest.mark.parametrize(
    "query, name, shown, accepted",
    [
        ("delay=61", "delay", "61", "a number of seconds from 0 to 60"),
        ("fragment=0", "fragment", "0", "a whole number from 1 to 1048576"),
        ("fragment=1048577", "fragment", "1048577", "a whole number from 1 to 1048576"),
        ("close=65536", "close", "65536", "a whole number from 0 to 65535, or none"),
        ("close=1&reason=" + "x" * 124, "reason", "x" * 64, "UTF-8 of at most 123 bytes"),
        ("close=1&reason=%FFa", "reason", r"\udcffa", "UTF-8 of at most 123 bytes"),
        ("close=1&after=-1", "after", "-1", "a whole number from 0 to 1000000000"),
        ("drop=x", "drop", "x", "a number from 0 to 1000000000"),
        ("ping=0.5", "ping", "0.5", "a number of seconds from 1 to 3600"),
        ("ping=3601", "ping", "3601", "a number of seconds from 1 to 3600"),
        ("compress=on", "compress", "on", "off"),
        ("info=", "info", "", "1"),
        ("info", "info", "", "1"),
        ("reason=why", "reason", "why", "only with close"),
        ("after=3&drop=1", "after", "3", "only with close"),
        ("close=none&reason=why", "reason", "why", "only with a close code: none has no body"),
        ("close=1000&drop=1.5", "drop", "1.5", "only without close"),
    ],
    ids=lambda text: text[:20],
)
def test_a_refusal_names_the_parameter_its_value_and_what_is_accepted(
    query: str, name: str, shown: str, accepted: str
):
    assert refused(f"/?{query}") == f"{name}='{shown}' can't be used; accepted: {accepted}"


def test_a_parameter_is_given_once():
    assert refused("/?info=1&a=b&info=1") == "info is there twice in the query; accepted: once"


NOT_NUMBERS = [
    "",
    "-1",
    "+1",
    " 1",
    "1e1",
    "0x1",
    "1_0",
    "nan",
    "inf",
    "\u0661",
    "9" * 8000,
    "None",
]


@pytest.mark.parametrize("text", NOT_NUMBERS, ids=lambda text: ascii(text[:9]))
@pytest.mark.parametrize("name", ["delay", "fragment", "close", "after", "drop", "ping"])
def test_what_is_no_plain_number_is_refused(name: str, text: str):
    assert refused(
        f"/?close=1&{name}={quote(text)}" if name == "after" else f"/?{name}={quote(text)}"
    )


@pytest.mark.parametrize("name", ["fragment", "close", "after"])
def test_what_is_counted_is_whole(name: str):
    assert refused(f"/?{name}=1.5")


@pytest.mark.parametrize("reason", ["x" * 123, "ü" * 61 + "x", "€" * 41])
def test_a_reason_may_fill_the_frame(reason: str):
    query = urlencode({"close": 1000, "reason": reason})
    _, verdict = parse(f"/?{query}".encode()).end
    assert verdict.close == b"\x03\xe8" + reason.encode()
    assert "reason=" in refused(f"/?{query}x")


@given(st.text(alphabet=[chr(each) for each in range(0x21, 0x7F)]))
def test_any_target_is_read_or_refused(query: str):
    with suppress(Refused):
        parse(f"/?{query}".encode())


# What it means


@pytest.mark.parametrize(
    "asked, expected",
    [
        ({}, None),
        ({"delay": 1, "fragment": 1}, None),
        ({"close": "none"}, (0, policy.asked(b""))),
        ({"close": 0, "after": 3}, (3, policy.asked(b"\x00\x00"))),
        ({"close": 1001, "reason": "grün"}, (0, policy.asked(b"\x03\xe9gr\xc3\xbcn"))),
        ({"drop": 0}, (0, policy.DROPPED)),
        ({"drop": 1.5}, (1.5, policy.DROPPED)),
    ],
    ids=str,
)
def test_the_end_is_after_so_many_echoes(asked: dict[str, object], expected: object):
    assert Controls(**asked).end == expected


@pytest.mark.parametrize("name", ["delay", "fragment", "close", "drop"])
def test_some_change_the_echo(name: str):
    assert Controls(**{name: 0}).shapes


def test_the_others_do_not():
    assert not Controls(ping=1, compress="off", info="1").shapes


@pytest.mark.parametrize("agreed", [None, "permessage-deflate"])
def test_info_is_json(agreed: str | None):
    headers = [(b"host", b"echo.example"), (b"x-odd", b"\xff \xc3\xbc"), (b"host", b"")]
    text = controls.info(b"/a?info=1", headers, "[::1]:5000", agreed, agreed)
    assert json.loads(text) == {
        "target": "/a?info=1",
        "headers": [["host", "echo.example"], ["x-odd", "\xff \xc3\xbc"], ["host", ""]],
        "peer": "[::1]:5000",
        "extensions": agreed,
        "subprotocol": agreed,
    }
