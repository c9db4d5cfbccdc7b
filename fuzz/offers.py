"""Offers: what is agreed on is what the client's first good offer allows (RFC 7692 5 and 7.1).

An input is the value of a Sec-WebSocket-Extensions header; one that begins with a line feed
is repeated to the length that a head can have, and must not take long.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from echo_service.compression import negotiate

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST = 16384
"""Bytes of header fields together."""

PATIENCE = 2.0
"""Seconds of the processor for so much, which takes a hundredth; in squared time it would take
many."""

OURS = 12
"""The largest window that the service agrees to where it can choose."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BITS = {str(bits) for bits in range(9, 16)}
"""The RFC allows 8 too, which can be declined and is."""

_ALLOWED: dict[str, set[str | None]] = {
    "server_no_context_takeover": {None},
    "client_no_context_takeover": {None},
    "server_max_window_bits": {*_BITS},
    "client_max_window_bits": {None, *_BITS},
}


def check(data: bytes) -> None:
    """Judge an input."""
    if data.startswith(b"\n"):
        hold_time((data[1:] * MOST)[:MOST].decode("latin-1"))
    else:
        hold(data.decode("latin-1"))


def hold(text: str) -> None:
    """Hold the agreement against the first offer that can be accepted."""
    offer = next(filter(None, map(good, elements(text))), None)
    agreed = negotiate(text)
    assert (agreed is None) == (offer is None), (offer, agreed)
    if agreed is None or offer is None:
        return
    name, *answers = agreed.response.split("; ")
    assert name == "permessage-deflate"
    answered = dict(pair(each) for each in answers)
    assert len(answered) == len(answers), "nothing is answered twice"
    assert answered.keys() <= offer.keys(), "nothing is answered that was not offered"
    for flag in ("server_no_context_takeover", "client_no_context_takeover"):
        assert getattr(agreed, flag) == (flag in answered) == (flag in offer)
        assert answered.get(flag) is None
    for side in ("server", "client"):
        parameter = f"{side}_max_window_bits"
        bits = getattr(agreed, parameter)
        assert bits <= int(offer.get(parameter) or 15)
        if parameter in offer:
            assert 9 <= bits <= OURS
            assert answered[parameter] == str(bits)
        else:  # what the client was not asked for it need not keep (7.1.2.2)
            assert bits == (15 if side == "client" else OURS)
    assert negotiate(agreed.response) == agreed


def hold_time(text: str) -> None:
    """The time does not grow with the square of the length."""
    begun = time.process_time()
    negotiate(text)
    assert time.process_time() - begun < PATIENCE


def split(text: str, sign: str) -> Iterator[str]:
    """What stands between the signs, but for those in a quoted string (RFC 9110 5.6.4)."""
    part, quoted, escaped = "", False, False
    for character in text:
        if character == sign and not quoted:
            yield part
            part = ""
            continue
        part += character
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = quoted
        elif character == '"':
            quoted = not quoted
    yield part


def elements(text: str) -> Iterator[list[str]]:
    """The offers, each a list of its name and parameters."""
    for element in split(text, ","):
        yield [part.strip(" \t") for part in split(element, ";")]


def good(element: list[str]) -> dict[str, str | None] | None:
    """The parameters of an offer that can be accepted."""
    name, *parameters = element
    pairs = [pair(parameter) for parameter in parameters]
    offer = dict(pairs)
    fits = all(value in _ALLOWED.get(parameter, ()) for parameter, value in pairs)
    if name != "permessage-deflate" or len(offer) < len(pairs) or not fits:
        return None
    return {"": None, **offer}  # true, if there are no parameters


def pair(parameter: str) -> tuple[str, str | None]:
    """A parameter's name and its value, which may be a quoted string; both empty: malformed."""
    name, sign, value = parameter.partition("=")
    name, value = name.rstrip(" \t"), value.lstrip(" \t")
    if not sign:
        return name, None
    if value.startswith('"'):
        quoted = re.fullmatch(r'"((?:[^"\\]|\\.)*)"', value, re.DOTALL)
        value = re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL) if quoted else ""
    return (name, value) if _TOKEN.fullmatch(value) else ("", "")
