"""An open connection: frame bytes in, frame bytes out, and the verdict that ends it."""

from __future__ import annotations

import random
import tracemalloc
import zlib

import pytest

from echo_service import codec, policy, session
from echo_service.compression import Parameters
from echo_service.policy import Ending, Violation
from echo_service.session import Session
from tests import wire
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT

DEFLATE = Parameters()

CODECS = [None, codec.PYTHON, codec.BEST]
"""None is wsproto alone."""

HELLO = bytes.fromhex("f248cdc9c90700")
"""RFC 7692 7.2.3.1: "Hello", compressed."""

NOISE = random.Random(1).randbytes(400)
"""Bytes that do not compress, the same ones each time."""


def opened(compression=None, limit=1000):
    return Session(limit, compression)


def failure(code, words):
    """A Close of ours with that reason."""
    payload = code.to_bytes(2, "big") + words.encode("ascii")
    return bytes([0x88, len(payload)]) + payload


def compressed(opcode, payload, *, fin=True):
    """A compressed message of one frame, or its first fragment."""
    return wire.frame(opcode, payload, fin=fin, rsv=4)


# The echo

ECHOED = {
    # RFC 6455 5.7, masked text and its answer without a mask
    "text": (bytes.fromhex("818537fa213d7f9f4d5158"), b"\x81\x05Hello"),
    "binary": (wire.frame(BINARY, b"\x00\xff\x80"), b"\x82\x03\x00\xff\x80"),
    "empty text": (wire.frame(TEXT), b"\x81\x00"),
    "empty binary": (wire.frame(BINARY), b"\x82\x00"),
    "several": (
        wire.frame(TEXT, b"a") + wire.frame(BINARY, b"b") + wire.frame(TEXT, b"c"),
        b"\x81\x01a\x82\x01b\x81\x01c",
    ),
    "fragments": (
        wire.frame(TEXT, b"Hel", fin=False) + wire.frame(CONTINUATION, b"lo"),
        b"\x81\x05Hello",
    ),
    "empty fragments": (
        wire.frame(BINARY, fin=False)
        + wire.frame(CONTINUATION, b"a", fin=False)
        + wire.frame(CONTINUATION, fin=False)
        + wire.frame(CONTINUATION),
        b"\x82\x01a",
    ),
    "a character in two fragments": (
        wire.frame(TEXT, b"\xce", fin=False) + wire.frame(CONTINUATION, b"\xba"),
        b"\x81\x02\xce\xba",
    ),
    "ping": (wire.frame(PING), b"\x8a\x00"),
    "ping with a payload": (wire.frame(PING, b"\x00\xfe\xff"), b"\x8a\x03\x00\xfe\xff"),
    "long ping": (wire.frame(PING, b"p" * 125), b"\x8a\x7d" + b"p" * 125),
    "pong": (wire.frame(PONG, b"unasked"), b""),
    "control frames between fragments": (
        wire.frame(TEXT, b"Hel", fin=False)
        + wire.frame(PING, b"1")
        + wire.frame(PONG, b"2")
        + wire.frame(CONTINUATION, b"l", fin=False)
        + wire.frame(PING, b"3")
        + wire.frame(CONTINUATION, b"o"),
        b"\x8a\x011\x8a\x013\x81\x05Hello",
    ),
    "an unmasking mask": (bytes.fromhex("8285 00000000") + b"Hello", b"\x82\x05Hello"),
    "length in two bytes": (wire.frame(BINARY, b"x" * 126), b"\x82\x7e\x00\x7e" + b"x" * 126),
}

ECHOED_COMPRESSED = {
    "text": (compressed(TEXT, HELLO), b"\xc1\x07" + HELLO),
    "binary": (compressed(BINARY, HELLO), b"\xc2\x07" + HELLO),
    "empty": (compressed(TEXT, b"\x00"), b"\xc1\x01\x00"),
    # RFC 7692 7.2.3.2: the second refers to the first, in both directions
    "two": (
        compressed(TEXT, HELLO) + compressed(TEXT, bytes.fromhex("f200110000")),
        b"\xc1\x07" + HELLO + b"\xc1\x05" + bytes.fromhex("f200110000"),
    ),
    "plain between compressed": (
        compressed(TEXT, HELLO) + wire.frame(TEXT, b"Hello") + compressed(TEXT, HELLO),
        b"\xc1\x07" + HELLO + b"\x81\x05Hello" + b"\xc1\x05" + bytes.fromhex("f200110000"),
    ),
    "control frames between fragments": (
        compressed(TEXT, HELLO[:3], fin=False)
        + wire.frame(PING, b"1")
        + wire.frame(PONG, b"2")
        + wire.frame(CONTINUATION, HELLO[3:5], fin=False)
        + wire.frame(PING, b"3")
        + wire.frame(CONTINUATION, HELLO[5:]),
        b"\x8a\x011\x8a\x013\xc1\x07" + HELLO,
    ),
    "a block with BFINAL": (
        compressed(TEXT, bytes.fromhex("f348cdc9c9070000")) + compressed(TEXT, HELLO),
        b"\xc1\x07" + HELLO + b"\xc1\x05" + bytes.fromhex("f200110000"),
    ),
}


