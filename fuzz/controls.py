"""Query controls: any query is read as the documents have it, or refused by a parameter's name.

An input is the query of a request's target.  Of the bytes that h11 lets into none, the first
stand for a parameter each, and the others for bytes that may come.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from echo_service import controls
from echo_service.request import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARAMETERS: dict[bytes, Callable[[bytes], float | str]] = {
    b"delay": lambda text: _number(text, 0, 60),
    b"fragment": lambda text: _number(text, 1, 1048576, whole=True),
    b"close": lambda text: "none" if text == b"none" else _number(text, 0, 65535, whole=True),
    b"reason": lambda text: _fits(text.decode(), len(text) <= 123),
    b"after": lambda text: _number(text, 0, 10**9, whole=True),
    b"drop": lambda text: _number(text, 0, 10**9),
    b"ping": lambda text: _number(text, 1, 3600),
    b"compress": lambda text: _fits(text.decode(), text == b"off"),
    b"info": lambda text: _fits(text.decode(), text == b"1"),
}
"""The table of docs/controls.md: a value that is none raises ValueError."""

_WORDS = [
    *(b"&%b=" % name for name in PARAMETERS),
    *(bytes((33 + (byte - 33) % 94,)) for byte in range(len(PARAMETERS), 256)),
]
"""What each byte of an input stands for."""

MOST_DIGITS = 18
"""Digits that are enough for any number; one that is spelt in more may be refused."""

LONGEST = 750
"""Characters of a refusal, which repeats no more than 64 of the wrong value's, escaped."""


def check(data: bytes) -> None:
    """Judge an input."""
    hold(b"".join(_WORDS[byte] for byte in data))


def hold(query: bytes) -> None:
    """Hold what is found in a query, or why it is refused, against the documents."""
    expected, faults = read(query)
    doubts = {
        name for name, value in pairs(query) if re.search(rb"[0-9]{%d}" % (MOST_DIGITS + 1), value)
    }
    try:
        found = controls.parse(b"/?" + query)
    except Refused as refused:
        hold_refusal(refused, faults | doubts)
        return
    assert not faults, (faults, found)
    asked = {} if found is None else found.asked
    assert asked == expected, (asked, expected)
    assert (found is None) == (not expected)
    if found is not None:
        hold_end(found, expected)
        told = json.loads(controls.info(b"/?" + query, [(b"host", b"\xff")], "", None, None))
        assert told["target"].encode() == b"/?" + query


def hold_refusal(refused: Refused, faults: set[bytes]) -> None:
    """A refusal is a 400 whose words are fit for a log, and name what is at fault."""
    assert refused.status == 400
    assert not refused.headers
    name = re.match(r"([a-z]+)(=| is there twice)", refused.cause)
    assert name, refused.cause
    assert name[1].encode() in faults, (refused.cause, faults)
    assert "; accepted: " in refused.cause
    assert re.fullmatch(rf"[\x20-\x7e]{{1,{LONGEST}}}", refused.cause), refused.cause


def hold_end(found: controls.Controls, expected: dict[str, float | str]) -> None:
    """It ends as asked, with a Close that fits its frame, and after so many echoes."""
    if not {"close", "drop"} & expected.keys():
        assert found.end is None
        return
    assert found.end is not None
    echoes, verdict = found.end
    assert echoes == expected.get("drop", expected.get("after", 0))
    payload: bytes | None = None
    if "close" in expected:
        reason = str(expected.get("reason", "")).encode()
        code = expected["close"]
        payload = b"" if isinstance(code, str) else int(code).to_bytes(2, "big") + reason
        assert len(payload) <= 125
    assert verdict.close == payload


def read(query: bytes) -> tuple[dict[str, float | str], set[bytes]]:
    """The values that are asked for, and the parameters that are at fault."""
    values: dict[bytes, float | str] = {}
    faults = set()
    for name, text in pairs(query):
        if name in PARAMETERS:
            try:
                value = PARAMETERS[name](text)
            except ValueError:
                faults.add(name)
                continue
            if name in values:
                faults.add(name)
            values[name] = value
    if b"close" not in values:
        faults |= {b"reason", b"after"} & values.keys()
    elif b"drop" in values:
        faults.add(b"drop")
    if values.get(b"close") == "none":
        faults |= {b"reason"} & values.keys()
    return {name.decode(): value for name, value in values.items()}, faults


def pairs(query: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and values, as a form is written (URL Standard 5.1)."""
    for part in query.split(b"&"):
        name, _, value = part.replace(b"+", b" ").partition(b"=")
        yield _decoded(name), _decoded(value)


def _decoded(text: bytes) -> bytes:
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda found: bytes.fromhex(found[1].decode()), text)


def _number(text: bytes, least: float, most: float, *, whole: bool = False) -> float:
    if not re.fullmatch(rb"[0-9]+" if whole else rb"[0-9]+\.?[0-9]*|\.[0-9]+", text):
        raise ValueError
    number = float(text)
    _fits("", least <= number <= most)
    return number


def _fits(text: str, fits: bool) -> str:
    if not fits:
        raise ValueError
    return text
