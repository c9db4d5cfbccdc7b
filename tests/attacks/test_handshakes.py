"""Attacks on the opening handshake."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests import wire
from tests.attacks import process
from tests.attacks.service import LANE, TLS, Service, Way
from tests.attacks.siege import Attack, ways

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

pytestmark = pytest.mark.attacks

ODD = [byte for byte in range(256) if byte < 0x20 or byte > 0x7E]
HEADERS = {
    **wire.HEADERS,
    "Origin": "https://echo.example",
    "Sec-WebSocket-Extensions": "permessage-deflate",
    "Sec-WebSocket-Protocol": "chat",
}
PLAIN = b"GET / HTTP/1.1\r\nHost: echo.example\r\n"
END = b"\r\n\r\n"


async def answers(
    service: Service, requests: Iterable[bytes], statuses: Collection[int]
) -> list[bytes]:
    """Send each request on a connection of its own; the answers, of these statuses."""
    received = []
    for request in requests:
        async with service.client() as client:
            await client.send(request)
            received.append(await client.head())
        assert wire.status(received[-1]) in statuses, (request[:400], received[-1])
    return received


def with_header(name: str, value: str) -> bytes:
    """An opening handshake with this header, instead of its own of that name."""
    return wire.request("/", **{name.replace("-", "_"): value})


async def odd_bytes(service: Service) -> None:
    """White space is legal at both ends of a value, and a tab within some."""
    for (name, value), byte in itertools.product(HEADERS.items(), ODD):
        statuses = (101, 400, 426) if byte == 0x09 else (400,)
        places = (0, len(value) // 2, len(value))
        changed = (value[:place] + chr(byte) + value[place:] for place in places)
        await answers(service, [with_header(name, each) for each in changed], statuses)


async def odd_bytes_elsewhere(service: Service) -> None:
    """In the method, the target, the version, a header's name; in a value that nobody reads.

    There a recipient may keep all but three (RFC 9110 5.5).
    """
    for byte in map(chr, ODD):
        first = wire.request(f"/a{byte}b"), wire.request(method=f"GE{byte}T")
        rest = wire.request(version=f"HTTP/1.{byte}1"), wire.request("/", (f"X{byte}Y", "z"))
        await answers(service, [*first, *rest], (400,))
        ignored = (400,) if byte in "\0\r\n" else (101, 400)
        await answers(service, [wire.request("/", ("X", f"a{byte}b"))], ignored)


async def split_again(service: Service) -> None:
    """What ends a line for `str.splitlines` smuggles no header in."""
    ends = ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\xe2\x80\xa8"]
    hidden = "{}Sec-WebSocket-Protocol: evil{}Sec-WebSocket-Extensions: permessage-deflate"
    for name, end in itertools.product(HEADERS, ends):
        value = HEADERS[name] + hidden.format(end, end)
        await answers(service, [with_header(name, value)], (400,))


OFFERS = [
    *(f"permessage-deflate; {name}{value}"
      for name in ("server_max_window_bits", "client_max_window_bits")
      for value in ("=", "=7", "=16", "=08", "=8.0", "=+9", "=-9", "= ", '="', '=""', '="1', "=1_0",
                    "=0x9", "=9e0", "=99999999999999999999", "=\u00b9", "=9; ", "=9=9", "=none")),
    *(f"permessage-deflate; {name}=1"
      for name in ("server_no_context_takeover", "client_no_context_takeover")),
    "permessage-deflate; client_max_window_bits; client_max_window_bits",
    "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    "permessage-deflate; unknown", "permessage-deflate; server_max_window_bitsx=9",
    "permessage-deflate; server_max_window", "permessage-deflatex", "x-permessage-deflate",
    "permessage-deflat", "PERMESSAGE-DEFLATE; SERVER", "permessage-deflate;;", "=", ";", '"', "\\",
    "permessage-deflate" + 15000 * " " + "x", 15000 * " ", 15000 * ",", 15000 * '"', 15000 * ";",
    ",".join(7500 * ["a"]), "permessage-deflate; a=" + 14000 * '"',
    "permessage-deflate; " + 7000 * "a;",
    "permessage-deflate; a=" + 7000 * '\\"', ",".join(700 * ["permessage-deflate; x"]),
    ",".join(400 * ['permessage-deflate; a="x,"']),
]  # fmt: skip
"""None of these can be accepted; the last ones are as long as a head may be."""


async def offers(service: Service) -> None:
    """The CPU time is the least of some tries: the witness has its part of it."""
    for offer in OFFERS:
        took = []
        for _ in range(5):
            begun = process.cpu(service.pid)
            request = with_header("Sec-WebSocket-Extensions", offer)
            (head,) = await answers(service, [request], (101, 400))
            took.append(process.cpu(service.pid) - begun)
            assert b"permessage" not in head, offer
        assert min(took) < 0.005, (offer, took)


async def long_offer(service: Service) -> None:
    for filler in (" ", ",", '"'):
        request = with_header("Sec-WebSocket-Extensions", "permessage-deflate" + 65536 * filler)
        await answers(service, [request], (431,))


async def trailing(service: Service) -> None:
    """Frames come back as frames; anything after another request is nobody's."""
    frames = b"".join(wire.frame(wire.TEXT, str(i).encode()) for i in range(500))
    head, _, rest = (await service.answer(wire.request() + frames + wire.close(1000))).partition(
        END
    )
    assert wire.status(head) == 101
    assert [each.payload for each in wire.parse(rest)[:-1]] == [str(i).encode() for i in range(500)]
    for after in (b"\0" * 9000, frames, PLAIN + b"\r\n", wire.request()):
        assert (await service.answer(PLAIN + b"\r\n" + after)).count(b"HTTP/1.1 ") == 1
    rest = (await service.answer(wire.request() + b"\xff" * 9000)).partition(END)[2]
    assert wire.codes(rest) == [1002]


