"""With the codec in C, with the one in Python and with none, a session is the same.

Any bytes in, cut in any way: the same bytes out, after every piece, and the same verdict.
"""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_service import codec, policy
from echo_service.codec import MOST_FRAMES
from echo_service.compression import Parameters
from echo_service.session import Session
from tests import wire
from tests.test_laws import AGREED, agreements, bytewise, cut, inputs, law, mostly
from tests.wire import BINARY, CONTINUATION, KEY, PING, PONG, TEXT

DEFLATE = Parameters()

LIMITS = [0, 5, 125, 126, 1000, 65536, 70000]

CODECS = [codec.PYTHON] + ([codec.COMPILED] if codec.COMPILED else [])

EXACT = "ng" not in zlib.ZLIB_RUNTIME_VERSION
"""Whether deflated data is the same for whatever steps it is deflated in; of zlib-ng it isn't."""


def take(session, piece):
    """All that a session answers to a piece in a buffer that is written over at once."""
    buffer = bytearray(piece)
    with memoryview(buffer) as view:
        answer = bytearray(session.receive(view))
    buffer[:] = b"\xaa" * len(buffer)
    buffer.clear()
    while session.holds:
        answer += session.receive()
    return bytes(answer)


def told(session):
    """All that a session tells of itself."""
    return session.verdict, session.awaits_close, session.carried


def answered(limit, agreed, pieces, end=None):
    """What is answered to each piece, alike with every codec and with none.

    Our Close goes out before the piece of the number ``end``; then nothing is.
    """
    judge = Session(limit, agreed, None)
    others = [Session(limit, agreed, each) for each in CODECS]
    answers = []
    carried = None
    for number, piece in enumerate(pieces):
        if number == end and judge.verdict is None:
            carried = judge.carried
            for session in (judge, *others):
                session.end(policy.IDLE)
        expected = wire.take(judge, piece)
        assert carried is None or (expected, judge.carried) == (b"", carried), number
        for session in others:
            answer = take(session, piece)
            if agreed is None or EXACT:
                assert answer == expected, number
            else:
                assert wire.read(answer) == wire.read(expected), number
            assert told(session) == told(judge), number
        answers.append(expected)
    return answers


def same(limit, agreed, sent, *ways):
    """Feed it whole, byte by byte and in these other ways; returns the bytes that all give."""
    whole, *others = [
        b"".join(answered(limit, agreed, pieces)) for pieces in ([sent], bytewise(sent), *ways)
    ]
    for other in others:
        assert wire.read(other) == wire.read(whole)
    return whole


# By hypothesis

characters = st.text(max_size=4).map(str.encode)