@pytest.mark.parametrize("compression", [None, DEFLATE], ids=["plain", "deflate"])
@pytest.mark.parametrize("name", ECHOED)
def test_a_plain_message_comes_back_as_it_was_in_every_cut(name, compression):
    sent, expected = ECHOED[name]
    for pieces in wire.cuts(sent):
        server = opened(compression)
        assert wire.feed(server, pieces) == expected
        assert server.verdict is None


@pytest.mark.parametrize("name", ECHOED_COMPRESSED)
def test_a_compressed_message_comes_back_compressed_in_every_cut(name):
    sent, expected = ECHOED_COMPRESSED[name]
    for pieces in wire.cuts(sent):
        server = opened(DEFLATE)
        assert wire.feed(server, pieces) == expected
        assert server.verdict is None


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 65537, 1_000_000])
def test_a_message_of_any_length_form_comes_back(size):
    payload = NOISE * (size // 400 + 1)
    echo = wire.feed(opened(limit=size), [wire.frame(BINARY, payload[:size])])
    assert wire.parse(echo) == [(BINARY, payload[:size], True, 0)]


@pytest.mark.parametrize("after", [wire.frame(PING), wire.close(1000)], ids=["ping", "close"])
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name if codec else "none")
def test_a_large_echo_is_not_copied_for_what_comes_with_it(codec, after):
    limit = 1 << 22
    pattern = random.Random(1).randbytes(32_000)  # within the peer's window and beyond ours
    message = compressed(BINARY, wire.deflate((pattern * 132)[:limit]))
    made, answers = Session(limit, DEFLATE, codec), []
    data = wire.frame(PING) + message + after
    tracemalloc.start()
    answers.append(made.receive(data))
    while made.holds:
        answers.append(made.receive())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert max(map(len, answers)) > limit
    assert sum(map(len, answers)) < 1.01 * limit
    assert peak < 1.6 * limit


