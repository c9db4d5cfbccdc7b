"""Opening handshakes by the grammar of RFC 6455 4.1 and RFC 9112, and what is wrong with some."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

SPOKEN = ("chat", "superchat")
"""The subprotocols that the service is to speak."""

ALLOWED = ("https://app.example", "HTTPS://APP.example:443", "null")
"""Spellings of the origins that it is to allow."""

spaces = st.sampled_from(["", " ", "\t", "  "])


class Offer(NamedTuple):
    """An element of Sec-WebSocket-Extensions; its parameters, None where it is to be declined."""

    text: str
    parameters: dict[str, str | None] | None = None


@dataclass
class Head:
    """A request's head; ``fields`` are names in small letters, and whole lines."""

    method: str
    target: str
    key: str
    subprotocols: list[str]
    offers: list[Offer]
    version: str = "HTTP/1.1"
    fields: list[tuple[str, bytes]] = field(default_factory=list)
    spoil: Callable[[list[bytes]], bytes] = b"\r\n".join
    """How the lines become one: right, or not."""

    def encode(self):
        first = f"{self.method} {self.target} {self.version}".encode()
        return self.spoil([first, *(line for _, line in self.fields), b"", b""])

    def put(self, draw, name, *values):
        """Have a header with these values, each in a line, and no others."""
        self.fields = [each for each in self.fields if each[0] != name.lower()]
        self.add(draw, name, *values)

    def add(self, draw, name, *values):
        """Have lines more, in order, somewhere below what there is of this header."""
        for value in values:
            places = [n for n, each in enumerate(self.fields) if each[0] == name.lower()]
            at = draw(st.integers(places[-1] + 1 if places else 0, len(self.fields)))
            spelt = draw(st.sampled_from([name, name.lower(), name.upper()]))
            line = f"{spelt}:{draw(spaces)}{value}{draw(spaces)}".encode("latin-1")
            self.fields.insert(at, (name.lower(), line))


# Offers of compression (RFC 7692 7.1)

windows = st.integers(9, 15).map(str)

PARAMETERS = {
    "server_no_context_takeover": st.none(),
    "client_no_context_takeover": st.none(),
    "server_max_window_bits": windows,
    "client_max_window_bits": st.none() | windows,
}