spoilt = st.sampled_from(
    [b"", b"\x80", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x8c", b"\xed\xa0\x80", b"\xe0\x80", b"\xff"]
)

spoilt_texts = st.tuples(characters, spoilt, characters).map(b"".join)

sizes = st.sampled_from([0, 1, 3, 4, 5, 6, 7, 8, 9, 124, 125, 126, 127, 1000, 1001])


@st.composite
def items(draw):
    """A message, whole, in fragments or compressed, or a control frame; mostly right."""
    kind = draw(st.sampled_from(["text"] * 6 + ["binary"] * 4 + ["ping", "pong", "ping", "bad"]))
    if kind == "bad":
        wrong = draw(st.sampled_from(sorted(JUDGED)))
        return JUDGED[wrong]
    if kind in ("ping", "pong"):
        return wire.frame(PING if kind == "ping" else PONG, b"p" * draw(mostly(3, 0, 125)))
    opcode = TEXT if kind == "text" else BINARY
    payload = draw(st.one_of(characters, sizes.map(lambda size: b"x" * size), spoilt_texts))
    form = draw(mostly("whole", "fragments", "compressed"))
    if form == "compressed":
        return wire.frame(opcode, wire.deflate(payload), rsv=4)
    if form == "whole":
        return wire.frame(opcode, payload)
    half = draw(st.integers(0, len(payload)))
    return (
        wire.frame(opcode, payload[:half], fin=False)
        + draw(st.sampled_from([b"", wire.frame(PING, b"amid"), wire.frame(PONG)]))
        + wire.frame(CONTINUATION, payload[half:])
    )


@st.composite
def pipelines(draw):
    """Several messages, mostly right, the last one perhaps in part."""
    sent = b"".join(draw(st.lists(items(), max_size=8)))
    return sent[: len(sent) - draw(st.sampled_from([0, 0, 0, 1, 2, 5, 9, 14]))]


def chunks(sent, size):
    return [sent[i : i + size] for i in range(0, len(sent), size)]


@law
@given(
    data=st.data(),
    sent=st.one_of(inputs, pipelines(), pipelines()),
    agreed=agreements,
    limit=st.sampled_from([*LIMITS, 1000, 1000]),
)
def test_any_bytes_are_answered_alike_after_every_piece(data, sent, agreed, limit):
    same(limit, agreed, sent, data.draw(cut(sent)))


@law
@given(data=st.data(), sent=st.one_of(inputs, pipelines()), agreed=agreements)
def test_any_bytes_are_taken_alike_after_our_close(data, sent, agreed):
    pieces = data.draw(st.one_of(cut(sent), st.just(bytewise(sent))))
    answered(1000, agreed, pieces, end=data.draw(st.integers(0, len(pieces))))


@st.composite
def large(draw):
    """Frames around 64 KiB, with a few bytes written over, and small ones about them."""
    size = draw(st.sampled_from([65535, 65536, 65537, 69_999, 70_000, 70_001]))
    payload = bytearray("Grüße, 1€ 🌍 ".encode() * 3500)[:size]
    at = draw(st.sampled_from([0, 1, 4095, 4096, 65535, 65536, size - 1]))
    change = draw(mostly(b"", b"\xff", b"\xed\xa0\x80", b"aaaa"))
    payload[at : at + len(change)] = change
    payload += b"." * (size - len(payload))
    opcode, fin = draw(st.sampled_from([TEXT, BINARY])), draw(mostly(True, False))
    frame = wire.frame(opcode, bytes(payload[:size]), fin=fin)
    return draw(pipelines()) + frame + draw(pipelines())


@law
@given(
    sent=large(),
    agreed=st.sampled_from([None, DEFLATE]),
    limit=st.sampled_from([65536, 70000]),
    size=st.sampled_from([1000, 4096, 4099, 16384, 65536, 65549, 70000, 10**6]),
)
def test_large_frames_are_answered_alike_in_pieces_of_any_size(sent, agreed, limit, size):
    answered(limit, agreed, chunks(sent, size))


# By table


def long_form(first, size, length, payload=b""):
    """A frame with its length in that many bytes, minimal or not."""
    announced = bytes([first, 0x80 | {2: 126, 8: 127}[size]]) + length.to_bytes(size, "big")
    return announced + KEY + wire.mask(payload)


JUDGED = {
    "continuation": wire.frame(CONTINUATION, b"a"),
    "a fragment": wire.frame(TEXT, b"a", fin=False),
    "text in fragments": wire.frame(TEXT, b"\xce", fin=False) + wire.frame(CONTINUATION, b"\xba"),
    "bad text in fragments": wire.frame(TEXT, b"\xce", fin=False) + wire.frame(CONTINUATION, b"a"),
    "a message in a message": wire.frame(TEXT, b"a", fin=False) + wire.frame(BINARY, b"a"),
    "ping in a message": wire.frame(BINARY, b"a", fin=False)
    + wire.frame(PING, b"b")
    + wire.frame(CONTINUATION, b"c"),
    "close": wire.close(),
    "close 1000": wire.close(1000, "Grüße".encode()),
    "close 1006": wire.close(1006),
    "close of one byte": wire.frame(8, b"a"),
    "bad close": wire.close(1000, b"\xff"),
    "close in a message": wire.frame(TEXT, b"a", fin=False) + wire.close(1001),
    "long close": wire.frame(8, b"\x03\xe8" + b"x" * 124),
    "RSV1": wire.frame(TEXT, b"abc", rsv=4),
    "RSV2": wire.frame(TEXT, b"abc", rsv=2),
    "RSV3": wire.frame(BINARY, b"abc", rsv=1),
    "ping with RSV1": wire.frame(PING, b"abc", rsv=4),
    "opcode 3": wire.frame(3, b"abc"),
    "opcode 15": wire.frame(15),
    "unmasked": wire.header(TEXT, 3, masked=False) + b"abc",
    "unmasked ping": wire.header(PING, 3, masked=False) + b"abc",
    "half a ping": wire.frame(PING, b"abc", fin=False),
    "long ping": wire.frame(PING, b"p" * 126),
    "long pong": wire.frame(PONG, b"p" * 126),
    "ping in two bytes": long_form(0x89, 2, 3, b"abc"),
    "0 in two bytes": long_form(0x81, 2, 0),
    "125 in two bytes": long_form(0x82, 2, 125, b"a" * 125),
    "126 in eight bytes": long_form(0x82, 8, 126, b"a" * 126),
    "65535 in eight bytes": long_form(0x81, 8, 65535, b"a" * 9),
    "63 bits": long_form(0x82, 8, 2**63 - 1, b"a"),
    "64 bits": long_form(0x82, 8, 2**63, b"a"),
    "all bits": long_form(0x82, 8, 2**64 - 1, b"a"),
    "compressed": wire.frame(TEXT, wire.deflate(b"Hello"), rsv=4),
    "compressed and empty": wire.frame(TEXT, rsv=4),
    "compressed in fragments": wire.frame(TEXT, wire.deflate(b"Hello")[:3], fin=False, rsv=4)
    + wire.frame(PING, b"amid")
    + wire.frame(CONTINUATION, wire.deflate(b"Hello")[3:]),
    "compressed noise": wire.frame(BINARY, wire.deflate(random.Random(1).randbytes(140)), rsv=4),
    "compressed bad text": wire.frame(TEXT, wire.deflate(b"abc\xff"), rsv=4),
    "compressed half text": wire.frame(TEXT, wire.deflate("€".encode()[:2]), rsv=4),
    "compressed and too much": wire.frame(BINARY, wire.deflate(b"a" * 80_000), rsv=4),
    "not deflated": wire.frame(BINARY, b"\x07abc", rsv=4),
    "deflated in part": wire.frame(BINARY, wire.deflate(b"Hello")[:-2], rsv=4),
    "compressed, non-minimal": long_form(0xC2, 2, 7, wire.deflate(b"Hello")),
    "text of 126": wire.frame(TEXT, "ö".encode() * 63),
    "binary of 126": wire.frame(BINARY, b"\x00" * 126),
}
"""What the codec leaves to wsproto, in part or wholly, and a few that it does not."""

AROUND = {
    "alone": (b"", b""),
    "first": (b"", wire.frame(TEXT, b"after") + wire.frame(PING, b"it") + wire.close(1000)),
    "amid": (
        wire.frame(BINARY, b"ab") + wire.frame(PONG) + wire.frame(TEXT, "é".encode()),
        wire.frame(TEXT, b"after") + wire.frame(TEXT, b"\xff"),
    ),
}


@pytest.mark.parametrize("agreed", [None, DEFLATE], ids=["plain", "deflate"])
@pytest.mark.parametrize("name", JUDGED)
def test_what_is_left_to_wsproto_is_answered_alike_wherever_it_stands(name, agreed):
    for before, after in AROUND.values():
        sent = before + JUDGED[name] + after
        for limit in (5, 126, 70000):
            same(limit, agreed, sent)
        for pieces in wire.cuts(sent) if len(sent) < 60 else ():
            answered(1000, agreed, pieces)


@pytest.mark.parametrize("agreed", [None, DEFLATE], ids=["plain", "deflate"])
@pytest.mark.parametrize("name", JUDGED)
def test_what_is_left_to_wsproto_is_taken_alike_after_our_close(name, agreed):
    sent = wire.frame(TEXT, b"good") + JUDGED[name] + wire.close(1001)
    for end in (0, 3, 8, 14, 20):
        answered(1000, agreed, bytewise(sent), end=end)
        answered(1000, agreed, [sent[:end], sent[end:]], end=1)


@pytest.mark.parametrize("length", [3, 200, 3000, 65536])
def test_a_continuation_of_no_message_is_that_after_a_compressed_message_too(length):
    """It was taken for a part of the compressed one, and too big for it, with a codec only."""
    sent = wire.frame(TEXT, wire.deflate(b"Hello"), rsv=4) + wire.frame(TEXT, b"plain")
    stray = wire.header(CONTINUATION, length) + KEY
    assert wire.codes(same(200, DEFLATE, sent + stray)) == [1002]
    assert wire.codes(same(200, DEFLATE, sent[:-11] + stray)) == [1002]


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("agreed", AGREED)
def test_the_limit_is_the_same(limit, agreed):
    for size in (limit, limit + 1):
        for opcode in (TEXT, BINARY):
            whole = wire.frame(opcode, b"x" * size)
            for sent in (whole, wire.frame(PING) + whole + wire.close(), whole[: size // 2]):
                answered(limit, agreed, [sent])
                answered(limit, agreed, chunks(sent, 4095))
                answered(limit, agreed, [*bytewise(sent[:20]), sent[20:]])


EDGES = [b"", *(bytes([each]) for each in b"a\x80\x8f\x90\x9f\xa0\xbf\xc0\xc2\xe0\xed\xf4\xff")]
"""Bytes on both sides of every bound that a continuation byte can have; and none."""


@pytest.mark.parametrize("lead", range(0x80, 0x100))
def test_every_start_of_a_character_is_answered_alike(lead):
    for second in EDGES:
        for rest in (b"", b"\x80", b"\xbf\xbf", b"a"):
            text = b"good" + bytes([lead]) + second + rest
            sent = wire.frame(TEXT, text)
            answered(1000, None, [sent])
            answered(1000, None, [sent[:10], *bytewise(sent[10:])])


@pytest.mark.parametrize("shift", range(4))
@pytest.mark.parametrize("bad", [b"", b"\xff", b"\xed\xa0\x80", b"aaaa", b"\xf4\x90"])
def test_long_text_is_answered_alike_across_the_steps_it_is_checked_in(shift, bad):
    text = bytearray(b"x" * shift + "\U0001f30d".encode() * 17_499)
    for place in (4096, 65535, 65536, len(text) - len(bad)) if bad else (0,):
        changed = text.copy()
        changed[place : place + len(bad)] = bad
        sent = wire.frame(TEXT, bytes(changed)) + wire.frame(PING)
        for pieces in ([sent], chunks(sent, 65536), chunks(sent, 10_001)):
            answered(70000, None, pieces)


SMALL = [wire.frame(TEXT, b"a"), wire.frame(PING), wire.frame(PONG, b"b"), wire.frame(BINARY)]


@pytest.mark.parametrize("count", [MOST_FRAMES - 1, MOST_FRAMES, MOST_FRAMES + 1, 900])
@pytest.mark.parametrize("then", ["", "a fragment", "bad text in fragments", "close 1000"])
@pytest.mark.parametrize("agreed", [None, DEFLATE], ids=["plain", "deflate"])
def test_very_many_frames_at_once_are_answered_alike(count, then, agreed):
    sent = b"".join(SMALL[i % 4] for i in range(count)) + JUDGED.get(then, b"")
    sent += wire.frame(TEXT, b"last") * 3
    same(1000, agreed, sent, chunks(sent, 4096), chunks(sent, 1001))