OVERSIZED = {
    "2,000 headers": (431, wire.request("/", *((f"X{i}", "y") for i in range(2000)))),
    "a header of 100 KB": (431, wire.request("/", ("X", 100_000 * "y"))),
    "a header's name of 100 KB": (431, wire.request("/", (100_000 * "y", "x"))),
    "a target of 1 MB": (414, wire.request("/" + 1_000_000 * "x")),
    "a method of 1 MB": (414, wire.request(method=1_000_000 * "x")),
    "a header of 1 MB that does not end": (431, PLAIN + b"X: " + 1_000_000 * b"y"),
}


async def oversized(service: Service) -> None:
    for name, (status, request) in OVERSIZED.items():
        assert wire.status(await service.answer(request)) == status, name


async def dripped_head(service: Service) -> None:
    """As long as a head may be, a byte a segment: half a millisecond each at most."""
    head = PLAIN.replace(b"/ ", b"/" + 8000 * b"x" + b" ") + b"X: " + 16000 * b"y"
    used = process.cpu(service.pid)
    async with service.client() as client:
        for i in range(len(head)):
            await client.send(head[i : i + 1])
        await client.send(END)
        assert wire.status(await client.rest()) == 426
    used = process.cpu(service.pid) - used
    assert used < len(head) * 0.0005, used


CHUNKED = ("Transfer-Encoding", "chunked")
SMUGGLED = [
    wire.request("/", ("Content-Length", "5")) + b"hello",
    wire.request("/", CHUNKED) + b"0\r\n\r\n",
    wire.request("/", CHUNKED) + b"2xx\r\nab\r\n0\r\n\r\n",
    wire.request("/", CHUNKED, ("Content-Length", "5")) + b"0\r\n\r\n",
    wire.request("/", ("Transfer-Encoding", "chunked, identity")),
    wire.request("/", ("Transfer-Encoding", "xchunked")),
    wire.request("/", ("Content-Length", "0"), ("Content-Length", "5")) + b"hello",
    wire.request("/", ("Content-Length", "5, 5")) + b"hello",
    wire.request("/", ("Content-Length", "+5")) + b"hello",
    wire.request("/", ("Content-Length", "-1")),
    wire.request("/", ("X", "a\r\n b")),
    wire.request("/", ("X", "a\r\n\tTransfer-Encoding: chunked")),
    wire.request("/", ("X ", "a")),
    wire.request("/", ("X", "a\nTransfer-Encoding: chunked")),
    wire.request("/", ("X", "a\rTransfer-Encoding: chunked")),
    wire.request("/", ("Host", "evil.example")),
    PLAIN[:-2] + b"\n\r\n" + PLAIN + b"\r\n",
]


async def smuggling(service: Service) -> None:
    await answers(service, SMUGGLED, (400,))


async def foreign_origin(service: Service) -> None:
    allowed = "http://good.example"
    await answers(service, [with_header("Origin", allowed)], (101,))
    others = [".evil", ":81", "@evil.example", "\\.evil", "/../evil", "%00.evil", ".", "#.evil"]
    others = [*(allowed + each for each in others), "null", "https://good.example", "good.example"]
    await answers(service, [with_header("Origin", each) for each in others], (403,))


HOSTILE = [
    '/"}{',
    "/\\n\\u000a",
    "/%0a%0d%1b[31m",
    "/\n{}",
    "/\x1b[31m",
    "/\x7f",
    "/\x9b31m",
    "/\xe9",
]


async def log_injection(service: Service) -> None:
    """Of every attack it is seen that each line of the log is one of ours."""
    since = len(service.log())
    for each in HOSTILE:
        await answers(service, [wire.request(each)], (101, 400))
        requests = (with_header(name, each) for name in HEADERS)
        await answers(service, requests, (101, 400, 426))
    events = {str(line["event"]).partition(".")[0] for line in service.lines(since)}
    assert events <= {"connection", "handshake"}


ALLOWING = Way("--allow-origin", ("--allow-origin", "http://good.example"))

ATTACKS = [
    Attack("odd bytes in headers", "trio-websocket, hypercorn, WebSocket-Node; CVE-2026-42544",
           odd_bytes),
    Attack("odd bytes elsewhere in a request", "", odd_bytes_elsewhere),
    Attack("headers split again", "CVE-2026-44546", split_again),
    Attack("malformed offers of compression", "wsproto; CVE-2021-32640, CVE-2020-7662", offers),
    Attack("an offer of 64 KB", "CVE-2021-32640", long_offer),
    Attack("bytes after the request", "hypercorn", trailing, (LANE, TLS)),
    Attack("oversized requests", "CVE-2024-37890, CVE-2023-43669", oversized, (LANE, TLS)),
    Attack("a head byte by byte", "CVE-2023-43669", dripped_head),
    Attack("request smuggling", "h11 CVE-2025-43859", smuggling),
    Attack("log injection", "", log_injection),
    Attack("an origin that begins like another", "autobahn-python#691", foreign_origin,
           (ALLOWING,)),
]  # fmt: skip


@pytest.mark.parametrize("attack, way", ways(ATTACKS))
async def test_the_service_stands(attack, way, stands):
    await stands(attack, way)
