"""A session as its client has asked for: frame bytes in, one echo at a time out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_service import policy
from echo_service.compression import Parameters
from echo_service.controls import Controls
from echo_service.policy import Ending
from echo_service.session import Session
from echo_service.shaping import ShapedSession, fragments
from tests import wire
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, frame

DEFLATE = Parameters()

THREE = [frame(TEXT, b"one"), frame(BINARY, b"two"), frame(TEXT, b"three")]

ECHOES = [b"\x81\x03one", b"\x82\x03two", b"\x81\x05three"]


def session(agreed: Parameters | None = None, limit: int = 1000, **asked: object) -> ShapedSession:
    return ShapedSession(limit, agreed, Controls(**asked))


def take(shaped: ShapedSession, *pieces: bytes) -> list[bytes]:
    """All that goes out for these pieces, in the order in which it does."""
    out = []
    for piece in pieces:
        out.append(bytes(shaped.receive(piece)))
        while shaped.holds or shaped.held is not None:
            answer = shaped.release() if shaped.held is not None else shaped.receive()
            out.append(bytes(answer))
    return [each for each in out if each]


# One at a time


def test_an_echo_is_held_until_it_is_released_and_counts_from_then():
    shaped = session(delay=1)
    assert shaped.receive(THREE[0] + THREE[1]) == b""
    assert (shaped.held, shaped.carried) == (ECHOES[0], (0, 0, 0))
    assert shaped.release() == ECHOES[0]
    assert (shaped.before, shaped.carried, shaped.held) == ((0, 0, 0), (1, 0, 3), None)
    assert shaped.holds
    assert shaped.receive() == b""
    assert shaped.release() == ECHOES[1]
    assert (shaped.before, shaped.carried) == ((1, 0, 3), (1, 1, 6))


def test_pings_keep_their_place_among_the_echoes():
    shaped = session(delay=1)
    sent = frame(PING, b"1") + THREE[0] + frame(PING, b"2") + frame(PONG) + THREE[1]
    assert take(shaped, sent) == [b"\x8a\x011", ECHOES[0], b"\x8a\x012", ECHOES[1]]


@pytest.mark.parametrize("agreed", [None, DEFLATE], ids=["plain", "deflate"])
@pytest.mark.parametrize(
    "end",
    [b"", wire.close(1000, b"why"), wire.close(0), frame(TEXT, b"\xff"), b"\x81\x01a"],
    ids=["open", "close", "bad close", "bad text", "no mask"],
)
def test_all_else_is_as_in_an_ordinary_session(agreed: Parameters | None, end: bytes):
    parts = [
        *THREE,
        frame(TEXT, b"Hel", fin=False) + frame(PING) + frame(CONTINUATION, b"lo"),
        frame(BINARY, b"x" * 900),
        *([frame(TEXT, wire.deflate(b"Hello"), rsv=4)] * 2 if agreed else []),
        frame(BINARY),
        end,
    ]
    sent = b"".join(parts)
    for pieces in ([sent], parts, [sent[i : i + 1] for i in range(len(sent))]):
        ordinary, shaped = Session(1000, agreed, None), session(agreed, delay=1)
        expected = wire.feed(ordinary, pieces)
        assert b"".join(take(shaped, *pieces)) == expected
        assert (shaped.verdict, shaped.carried) == (ordinary.verdict, ordinary.carried)
        assert shaped.awaits_close is ordinary.awaits_close


# The end that was asked for


@pytest.mark.parametrize("agreed", [None, DEFLATE], ids=["plain", "deflate"])
@pytest.mark.parametrize("after", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "asked, close",
    [
        ({"close": 0}, b"\x88\x02\x00\x00"),
        ({"close": 65535, "reason": "grün"}, b"\x88\x07\xff\xffgr\xc3\xbcn"),
        ({"close": "none"}, b"\x88\x00"),
    ],
    ids=["0", "reason", "none"],
)
def test_after_so_many_echoes_the_close_goes_out(
    agreed: Parameters | None, after: int, asked: dict[str, object], close: bytes
):
    """However many messages there are in one segment."""
    sent = b"".join(THREE) + frame(PING)
    for pieces in wire.cuts(sent):
        shaped = session(agreed, after=after, **asked)
        assert take(shaped, *pieces) == [*ECHOES[:after], close]
        assert shaped.verdict == policy.asked(close[2:])
        assert sum(shaped.carried[:2]) == after
        assert shaped.awaits_close


@pytest.mark.parametrize("after", [0, 1])
def test_the_peers_close_is_looked_for_after_ours(after: int):
    for answer in ([wire.close(1000)], [frame(TEXT, b"late") + frame(PING), wire.close(1000)]):
        shaped = session(close=7, after=after)
        sent = [b"".join(THREE[:after]) + answer[0], *answer[1:]]
        assert take(shaped, *sent) == [*ECHOES[:after], b"\x88\x02\x00\x07"]
        verdict = shaped.verdict
        assert (verdict.ending, verdict.sent_code, verdict.received_code) == (Ending.ASKED, 7, 1000)
        assert not shaped.awaits_close


@pytest.mark.parametrize(
    "sent, answer, ending",
    [
        (wire.close(1001), b"\x88\x02\x03\xe9", Ending.PEER_CLOSED),
        (frame(TEXT, b"\xff"), b"\x88", Ending.INVALID_DATA),
    ],
    ids=["close", "violation"],
)
@pytest.mark.parametrize("asked", [{"close": 0, "after": 2}, {"drop": 2}, {"drop": 1.5}], ids=str)
def test_a_peer_that_ends_it_first_is_answered_as_ever(sent, answer, ending, asked):
    shaped = session(**asked)
    echo, close = take(shaped, THREE[0] + sent)
    assert echo == ECHOES[0]
    assert close.startswith(answer)
    assert shaped.verdict.ending is ending


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_drop_is_an_end_without_a_close(after: int):
    shaped = session(drop=after)
    assert take(shaped, b"".join(THREE) + wire.close(1000)) == ECHOES[:after]
    assert shaped.verdict is policy.DROPPED


@pytest.mark.parametrize(
    "drop, message, part",
    [
        (1.5, frame(BINARY, b"0123456789"), b"\x82\x0a01234"),
        (1.99, frame(BINARY, b"0123456789"), b"\x82\x0a012345678"),
        (1.01, frame(BINARY, b"0123456789"), b"\x82\x0a"),
        (1.5, frame(TEXT, b"a"), b"\x81\x01"),
        (1.5, frame(TEXT, b"a" * 400), b"\x81\x7e\x01\x90" + b"a" * 200),
        (1.5, frame(BINARY, b"a" * 70000), b"\x82\x7f" + (70000).to_bytes(8, "big") + b"a" * 35000),
    ],
)
def test_a_drop_amid_an_echo_cuts_it_off(drop: float, message: bytes, part: bytes):
    shaped = session(limit=100_000, drop=drop)
    assert take(shaped, THREE[0] + message + THREE[2]) == [ECHOES[0], part]
    assert (shaped.verdict, shaped.carried) == (policy.DROPPED, (1, 0, 3))


def test_of_an_empty_echo_no_part_is_sent():
    shaped = session(drop=0.5)
    assert take(shaped, frame(TEXT)) == []
    assert shaped.verdict is policy.DROPPED


# An end from outside


@pytest.mark.parametrize("asked", [{"delay": 1}, {"drop": 0.5}, {"close": 0, "after": 1}], ids=str)
def test_an_echo_that_is_held_can_be_let_go_before_a_close(asked: dict[str, object]):
    shaped = session(**asked)
    shaped.receive(b"".join(THREE))
    assert shaped.let_go() == ECHOES[0]
    assert (shaped.before, shaped.carried) == ((0, 0, 0), (1, 0, 3))
    assert shaped.let_go() == b""
    assert wire.codes(bytes(shaped.end(policy.DRAINING[1001]))) == [1001]
    assert shaped.verdict.ending is Ending.DRAINING


def test_an_echo_that_is_held_is_not_counted_where_nothing_can_be_sent():
    shaped = session(delay=1)
    shaped.receive(THREE[0])
    assert shaped.end(policy.VANISHED) == b""
    assert shaped.carried == (0, 0, 0)


def test_a_close_from_outside_is_an_ordinary_one():
    shaped = session(delay=1)
    assert take(shaped, THREE[0]) == [ECHOES[0]]
    assert wire.codes(bytes(shaped.end(policy.IDLE))) == [1011]
    assert take(shaped, b"".join(THREE) + wire.close(1000)) == []
    assert (shaped.verdict.received_code, shaped.carried) == (1000, (1, 0, 3))


# Fragments


def cut(data: bytes, most: int) -> list[Frame]:
    return wire.parse(b"".join(map(bytes, fragments(data, most))))


def test_a_message_is_cut_into_frames():
    """RSV1 is in the first, FIN in the last, and control frames stay whole."""
    data = b"\xc1\x05Hello" + b"\x8a\x03abc" + b"\x82\x02xy" + b"\x81\x00" + b"\x88\x02\x03\xe8"
    assert cut(data, 2) == [
        Frame(TEXT, b"He", fin=False, rsv=4),
        Frame(CONTINUATION, b"ll", fin=False),
        Frame(CONTINUATION, b"o"),
        Frame(PONG, b"abc"),
        Frame(BINARY, b"xy"),
        Frame(TEXT, b""),
        Frame(CLOSE, b"\x03\xe8"),
    ]


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 1000, 65535, 65536, 70000])
@pytest.mark.parametrize("most", [1, 2, 125, 126, 999, 1000, 65535, 65536, 1048576])
def test_fragments_put_together_are_the_message(length: int, most: int):
    payload = bytes(range(256)) * (length // 256 + 1)
    payload = payload[:length]
    first, *others = cut(wire.header(BINARY, length, masked=False) + payload, most)
    assert first.opcode == BINARY
    assert {each.opcode for each in others} <= {CONTINUATION}
    assert [each.fin for each in (first, *others)] == [False] * len(others) + [True]
    assert b"".join(each.payload for each in (first, *others)) == payload
    assert {len(each.payload) for each in (first, *others)[:-1]} <= {most}
    assert len(others) == max(0, -(-length // most) - 1)


def test_a_message_that_is_cut_off_is_cut_off_in_its_frames():
    data = b"\x82\x06abcd"
    assert b"".join(map(bytes, fragments(data, 3))) == b"\x02\x03abc" + b"\x80\x03d"
    assert b"".join(map(bytes, fragments(data, 6))) == data


@pytest.mark.parametrize("most", [1, 100, 65536, 1048576])
def test_a_piece_is_made_at_a_time(most: int):
    """16 MiB in frames of one byte are 48 MiB: they are never there all at once."""
    length = 4 * 1048576
    data = wire.header(BINARY, length, masked=False) + bytes(length)
    pieces = [len(piece) for piece in fragments(data, most)]
    assert max(pieces) <= max(65536, most) + 10 * 1024
    assert sum(pieces) > length


@given(
    messages=st.lists(st.binary(max_size=300), max_size=4),
    most=st.integers(1, 320),
    size=st.integers(1, 400),
)
def test_a_client_reads_the_same_messages(messages: list[bytes], most: int, size: int):
    shaped = session(fragment=most)
    sent = b"".join(frame(BINARY, each) for each in messages)
    out = take(shaped, *(sent[i : i + size] for i in range(0, len(sent), size)))
    whole, read = b"", []
    for piece in out:
        for each in cut(piece, most):
            whole += each.payload
            if each.fin:
                read.append(whole)
                whole = b""
    assert read == messages