def test_thousands_of_small_frames_in_one_call_come_back_in_order():
    sent = b"".join(wire.frame(TEXT, b"%d" % n) + wire.frame(PING, b"%d" % n) for n in range(5000))
    server = opened()
    frames = wire.parse(wire.take(server, sent))
    assert [frame.opcode for frame in frames] == [TEXT, PONG] * 5000
    assert [frame.payload for frame in frames] == [b"%d" % (n // 2) for n in range(10000)]


def test_a_bytearray_is_taken_and_left_as_it_was():
    data = bytearray(wire.frame(TEXT, b"Hello"))
    assert opened().receive(data) == b"\x81\x05Hello"
    assert data == wire.frame(TEXT, b"Hello")


def test_nothing_received_is_nothing_answered():
    assert opened().receive(b"") == b""


def test_a_message_of_131072_fragments_comes_back_and_one_more_is_1008():
    begun = wire.frame(TEXT, b"a", fin=False) + wire.frame(CONTINUATION, b"a", fin=False) * 131_070
    server, other = opened(limit=200_000), opened(limit=200_000)
    assert wire.take(server, begun) == wire.take(other, begun) == b""
    echo = server.receive(wire.frame(CONTINUATION, b"a"))
    assert echo == b"\x81\x7f\x00\x00\x00\x00\x00\x02\x00\x00" + b"a" * 131_072
    assert server.verdict is None
    one_more = wire.frame(CONTINUATION, b"a", fin=False) + wire.frame(CONTINUATION, b"a")
    words = "too many fragments in a message (RFC 6455 10.4)"
    assert other.receive(one_more) == failure(1008, words)
    assert other.verdict.ending is Ending.TOO_MANY_FRAGMENTS


# Violations

FRAMING = {
    **{
        f"opcode {opcode:#x}": (wire.frame(opcode, b"a"), "a reserved opcode", "RFC 6455 5.2")
        for opcode in (3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF)
    },
    **{
        f"reserved bits {rsv} on {opcode:#x}": (
            wire.frame(opcode, b"\x03\xe8", rsv=rsv),
            "a reserved bit is set",
            "RFC 6455 5.2",
        )
        for opcode in (TEXT, BINARY, CLOSE, PING, PONG)
        for rsv in range(1, 8)
    },
    **{
        f"unmasked {opcode:#x}": (
            wire.header(opcode, 2, masked=False) + b"\x03\xe8",
            "a frame without a mask",
            "RFC 6455 5.1",
        )
        for opcode in (TEXT, BINARY, CLOSE, PING, PONG)
    },
    **{
        f"fragmented {opcode:#x}": (
            wire.frame(opcode, b"\x03\xe8", fin=False),
            "a fragmented control frame",
            "RFC 6455 5.5",
        )
        for opcode in (CLOSE, PING, PONG)
    },
    **{
        f"{opcode:#x} of {size} bytes": (
            wire.frame(opcode, b"\x03\xe8" + b"x" * (size - 2)),
            "a control frame of more than 125 bytes",
            "RFC 6455 5.5",
        )
        for opcode in (CLOSE, PING, PONG)
        for size in (126, 65536)
    },
    **{
        f"length {length} in {form} bytes": (
            bytes([0x82, 0x80 | {2: 126, 8: 127}[form]]) + length.to_bytes(form, "big"),
            "a length in more bytes than it needs",
            "RFC 6455 5.2",
        )
        for length, form in [(0, 2), (125, 2), (0, 8), (125, 8), (126, 8), (65535, 8)]
    },
    **{
        f"length {length:#x}": (
            wire.header(BINARY, length),
            "a length of more than 63 bits",
            "RFC 6455 5.2",
        )
        for length in (2**63, 2**64 - 1)
    },
    "continuation of nothing": (
        wire.frame(CONTINUATION, b"a"),
        "a continuation of no message",
        "RFC 6455 5.4",
    ),
    "first fragment of nothing": (
        wire.frame(CONTINUATION, b"a", fin=False),
        "a continuation of no message",
        "RFC 6455 5.4",
    ),
    "continuation of a message that has ended": (
        wire.frame(PONG) + wire.frame(CONTINUATION),
        "a continuation of no message",
        "RFC 6455 5.4",
    ),
    **{
        f"{second:#x} inside {first:#x}": (
            wire.frame(first, b"a", fin=False) + wire.frame(second, b"b"),
            "a message inside another",
            "RFC 6455 5.4",
        )
        for first in (TEXT, BINARY)
        for second in (TEXT, BINARY)
    },
}


@pytest.mark.parametrize("name", FRAMING)
def test_a_violation_of_framing_is_1002_after_the_echo_of_what_came_before(name):
    sent, words, rule = FRAMING[name]
    good = wire.frame(TEXT, b"good") + wire.frame(PING, b"ping")
    expected = b"\x81\x04good\x8a\x04ping" + failure(1002, f"{words} ({rule})")
    pieces_of_few = wire.cuts(good + sent[:100])
    for pieces in [*pieces_of_few, [good + sent + wire.frame(TEXT, b"more") + wire.close(1000)]]:
        server = opened()
        assert wire.feed(server, pieces) == expected
        assert server.verdict == policy.Verdict(
            Ending.PROTOCOL_ERROR, expected[-len(words) - len(rule) - 5 :], None, rule
        )


@pytest.mark.parametrize("rsv", range(1, 8))
def test_a_reserved_bit_on_a_continuation_is_1002(rsv):
    sent = wire.frame(TEXT, b"a", fin=False) + wire.frame(CONTINUATION, b"b", rsv=rsv)
    for pieces in wire.cuts(sent):
        server = opened()
        assert wire.codes(wire.feed(server, pieces)) == [1002]
        assert server.verdict.rule == "RFC 6455 5.2"


@pytest.mark.parametrize(
    "sent",
    [
        compressed(PING, b""),
        compressed(PONG, b""),
        compressed(CLOSE, b"\x03\xe8"),
        compressed(TEXT, HELLO[:3], fin=False) + compressed(CONTINUATION, HELLO[3:]),
        wire.frame(TEXT, b"a", fin=False) + compressed(CONTINUATION, b"b"),
        compressed(TEXT, HELLO[:3], fin=False) + compressed(PING, b""),
        *(wire.frame(TEXT, HELLO, rsv=rsv) for rsv in (1, 2, 3, 5, 6, 7)),
    ],
)
def test_only_rsv1_on_a_first_frame_is_compression(sent):
    for pieces in wire.cuts(sent):
        server = opened(DEFLATE)
        expected = failure(1002, "a reserved bit is set (RFC 6455 5.2)")
        assert wire.feed(server, pieces) == expected
        assert server.verdict.rule == "RFC 6455 5.2"


def test_what_watches_the_frames_offers_nothing():
    assert not opened(DEFLATE)._intake.offer()


def test_a_violation_that_wsproto_has_new_words_for_is_a_malformed_frame():
    assert session._violation("a thing that nobody thought of") is Violation.FRAME


@pytest.mark.parametrize("ending_call", ["violation", "close", "own"])
def test_one_close_is_sent_and_nothing_after_it(ending_call):
    server = opened()
    sent = {
        "violation": lambda: server.receive(wire.frame(3)),
        "close": lambda: server.receive(wire.close(1000)),
        "own": lambda: server.end(policy.IDLE),
    }[ending_call]()
    assert len(wire.codes(sent)) == 1
    verdict = server.verdict
    later = [wire.frame(TEXT, b"late"), wire.frame(PING), b"", wire.frame(3), wire.close(1000)]
    assert wire.feed(server, later) == b""
    assert server.carried == (0, 0, 0)
    assert server.verdict == verdict


# UTF-8

NOT_UTF_8 = [
    "80",  # a continuation of nothing
    "bf",
    "c0",  # begins only what would be too long
    "c1",
    "c3 28",
    "c3 c3",
    "e0 80",  # too long
    "e0 9f",
    "e1 80 28",
    "ed a0",  # a surrogate
    "ed bf",
    "ef bf c0",
    "f0 80",  # too long
    "f0 8f",
    "f0 9f 98 28",
    "f1 28",
    "f4 90",  # beyond U+10FFFF
    "f5",
    "f8",
    "fe",
    "ff",
]
"""Each is fine but for its last byte, which no continuation of any kind can mend."""

UTF_8 = [
    "\x00",
    "\x7f",
    "\x80",
    "\u07ff",
    "\u0800",
    "\ud7ff",
    "\ue000",
    "\ufeff",
    "\ufffe",
    "\uffff",
    "\U00010000",
    "\U0010ffff",
    "κόσμε",
    "H\u0065\u0301llo, \U0001f30d!",
]

TEXT_FAILS = failure(1007, "text that is not UTF-8 (RFC 6455 8.1)")

DEFLATED_TEXT_FAILS = failure(1007, "text that does not inflate to UTF-8 (RFC 6455 8.1)")


@pytest.mark.parametrize("bad", NOT_UTF_8)
@pytest.mark.parametrize("before", ["", "plain", "κόσμε"])
def test_text_fails_at_its_first_bad_byte_and_not_before(bad, before):
    payload = before.encode() + bytes.fromhex(bad)
    server = opened()
    unfinished = wire.header(TEXT, 500) + wire.KEY + wire.mask(payload)
    assert wire.feed(server, [unfinished[i : i + 1] for i in range(len(unfinished) - 1)]) == b""
    assert server.verdict is None
    assert server.receive(unfinished[-1:]) == TEXT_FAILS
    assert server.verdict == policy.Verdict(
        Ending.INVALID_DATA, TEXT_FAILS[2:], None, "RFC 6455 8.1"
    )


@pytest.mark.parametrize("bad", NOT_UTF_8)
def test_text_in_fragments_fails_at_its_first_bad_byte(bad):
    *start, last = [bytes([byte]) for byte in b"good " + bytes.fromhex(bad)]
    server = opened()
    assert server.receive(wire.frame(TEXT, fin=False)) == b""
    assert wire.feed(server, [wire.frame(CONTINUATION, byte, fin=False) for byte in start]) == b""
    assert server.receive(wire.frame(CONTINUATION, last, fin=False)) == TEXT_FAILS


@pytest.mark.parametrize("bad", NOT_UTF_8)
def test_compressed_text_fails_before_its_message_ends(bad):
    payload = wire.deflate(b"good " + bytes.fromhex(bad))
    server = opened(DEFLATE)
    assert server.receive(compressed(TEXT, payload, fin=False)) == DEFLATED_TEXT_FAILS


@pytest.mark.parametrize("character", ["é", "€", "\U0001f30d"])
def test_text_that_ends_inside_a_character_is_1007(character):
    encoded = character.encode()
    for end in range(1, len(encoded)):
        sent = wire.frame(TEXT, b"abc" + encoded[:end], fin=False) + wire.frame(CONTINUATION)
        for pieces in wire.cuts(sent):
            assert wire.feed(opened(), pieces) == TEXT_FAILS
        payload = wire.deflate(b"abc" + encoded[:end])
        assert opened(DEFLATE).receive(compressed(TEXT, payload)) == DEFLATED_TEXT_FAILS


@pytest.mark.parametrize("text", UTF_8)
def test_text_that_is_utf_8_comes_back_in_every_cut(text):
    payload = text.encode()
    for pieces in wire.cuts(wire.frame(TEXT, payload)):
        assert wire.feed(opened(), pieces) == bytes([0x81, len(payload)]) + payload


@pytest.mark.parametrize("shift", range(4))
def test_long_text_is_checked_across_the_steps_it_is_checked_in(shift):
    text = b"x" * shift + "\U0001f30d".encode() * 50_000
    for used in CODECS:
        sent, bad = wire.frame(TEXT, text), wire.frame(TEXT, text[:-1])
        (echo,) = wire.parse(wire.take(Session(300_000, None, used), sent))
        assert echo.payload == text
        assert wire.take(Session(300_000, None, used), bad) == TEXT_FAILS


def test_binary_data_need_not_be_utf_8_and_the_next_text_is_judged_on_its_own():
    half = "é".encode()[:1]
    sent = wire.frame(TEXT, "é".encode()) + wire.frame(BINARY, half) + wire.frame(TEXT, b"a")
    server = opened()
    assert server.receive(sent) == b"\x81\x02\xc3\xa9\x82\x01\xc3\x81\x01a"
    assert server.verdict is None


# The limit

TOO_BIG = failure(1009, "a message over the limit (RFC 6455 10.4)")


def ways(opcode, payload):
    """One message in every way that it may come: as its frames, and whether they are compressed."""
    small = wire.deflate(payload)
    half, third = len(payload) // 2, len(small) // 3
    yield None, [wire.frame(opcode, payload)]
    yield None, [wire.frame(opcode, payload[:half], fin=False), wire.frame(0, payload[half:])]
    yield DEFLATE, [wire.frame(opcode, payload)]
    yield DEFLATE, [compressed(opcode, small)]
    yield DEFLATE, [compressed(opcode, small[:third], fin=False), wire.frame(0, small[third:])]


@pytest.mark.parametrize("kind", ["noise", "words"])
@pytest.mark.parametrize("size", [399, 400])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_up_to_the_limit_comes_back_whole(opcode, size, kind):
    payload = (NOISE if kind == "noise" and opcode == BINARY else b"echo " * 80)[:size]
    for compression, frames in ways(opcode, payload):
        data = b"".join(frames)
        for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
            server = opened(compression, limit=400)
            assert wire.read(wire.feed(server, pieces)) == [(opcode, payload)]
            assert server.verdict is None


@pytest.mark.parametrize("kind", ["noise", "words"])
@pytest.mark.parametrize("size", [401, 402, 800])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_over_the_limit_is_1009_and_no_part_of_it_comes_back(opcode, size, kind):
    payload = (NOISE * 2 if kind == "noise" and opcode == BINARY else b"echo " * 160)[:size]
    for compression, frames in ways(opcode, payload):
        data = b"".join(frames)
        for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
            server = opened(compression, limit=400)
            assert wire.feed(server, pieces) == TOO_BIG
            assert server.verdict == policy.Verdict(
                Ending.TOO_BIG, TOO_BIG[2:], None, "RFC 6455 10.4"
            )


@pytest.mark.parametrize("length", [401, 65536, 2**31, 2**32, 2**62, 2**63 - 1])
@pytest.mark.parametrize("compression", [None, DEFLATE], ids=["plain", "deflate"])
def test_a_length_over_the_limit_is_refused_at_its_header(length, compression):
    for pieces in wire.cuts(wire.header(BINARY, length)):
        assert wire.feed(opened(compression, limit=400), pieces) == TOO_BIG


@pytest.mark.parametrize("length", [65536, 2**31, 2**32, 2**62, 2**63 - 1])
def test_a_compressed_length_that_can_hold_no_small_message_is_refused_at_its_header(length):
    for pieces in wire.cuts(wire.header(BINARY, length, rsv=4)):
        assert wire.feed(opened(DEFLATE, limit=400), pieces) == TOO_BIG


def test_a_continuation_that_leads_over_the_limit_is_refused_at_its_header():
    server = opened(limit=400)
    begun = wire.frame(BINARY, b"a" * 300, fin=False)
    assert wire.feed(server, [begun, wire.header(CONTINUATION, 101)]) == TOO_BIG


def test_the_limit_is_for_each_message_anew():
    sent = wire.frame(BINARY, b"a" * 400)
    server = opened(limit=400)
    assert server.receive(sent * 3) == (b"\x82\x7e\x01\x90" + b"a" * 400) * 3
    assert server.verdict is None


@pytest.mark.parametrize("compression", [None, DEFLATE], ids=["plain", "deflate"])
def test_control_frames_are_under_no_limit_but_their_own(compression):
    server = opened(compression, limit=0)
    assert server.receive(wire.frame(PING, b"p" * 125)) == b"\x8a\x7d" + b"p" * 125
    assert server.receive(wire.frame(TEXT)) == b"\x81\x00"
    assert server.receive(wire.close(1000, b"x" * 123))[:4] == b"\x88\x7d\x03\xe8"


# Data that does not inflate


@pytest.mark.parametrize(
    "payload", [b"\xff\xff\xff\xff", b"\x07", bytes.fromhex("f200110000"), HELLO[:-1], HELLO[:-4]]
)
@pytest.mark.parametrize(
    "opcode, close, rule",
    [
        (BINARY, failure(1007, "data that does not inflate (RFC 7692 7.2.2)"), "RFC 7692 7.2.2"),
        (TEXT, DEFLATED_TEXT_FAILS, "RFC 6455 8.1"),
    ],
)
def test_what_does_not_inflate_is_1007_after_the_echo_of_what_came_before(
    opcode, close, rule, payload
):
    for pieces in wire.cuts(wire.frame(TEXT, b"good") + compressed(opcode, payload)):
        server = opened(DEFLATE)
        assert wire.feed(server, pieces) == b"\x81\x04good" + close
        assert server.verdict.ending is Ending.INVALID_DATA
        assert server.verdict.rule == rule


@pytest.mark.parametrize(
    "then",
    [b"a" * 1000, b"a" * 100_000],
    ids=["over the limit", "far over it"],
)
def test_bad_text_before_too_much_of_it_is_1007_in_every_cut(then):
    fixed = zlib.compressobj(wbits=-15, strategy=zlib.Z_FIXED)
    data = compressed(TEXT, wire.deflate(b"\xff" + then, fixed))
    for pieces in wire.cuts(data):
        assert wire.codes(wire.feed(opened(DEFLATE, limit=400), pieces)) == [1007]


def test_bad_text_before_data_that_does_not_inflate_is_told_alike_in_every_cut():
    fixed = zlib.compressobj(wbits=-15, strategy=zlib.Z_FIXED)
    data = compressed(TEXT, wire.deflate(b"\xffabc", fixed) + b"\x00\x00\xff\xff\x07")
    for pieces in wire.cuts(data):
        assert wire.feed(opened(DEFLATE), pieces) == DEFLATED_TEXT_FAILS


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize(
    "limit, payload",
    [
        (19, wire.deflate(b"a" * 20) + b"\x00\x00\xff\xff\x07"),
        (399, wire.deflate(b"echo " * 80) + b"\x00\x00\xff\xff\x07"),
        (0, b"\x62\x00\x00\x00\x00\x00\x00"),
    ],
)
def test_a_byte_too_many_before_data_that_does_not_inflate_is_1009_in_every_cut(
    opcode, limit, payload
):
    """The whole of it shows zlib both at once; what came first counts."""
    for pieces in wire.cuts(compressed(opcode, payload)):
        assert wire.codes(wire.feed(opened(DEFLATE, limit), pieces)) == [1009]


# The peer's Close


@pytest.mark.parametrize("compression", [None, DEFLATE], ids=["plain", "deflate"])
def test_every_close_code_is_answered_with_itself_or_with_1002(compression):
    for code in range(65536):
        echoed = 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
        server = Session(1000, compression)
        answer = server.receive(wire.frame(CLOSE, code.to_bytes(2, "big") + b"why"))
        if echoed:
            assert answer == b"\x88\x05" + code.to_bytes(2, "big") + b"why"
            assert server.verdict.ending is Ending.PEER_CLOSED
            assert server.verdict.rule is None
        else:
            assert answer[2:4] == b"\x03\xea"
            assert len(answer) == 2 + answer[1] <= 127
            assert server.verdict.ending is Ending.PROTOCOL_ERROR
            assert server.verdict.rule in ("RFC 6455 7.4.1", "RFC 6455 7.4.2")
        assert server.verdict.received_code == code


CLOSED = {
    "without a body": (b"", b"\x88\x00", "peer_closed", 1005, None),
    "1000": (b"\x03\xe8", b"\x88\x02\x03\xe8", "peer_closed", 1000, None),
    "a reason": (
        b"\x03\xe9" + "Grüße".encode(),
        b"\x88\x09\x03\xe9Gr\xc3\xbc\xc3\x9fe",
        "peer_closed",
        1001,
        None,
    ),
    "the longest reason": (
        b"\x13\x87" + b"x" * 123,
        b"\x88\x7d\x13\x87" + b"x" * 123,
        "peer_closed",
        4999,
        None,
    ),
    "one byte": (
        b"\x03",
        failure(1002, "a Close with a body of one byte (RFC 6455 5.5.1)"),
        "protocol_error",
        None,
        "RFC 6455 5.5.1",
    ),
    "the code 0": (
        b"\x00\x00",
        failure(1002, "close code 0 is not used (RFC 6455 7.4.2)"),
        "protocol_error",
        0,
        "RFC 6455 7.4.2",
    ),
    "the code 1006": (
        b"\x03\xee",
        failure(1002, "close code 1006 is never on the wire (RFC 6455 7.4.1)"),
        "protocol_error",
        1006,
        "RFC 6455 7.4.1",
    ),
    "a reason that is not UTF-8": (
        b"\x03\xe8\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80",
        failure(1007, "a close reason that is not UTF-8 (RFC 6455 5.5.1)"),
        "invalid_data",
        1000,
        "RFC 6455 5.5.1",
    ),
}


@pytest.mark.parametrize("compression", [None, DEFLATE], ids=["plain", "deflate"])
@pytest.mark.parametrize("name", CLOSED)
def test_a_close_is_answered_after_the_echo_of_what_came_before(name, compression):
    body, answer, ending, received, rule = CLOSED[name]
    sent = wire.frame(TEXT, b"good") + wire.frame(CLOSE, body)
    for pieces in wire.cuts(sent):
        server = opened(compression)
        assert wire.feed(server, pieces) == b"\x81\x04good" + answer
        assert server.verdict == policy.Verdict(Ending(ending), answer[2:], received, rule)
        assert not server.awaits_close


def test_a_close_between_fragments_is_answered_and_the_message_is_given_up():
    sent = wire.frame(TEXT, b"a", fin=False) + wire.close(1000) + wire.frame(CONTINUATION, b"b")
    assert opened().receive(sent) == b"\x88\x02\x03\xe8"


# Our own Close, and what a connection tells of itself


def test_a_ping_of_ours_is_empty():
    assert opened().ping() == b"\x89\x00"


@pytest.mark.parametrize(
    "verdict, close",
    [
        (policy.IDLE, failure(1011, "no sign of life")),
        (policy.DRAINING[1001], failure(1001, "the service is going away")),
        (policy.VANISHED, b""),
    ],
)
def test_we_end_a_connection_with_the_close_of_the_verdict(verdict, close):
    server = opened()
    assert not server.awaits_close
    assert server.end(verdict) == close
    assert server.verdict is verdict
    assert server.awaits_close


@pytest.mark.parametrize(
    "answer, received",
    [
        (wire.close(1001), 1001),
        (wire.close(1000, b"bye"), 1000),
        (wire.close(), 1005),
        (wire.close(0), 0),
        (wire.frame(CLOSE, b"\x03"), None),
        (wire.frame(TEXT, b"late") + wire.frame(PING) + wire.close(1001), 1001),
        (wire.frame(3) + wire.close(1001), None),
    ],
)
def test_the_peers_answer_to_our_close_is_recorded_and_not_answered(answer, received):
    for pieces in wire.cuts(answer):
        server = opened()
        server.end(policy.DRAINING[1001])
        assert wire.feed(server, pieces) == b""
        assert not server.awaits_close
        assert server.verdict.ending is Ending.DRAINING
        assert server.verdict.received_code == received
        assert server.verdict.sent_code == 1001


def test_a_close_of_ours_in_the_middle_of_a_frame_leaves_the_rest_readable():
    begun, rest = wire.frame(TEXT, b"Hello")[:8], wire.frame(TEXT, b"Hello")[8:]
    server = opened()
    server.receive(begun)
    server.end(policy.IDLE)
    assert wire.take(server, rest + wire.close(1011)) == b""
    assert server.verdict.received_code == 1011


@pytest.mark.parametrize("compression", [None, DEFLATE], ids=["plain", "deflate"])
def test_whole_messages_and_their_inflated_bytes_are_counted(compression):
    server = opened(compression)
    server.receive(wire.frame(TEXT, b"abc") + wire.frame(BINARY, b"de") + wire.frame(PING, b"f"))
    server.receive(wire.frame(TEXT, b"gh", fin=False))
    assert server.carried == (1, 1, 5)
    server.receive(wire.frame(CONTINUATION, b"i"))
    assert server.carried == (2, 1, 8)
    if compression is not None:
        server.receive(compressed(BINARY, wire.deflate(b"j" * 900)))
        assert server.carried == (2, 2, 908)
    server.receive(wire.frame(TEXT, b"\xff"))
    assert server.carried[0] == 2


# How much is done at once

FRAGMENTS = wire.frame(TEXT, fin=False) + wire.frame(CONTINUATION, fin=False) * 2000


@pytest.mark.parametrize(
    "compression, sent, calls",
    [
        pytest.param(None, wire.frame(TEXT, b"a") * 200, 1, id="simple frames"),
        pytest.param(None, wire.frame(BINARY, bytes(10**6)), 1, id="a large frame"),
        pytest.param(None, wire.frame(BINARY, bytes(10**6))[:-1], 1, id="most of a large frame"),
        pytest.param(None, FRAGMENTS, 3, id="fragments, 4 KiB at a time"),
        pytest.param(
            None,
            wire.frame(TEXT, b"a") + wire.frame(TEXT, b"b", fin=False),
            2,
            id="simple, then not",
        ),
        pytest.param(None, wire.close() + wire.frame(TEXT) * 999, 1, id="nothing after a Close"),
        pytest.param(
            None,
            wire.header(BINARY, 10**6, fin=False) + wire.KEY + bytes(10**6),
            1 + 4,
            id="the inside of a fragment, 256 KiB at a time",
        ),
        pytest.param(DEFLATE, compressed(TEXT, HELLO) * 3, 3, id="compressed messages, each alone"),
        pytest.param(
            DEFLATE,
            compressed(BINARY, wire.deflate(random.Random(2).randbytes(39_000))),
            10,
            id="a large compressed frame, 4 KiB at a time",
        ),
    ],
)
def test_a_call_does_so_much_and_holds_the_rest(compression, sent, calls):
    server = opened(compression, limit=2 * 10**6)
    server.receive(sent)
    count = 1
    while server.holds:
        server.receive()
        count += 1
    assert count == calls


def test_what_is_held_comes_before_what_comes_later():
    server = opened()
    first = server.receive(wire.frame(TEXT, b"a") + wire.frame(TEXT, b"b", fin=False))
    assert server.holds
    later = wire.take(server, wire.frame(CONTINUATION, b"c"))
    assert (first, later) == (b"\x81\x01a", b"\x81\x02bc")


def test_nothing_of_what_was_received_is_referred_to():
    """It may be a buffer that is used again at once."""
    sent = wire.frame(TEXT, b"a" * 300)
    for cut in range(1, len(sent)):
        server = opened()
        buffer = bytearray(sent[:cut])
        with memoryview(buffer) as view:
            server.receive(view)
        buffer[:] = bytes(len(buffer))
        buffer.clear()
        assert wire.take(server, sent[cut:]) == b"\x81\x7e\x01\x2c" + b"a" * 300


def test_what_is_held_is_copied_once_however_many_calls_it_takes():
    server = opened()
    server.receive(wire.frame(TEXT, fin=False) + wire.frame(CONTINUATION, fin=False) * 50_000)
    held = server._held.obj
    calls = 1
    while server.holds:
        assert server._held.obj is held
        server.receive()
        calls += 1
    assert calls > 50


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name if codec else "none")
def test_nothing_is_kept_once_all_is_done(codec):
    """An empty view would keep the whole of what it is a view of."""
    two = wire.frame(BINARY, b"a", fin=False) + wire.frame(CONTINUATION, b"b")
    server = Session(1 << 20, None, codec)
    wire.take(server, memoryview(bytearray(two + wire.frame(BINARY, bytes(60_000)) * 3 + two)))
    assert server._held == b""
    assert not isinstance(server._held, memoryview)


def test_a_control_frame_in_parts_does_not_leave_the_rest_to_wsproto():
    sent = wire.frame(PING, b"p" * 125) * 3
    for cut in range(1, len(sent)):
        server = opened()
        assert wire.feed(server, [sent[:cut], sent[cut:]]) == (b"\x8a\x7d" + b"p" * 125) * 3
        assert server._wsproto is None


def test_after_an_error_of_ours_nothing_is_received_any_more():
    server = opened()
    server.receive(wire.frame(TEXT, b"a", fin=False))
    assert wire.codes(server.give_up()) == [1011]
    assert server.verdict is policy.INTERNAL_ERROR
    assert not server.awaits_close
    assert server.receive(wire.close(1000)) == b""


def test_what_a_session_had_carried_before_the_latest_call_is_told():
    server = opened()
    server.receive(wire.frame(TEXT, b"a"))
    server.receive(wire.frame(BINARY, b"bc"))
    assert (server.before, server.carried) == ((1, 0, 1), (1, 1, 3))


def test_with_a_ping_or_a_close_of_ours_nothing_that_was_carried_is_under_way():
    server = opened()
    server.receive(wire.frame(TEXT, b"a"))
    server.ping()
    assert server.before == (1, 0, 1)
    server.receive(wire.frame(TEXT, b"b"))
    server.end(policy.STALLED)
    assert server.before == (1, 0, 1), "the echo is what stalled"
    server = opened()
    server.receive(wire.frame(TEXT, b"a"))
    server.end(policy.IDLE)
    assert server.before == (1, 0, 1)


def test_wsproto_is_there_only_while_it_is_needed():
    server = opened()
    there = []
    for sent in (
        wire.frame(TEXT, b"simple"),
        wire.frame(TEXT, b"a", fin=False),
        wire.frame(PING),
        wire.frame(CONTINUATION, b"b")[:5],
        wire.frame(CONTINUATION, b"b")[5:],
        wire.frame(TEXT, b"simple"),
    ):
        server.receive(sent)
        there.append(server._wsproto is not None)
    assert there == [False, True, True, True, False, False]


def test_what_a_session_has_carried_is_told():
    server = opened()
    server.receive(wire.frame(TEXT, b"one") + wire.frame(BINARY, b"three") + wire.frame(PING))
    assert server.carried == (1, 1, 8)