WRONG_OFFERS = {
    "another extension": ["x-webkit-deflate-frame", "permessage-bzip2", "Permessage-deflate", ""],
    "an unknown parameter": ["permessage-deflate; foo", "permessage-deflate; foo=1"],
    "a parameter twice": [
        "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    ],
    "a flag with a value": [
        "permessage-deflate; server_no_context_takeover=1",
        'permessage-deflate; client_no_context_takeover="true"',
    ],
    "a window without its size": ["permessage-deflate; server_max_window_bits"],
    "no such window": [
        f"permessage-deflate; {side}_max_window_bits={bits}"
        for side in ("server", "client")
        for bits in ("0", "7", "16", "010", "1O", "+10", '"10 "', '""')
    ],
    "malformed": [
        "permessage-deflate;",
        "permessage-deflate;;client_max_window_bits",
        "permessage-deflate client_max_window_bits",
        "permessage-deflate; client_max_window_bits=",
        "permessage-deflate; =10",
        '"permessage-deflate"',
    ],
}


@st.composite
def good_offers(draw):
    """One that is to be accepted."""
    names = draw(st.lists(st.sampled_from(sorted(PARAMETERS)), unique=True))
    parameters = {name: draw(PARAMETERS[name]) for name in names}
    text = "permessage-deflate"
    for name, value in parameters.items():
        text += f"{draw(spaces)};{draw(spaces)}{name}"
        if value is not None:
            text += draw(st.sampled_from([f"={value}", f'="{value}"', f'="\\{value}"']))
    return Offer(text, parameters)


wrong_offers = st.sampled_from(sorted(WRONG_OFFERS)).flatmap(
    lambda label: st.sampled_from(WRONG_OFFERS[label]).map(Offer)
)

offers = st.lists(good_offers() | wrong_offers, max_size=3)


# Handshakes without a fault

HOSTS = ["echo.example", "echo.example:8080", "127.0.0.1", "[2001:db8::1]:80", "a-b.example:"]
TARGETS = [
    "/",
    "/chat?room=1&room=2",
    "/healthz",
    "/%7E;a=b/,",
    "http://echo.example/a?b",
    "HTTP://echo.example:8080",
]
UPGRADES = [["websocket"], ["WebSocket"], ["h2c, websocket"], ["foo/1", "WEBSOCKET,"]]
CONNECTIONS = [["Upgrade"], ["keep-alive, Upgrade"], ["keep-alive", "upgrade"], [",upgrade ,TE"]]
OTHERS = [
    ("User-Agent", "caf\xe9/1.0 (a; b)"),
    ("Cookie", "a=b; c=d"),
    ("X-Empty", ""),
    ("Sec-WebSocket-Key1", "4 @1  46546xW%0l 1 5"),
    ("Sec-WebSocket-Accept", "x"),
]

keys = st.binary(min_size=16, max_size=16).map(lambda key: base64.b64encode(key).decode())


@st.composite
def heads(draw):
    """An opening handshake that is to be accepted."""
    names = draw(st.lists(st.sampled_from([*SPOKEN, "Chat", "soap"]), unique=True, max_size=3))
    head = Head("GET", draw(st.sampled_from(TARGETS)), draw(keys), names, draw(offers))
    head.put(draw, "Host", draw(st.sampled_from(HOSTS)))
    head.put(draw, "Upgrade", *draw(st.sampled_from(UPGRADES)))
    head.put(draw, "Connection", *draw(st.sampled_from(CONNECTIONS)))
    head.put(draw, "Sec-WebSocket-Key", head.key)
    head.put(draw, "Sec-WebSocket-Version", "13")
    for name, values in (
        ("Sec-WebSocket-Protocol", names),
        ("Sec-WebSocket-Extensions", [offer.text for offer in head.offers]),
    ):
        if values:
            head.put(draw, name, *draw(st.sampled_from([values, [", ".join(values)]])))
    if draw(st.booleans()):
        head.put(draw, "Origin", draw(st.sampled_from(ALLOWED)))
    for name, value in draw(st.lists(st.sampled_from(OTHERS), max_size=2)):
        head.add(draw, name, value)
    return head


# Faults


class Fault(NamedTuple):
    """What is done to a head, what of it is touched, and the statuses that may refuse it."""

    statuses: set[int]
    touches: set[str]
    do: Callable


def header(status, name, *values):
    """A header has one of these values: none, one or, as a tuple, several."""

    def do(draw, head):
        value = draw(st.sampled_from(values))
        head.put(draw, name, *(value if isinstance(value, tuple) else (value,)))

    return Fault({status}, {name.lower()}, do)


def line(status, name, *values):
    """The request's first line has another method, target or version."""
    return Fault(
        {status}, {name}, lambda draw, head: setattr(head, name, draw(st.sampled_from(values)))
    )


def lines(status, change):
    """The lines are put together wrongly: ``change`` is made to one of them, and to its end."""

    def do(draw, head):
        chance = draw(st.floats(0, 1, exclude_max=True))

        def spoil(parts):
            at = 1 + int(chance * (len(parts) - 3))
            parts[at] = change(parts[at])
            whole = b"\r\n".join(parts)
            return whole.replace(b"\r\n<LF>", b"\n").replace(b"<CR>", b"\r")

        head.spoil = spoil

    return Fault({status}, {"lines"}, do)


def added(status, name, *values):
    """There is a header more, in one line or several."""

    def do(draw, head):
        at = draw(st.integers(0, len(head.fields)))
        head.fields[at:at] = [
            (name.lower(), f"{name}: {value}".encode("latin-1"))
            for value in draw(st.sampled_from(values))
        ]

    return Fault({status}, {name.lower()}, do)


KEY, VERSION = "Sec-WebSocket-Key", "Sec-WebSocket-Version"

FAULTS = {
    # RFC 6455 4.2.1, item by item
    "another method": line(405, "method", "POST", "HEAD", "PUT", "OPTIONS", "get"),
    "another HTTP": line(505, "version", "HTTP/1.0", "HTTP/2.0", "HTTP/0.9"),
    "no such HTTP": line(400, "version", "HTTP/1.10", "http/1.1", "HTTP/1", "HTTP/1.1 "),
    "no Host": header(400, "Host", ()),
    "two Hosts": header(400, "Host", ("echo.example", "echo.example"), ("a", "b")),
    "no such Host": header(400, "Host", "a b", "http://a", "a/b", "u@a", "a:b", "[a"),
    "no Upgrade": header(426, "Upgrade", ()),
    "another Upgrade": header(426, "Upgrade", "h2c", "websockets", "web socket", '"websocket"', ""),
    "no Connection": header(400, "Connection", ()),
    "another Connection": header(400, "Connection", "close", "keep-alive, TE", "Upgraded", ""),
    "no key": header(400, KEY, ()),
    "two keys": header(400, KEY, ("dGhlIHNhbXBsZSBub25jZQ==",) * 2),
    "a key of another length": header(
        400, KEY, "dGhlIHNhbXBsZSBub25j", "dGhlIHNhbXBsZSBub25jZSE=", "AAAA", "=="
    ),
    "a key not in base64": header(
        400, KEY, "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25j!Q==", "_GhlIHNhbXBsZSBub25jZQ=="
    ),
    "another version": header(426, VERSION, "12", "8", "0", "14", "013", "+13", "13;", "1 3", ""),
    "no version": header(426, VERSION, ()),
    "another origin": header(
        403,
        "Origin",
        "https://app.example.evil.example",
        "http://app.example",
        "https://app.example:444",
        "https://app.example/",
        "https://evil.example, https://app.example",
        "",
    ),
    # RFC 9112: what is no request, or may be two
    "a body": added(400, "Content-Length", ["0"], ["5"], ["5", "5"]),
    "a body in chunks": added(400, "Transfer-Encoding", ["chunked"]),
    "no such target": line(400, "target", "chat", "*", "//#", "/#a", "ws://echo.example/", "/a b"),
    "a byte that is no text": added(400, "Sec-WebSocket-Protocol", ["caf\xe9"], ["chat", "\xff"]),
    "a bare LF": lines(400, lambda text: text + b"\r\n<LF>X: y"),
    "a bare CR": lines(400, lambda text: text + b"<CR>X: y"),
    "a folded line": lines(400, lambda text: text + b"\r\n folded"),
    "a space before the colon": lines(400, lambda text: text.replace(b":", b" :", 1)),
    "no colon": lines(400, lambda text: text.partition(b":")[0]),
    "no name": lines(400, lambda text: b":" + text),
    "a name that is no token": lines(400, lambda text: b"(" + text),
    "a control character": lines(400, lambda text: text + b" \x00"),
    # docs/limits.md
    "a target too long": line(414, "target", "/" + "a" * 8192),
    "fields too large": added(431, "X-Large", ["x" * 16384], ["x" * 8192] * 2),
    "too many fields": added(431, "X-Many", ["x"] * 101),
}
"""RFC 6455 4.2.1 leaves most of the statuses open ("such as 400"); these are ours."""

FAULTS["two versions"] = header(426, VERSION, ("13", "13"), ("13", "8"))._replace(
    statuses={400, 426}  # a header that may come once (11.3.5), or a version that is not 13
)
FAULTS["no key"] = FAULTS["no key"]._replace(
    touches={KEY.lower(), "upgrade"}  # without either it is no handshake, but a request for a page
)


@st.composite
def faulty_heads(draw, label):
    """A handshake with this fault."""
    head = draw(heads())
    FAULTS[label].do(draw, head)
    return head


@st.composite
def twice_faulty_heads(draw):
    """A handshake with two faults in different places, and the statuses that may refuse it."""
    head = draw(heads())
    first = draw(st.sampled_from(sorted(FAULTS)))
    others = [name for name in sorted(FAULTS) if not FAULTS[name].touches & FAULTS[first].touches]
    second = draw(st.sampled_from(others))
    for label in (first, second):
        FAULTS[label].do(draw, head)
    return head, FAULTS[first].statuses | FAULTS[second].statuses
