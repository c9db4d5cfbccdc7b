"""The client's side of the wire: the RFC's own examples, and every cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_service.check import wire
from echo_service.check.wire import Frame, frame, header, take

# RFC 6455 5.7, and what the client masks of it
EXAMPLES = [
    ("810548656c6c6f", Frame(1, b"Hello")),
    ("818537fa213d7f9f4d5158", Frame(1, b"Hello", masked=True)),
    ("010348656c", Frame(1, b"Hel", fin=False)),
    ("80026c6f", Frame(0, b"lo")),
    ("890548656c6c6f", Frame(9, b"Hello")),
    ("8a8537fa213d7f9f4d5158", Frame(10, b"Hello", masked=True)),
    ("827e0100" + "00" * 256, Frame(2, bytes(256), length=2)),
    ("827f0000000000010000" + "00" * 65536, Frame(2, bytes(65536), length=8)),
    # what no one may send
    ("f1017e", Frame(1, b"~", rsv=7)),
    ("027e000161", Frame(2, b"a", fin=False, length=2)),
]


@pytest.mark.parametrize("data, expected", EXAMPLES, ids=lambda value: str(value)[:20])
def test_a_frame_is_read_when_it_is_whole(data: str, expected: Frame):
    octets = bytes.fromhex(data)
    assert take(octets) == (expected, len(octets))
    assert take(octets + b"tail") == (expected, len(octets))
    assert all(take(octets[:size]) is None for size in range(min(len(octets), 300)))
    assert take(octets[:-1]) is None


def test_a_frame_is_built_as_the_rfc_has_it():
    assert frame(1, b"Hello").hex() == "818537fa213d7f9f4d5158"
    assert frame(1, b"Hello", key=b"").hex() == "810548656c6c6f"
    assert frame(1, b"Hello", rsv=4, fin=False, key=b"").hex() == "410548656c6c6f"
    assert frame(2, b"a", length=8, key=b"").hex() == "827f000000000000000161"
    assert header(2, 1 << 63).hex() == "82ff8000000000000000"
    assert wire.close().hex() == "888037fa213d"
    assert wire.close(1000, b"a").hex() == "888337fa213d341240"


@given(
    st.integers(0, 15),
    st.binary(max_size=200) | st.integers(65530, 65540).map(bytes),
    st.booleans(),
    st.integers(0, 7),
    st.binary(min_size=4, max_size=4),
)
def test_what_is_built_is_read(opcode: int, payload: bytes, fin: bool, rsv: int, key: bytes):
    built = frame(opcode, payload, fin=fin, rsv=rsv, key=key)
    least = wire.least_length(len(payload))
    assert take(built) == (Frame(opcode, payload, fin, rsv, True, least), len(built))


def test_the_key_of_the_rfc_is_accepted_as_it_says():
    assert wire.accept("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_an_answer_is_read():
    head = b"HTTP/1.1 101 Switching Protocols\r\nUPGRADE: a\r\nX: b , c\r\nx:d\r\nodd\r\n\r\n"
    answer = wire.answer(head)
    assert (answer.status, answer.reason) == (101, "Switching Protocols")
    assert answer.all("upgrade") == ["a"]
    assert answer.elements("x") == ["b", "c", "d"]
    assert answer.elements("y") == []


@pytest.mark.parametrize("head", [b"HTTP/2 200 OK", b"HTTP/1.1 abc", b"HTTP/1.1 20", b"\xff", b""])
def test_what_is_no_answer_has_no_status(head: bytes):
    assert wire.answer(head + b"\r\n\r\n").status == 0


def test_an_answer_that_would_steer_a_terminal_is_escaped():
    answer = wire.answer(b"HTTP/1.1 200 \x1b[2J\r\nX: \r\xff\t\x00\r\n\r\n")
    assert answer.reason == "\\x1b[2J"
    assert answer.all("x") == ["\\x0d\\xff\t\\x00"]


def test_a_request_has_what_is_given():
    fields = wire.headers("a:1", "key") | {"Connection": None}
    assert wire.request("GET / HTTP/1.1", fields, [("X", "\xff")]) == (
        b"GET / HTTP/1.1\r\nHost: a:1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: key\r\n"
        b"Sec-WebSocket-Version: 13\r\nX: \xff\r\n\r\n"
    )
