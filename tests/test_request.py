"""A request's head: bytes in, an `h11.Request` or a refusal out, and the answer to it."""

from __future__ import annotations

from contextlib import suppress

import pytest

from echo_service.request import Refused, RequestReader, switching_protocols
from tests import wire

PLAIN = b"GET / HTTP/1.1\r\nHost: echo.example\r\n\r\n"

REFUSED = [
    # The request line
    (b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", 505),
    (b"GET / HTTP/1.0\r\n\r\n", 505),
    (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    (b"PRI * HTTP/2.0\r\n\r\n", 505),
    (b"GET /\r\nHost: a\r\n\r\n", 400),
    (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
    (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /\t HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"\r\n" + PLAIN, 400),
    (b" " + PLAIN, 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # a TLS ClientHello
    # The header fields
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.2\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nNo colon\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\n: nameless\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX\xe9: b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: ten\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    # Line ends that a proxy may read in another way
    (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\n X: b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\tX: b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
]


def received(pieces):
    """The request, and everything that came after its head."""
    reader = RequestReader()
    for number, piece in enumerate(pieces, 1):
        request = reader.receive(piece)
        if request is not None:
            return request, reader.trailing + b"".join(pieces[number:])
    return None, b""


def few_cuts(data):
    """Whole, byte by byte, and in two just before the end: for heads of many bytes."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for end in range(1, 6):
        yield [data[:-end], data[-end:]]


def sized(target=1, fields=0, count=2, method="GET"):
    """A head with so many bytes of target, bytes of header fields, and header fields."""
    lines = ["Host: a\r\n", *(f"X{n}: y\r\n" for n in range(count - 2))]
    room = fields - sum(map(len, lines)) - len("Fill: \r\n")
    lines.append(f"Fill: {'z' * max(room, 1)}\r\n")
    head = f"{method} /{'t' * (target - 1)} HTTP/1.1\r\n{''.join(lines)}\r\n"
    return head.encode("ascii")


@pytest.mark.parametrize("trailing", [b"", b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", PLAIN])
def test_a_request_is_read_in_every_cut_and_not_a_byte_further(trailing):
    head = wire.request("/chat?room=1", ("Cookie", "a=b"))
    for pieces in wire.cuts(head + trailing):
        request, rest = received(pieces)
        assert (request.method, request.target) == (b"GET", b"/chat?room=1")
        assert request.http_version == b"1.1"
        assert list(request.headers) == [
            (b"host", b"echo.example"),
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
            (b"sec-websocket-version", b"13"),
            (b"cookie", b"a=b"),
        ]
        assert rest == trailing


@pytest.mark.parametrize("version", [b"1.1", b"1.2", b"1.9"])
def test_later_versions_of_http_1_are_read_like_1_1(version):
    request, _ = received([PLAIN.replace(b"1.1", version)])
    assert request.http_version == version


def test_a_head_that_is_not_complete_is_waited_for():
    for pieces in wire.cuts(PLAIN[:-1]):
        assert received(pieces) == (None, b"")


def test_white_space_around_a_value_is_not_part_of_it():
    request, _ = received([b"GET / HTTP/1.1\r\nHost:\t a \t\r\nX:\r\n\r\n"])
    assert list(request.headers) == [(b"host", b"a"), (b"x", b"")]


@pytest.mark.parametrize("head, status", REFUSED)
def test_a_malformed_head_is_refused_in_every_cut(head, status):
    for pieces in wire.cuts(head):
        with pytest.raises(Refused) as caught:
            received(pieces)
        assert caught.value.status == status
        assert caught.value.cause == str(caught.value) != ""


@pytest.mark.parametrize("byte", [*range(0x21), *range(0x7F, 0x100)])
def test_what_begins_with_no_visible_ascii_is_refused_at_its_first_byte(byte):
    with pytest.raises(Refused) as caught:
        RequestReader().receive(bytes([byte]))
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "head",
    [
        sized(target=8192),
        sized(fields=16384),
        sized(count=100),
        sized(target=8192, fields=16384, count=100),
    ],
    ids=["target", "fields", "count", "all"],
)
def test_a_head_at_its_limits_is_read_in_every_cut(head):
    for pieces in few_cuts(head):
        request, _ = received(pieces)
        assert request is not None


@pytest.mark.parametrize(
    "head, status, cause",
    [
        (sized(target=8193), 414, "the target is over 8192 bytes"),
        (sized(target=100_000), 414, "the target is over 8192 bytes"),
        (sized(fields=16385), 431, "the header fields are over 16384 bytes together"),
        (sized(fields=100_000), 431, "the header fields are over 16384 bytes together"),
        (sized(count=101), 431, "there are more than 100 header fields"),
    ],
    ids=["target", "long target", "fields", "long fields", "count"],
)
def test_a_head_over_a_limit_is_refused_in_every_cut(head, status, cause):
    for pieces in few_cuts(head):
        with pytest.raises(Refused) as caught:
            received(pieces)
        assert (caught.value.status, caught.value.cause) == (status, cause)


@pytest.mark.parametrize(
    "head, status",
    [(b"GET /" + b"t" * 8300, 414), (b"GET / HTTP/1.1\r\nFill: " + b"z" * 16500, 431)],
    ids=["target", "fields"],
)
def test_what_is_too_long_is_refused_before_it_ends(head, status):
    for pieces in ([head], [head[i : i + 1] for i in range(len(head))]):
        with pytest.raises(Refused) as caught:
            received(pieces)
        assert caught.value.status == status


def test_the_longest_request_line_is_judged_alike_in_every_cut():
    """A method of 54 letters and the longest target fill the room that there is for the line."""
    for pieces in few_cuts(sized(target=8192, method="M" * 54)):
        request, _ = received(pieces)
        assert request is not None


def test_a_request_has_begun_at_its_first_byte():
    reader = RequestReader()
    assert not reader.begun
    reader.receive(b"G")
    assert reader.begun


def test_the_101_is_written_with_its_headers_in_order():
    headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("X", "y")]
    assert switching_protocols(headers) == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"X: y\r\n"
        b"\r\n"
    )


@pytest.mark.parametrize(
    "status, headers, expected",
    [
        (
            200,
            [("Content-Type", "text/plain")],
            (
                b"HTTP/1.1 200 OK\r\n"
                b"Content-Type: text/plain\r\n"
                b"Content-Length: 3\r\n"
                b"Connection: close\r\n"
                b"\r\n"
            ),
        ),
        (
            426,
            [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")],
            (
                b"HTTP/1.1 426 Upgrade Required\r\n"
                b"Upgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\n"
                b"Content-Length: 3\r\n"
                b"Connection: close, Upgrade\r\n"
                b"\r\n"
            ),
        ),
    ],
)
def test_an_answer_is_whole_and_says_that_the_connection_closes(status, headers, expected):
    reader = RequestReader()
    reader.receive(PLAIN)
    assert reader.answer(status, headers, b"ok\n") == expected + b"ok\n"
    reader = RequestReader()
    reader.receive(PLAIN.replace(b"GET", b"HEAD"))
    assert reader.answer(status, headers, b"ok\n") == expected


@pytest.mark.parametrize("head", [b"GET / HT", *(head for head, _ in REFUSED)])
def test_a_request_that_was_refused_or_never_ended_can_be_answered(head):
    reader = RequestReader()
    with suppress(Refused):
        reader.receive(head)
    assert reader.answer(400, [("Content-Type", "text/plain")], b"why\n") == (
        b"HTTP/1.1 400 Bad Request\r\n"
        b"Content-Type: text/plain\r\n"
        b"Content-Length: 4\r\n"
        b"Connection: close\r\n"
        b"\r\n"
        b"why\n"
    )


def test_a_refusal_carries_its_status_its_cause_and_the_headers_to_add():
    refused = Refused(405, "why", ("Allow", "GET"), ("X", "y"))
    assert refused.status == 405
    assert refused.cause == "why"
    assert refused.headers == (("Allow", "GET"), ("X", "y"))


@pytest.mark.parametrize(
    "host", ["a b", "a/b", "a, b", "user@a", "a:port", "[::1", "[::g]", "a\u00e9"]
)
def test_a_host_that_is_none_is_400(host):
    with pytest.raises(Refused) as refused:
        RequestReader().receive(wire.request(Host=host))
    assert refused.value.status == 400


@pytest.mark.parametrize("host", ["", "a", "A.b-c_d", "xn--a", "127.0.0.1:8080", "[::1]:80", "a:"])
def test_a_host_with_or_without_a_port_is_read(host):
    assert RequestReader().receive(wire.request(Host=host))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("target", ["chat", "*", "/chat#here", "http://", "ftp://a/", "a:80"])
def test_a_target_that_is_no_path_is_400(method, target):
    with pytest.raises(Refused) as refused:
        RequestReader().receive(wire.request(target, method=method))
    assert refused.value.status == 400


def test_what_is_quoted_in_a_refusal_is_cut_and_reads_like_the_request():
    with pytest.raises(Refused) as refused:
        RequestReader().receive(b"GET  / HTTP/1.1\r\n\r\n")
    assert refused.value.cause == "illegal request line: b'GET  / HTTP/1.1'"
    with pytest.raises(Refused) as refused:
        RequestReader().receive(b"G" * 300 + b"  / HTTP/1.1\r\n\r\n")
    assert len(refused.value.cause) == 200
