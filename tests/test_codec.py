"""The codec: the same three functions in Python and in C, fact by fact."""

from __future__ import annotations

import importlib.util
import random
import sys

import pytest

from echo_service import codec as codecs
from echo_service.codec import MOST_FRAMES, data_header, frame_header
from tests import wire
from tests.wire import BINARY, CLOSE, CONTINUATION, KEY, PING, PONG, TEXT

NOTHING = (0, b"", (0, 0, 0))

LIMIT = 2**17

SIZES = [0, 1, 124, 125, 126, 127, 65534, 65535, 65536, 65537]
"""Around every boundary between two forms of a length (RFC 6455 5.2)."""

BUFFERS = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": lambda data: memoryview(bytearray(data)),
    "slice": lambda data: memoryview(b"\x81\x80" + data + b"\x80\x81")[2:-2],
}


@pytest.fixture(params=["Python", "C"])
def codec(request):
    if request.param == "Python":
        return codecs.PYTHON
    if codecs.COMPILED is None:
        pytest.skip("the codec in C is not built")
    return codecs.COMPILED


def noise(size):
    return random.Random(size).randbytes(size)


def long_form(first, size, length):
    """A masked header with its length in that many bytes, minimal or not."""
    return bytes([first, 0x80 | {2: 126, 8: 127}[size]]) + length.to_bytes(size, "big") + KEY


# The headers

HEADERS = {
    0: "8100",
    1: "8101",
    125: "817d",
    126: "817e007e",
    127: "817e007f",
    256: "817e0100",
    65535: "817effff",
    65536: "817f0000000000010000",
    2**24 + 7: "817f0000000001000007",
    2**63 - 1: "817f7fffffffffffffff",
}


@pytest.mark.parametrize("length, header", HEADERS.items())
def test_a_header_has_the_shortest_form_of_its_length(length, header):
    assert frame_header(0x81, length) == bytes.fromhex(header)


@pytest.mark.parametrize("first", [0x81, 0x82, 0x8A, 0xC1, 0x88])
def test_a_header_begins_with_the_byte_that_is_asked_for(first):
    assert frame_header(first, 3) == bytes([first, 3])


@pytest.mark.parametrize("buffer", BUFFERS.values(), ids=BUFFERS)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", SIZES)
def test_a_header_is_told_once_it_is_complete_and_not_before(size, opcode, buffer):
    header = wire.header(opcode, size) + KEY
    for end in range(len(header)):
        assert data_header(buffer(header[:end]), LIMIT) == (0, 0)
    assert data_header(buffer(header), LIMIT) == (len(header), size)
    assert data_header(buffer(header + b"payload"), LIMIT) == (len(header), size)


# What a frame that is not simple begins with, and how much of that shows it
NOT_DATA = {
    "continuation": (wire.header(CONTINUATION, 1), 1),
    "not final": (wire.header(TEXT, 1, fin=False), 1),
    "RSV1": (wire.header(TEXT, 1, rsv=4), 1),
    "RSV2": (wire.header(BINARY, 1, rsv=2), 1),
    "RSV3": (wire.header(BINARY, 1, rsv=1), 1),
    "opcode 3": (wire.header(3, 1), 1),
    "close": (wire.header(CLOSE, 0), 1),
    "unmasked": (wire.header(TEXT, 1, masked=False), 2),
    "unmasked, two bytes": (wire.header(TEXT, 126, masked=False), 2),
    "unmasked, eight bytes": (wire.header(TEXT, 65536, masked=False), 2),
    "0 in two bytes": (long_form(0x81, 2, 0), 4),
    "125 in two bytes": (long_form(0x81, 2, 125), 4),
    "0 in eight bytes": (long_form(0x82, 8, 0), 10),
    "125 in eight bytes": (long_form(0x82, 8, 125), 10),
    "65535 in eight bytes": (long_form(0x82, 8, 65535), 10),
    "64 bits": (long_form(0x82, 8, 2**63), 10),
    "over the limit": (wire.header(TEXT, LIMIT + 1), 10),
    "far over it": (wire.header(TEXT, 2**63 - 1), 10),
}


CONTROL = {"ping": (wire.header(PING, 0), 1), "pong": (wire.header(PONG, 0), 1)}


@pytest.mark.parametrize("header, shown", (NOT_DATA | CONTROL).values(), ids=[*NOT_DATA, *CONTROL])
def test_a_header_is_not_simple_from_the_byte_on_that_shows_it(header, shown):
    for end in range(len(header) + 1):
        assert data_header(header[:end], LIMIT) == ((0, 0) if end < shown else None)


@pytest.mark.parametrize("limit", [0, 1, 125, 126, 65535, 65536])
def test_a_header_over_the_limit_is_not_simple(limit):
    header = wire.header(TEXT, limit) + KEY
    assert data_header(header, limit) == (len(header), limit)
    assert data_header(wire.header(TEXT, limit + 1) + KEY, limit) is None


def test_a_header_may_begin_with_the_bytes_that_are_named():
    compressed = wire.header(TEXT, 7, rsv=4) + KEY
    assert data_header(compressed, LIMIT, (0xC1, 0xC2)) == (6, 7)
    assert data_header(compressed[:1], LIMIT, (0xC1, 0xC2)) == (0, 0)
    assert data_header(wire.header(TEXT, 7), LIMIT, (0xC1, 0xC2)) is None
    assert data_header(b"\x81", LIMIT, (0xC1, 0xC2)) is None


# echo

ECHOED = {
    # RFC 6455 5.7
    "text": (bytes.fromhex("818537fa213d7f9f4d5158"), b"\x81\x05Hello", (1, 0, 5)),
    "binary": (wire.frame(BINARY, b"\x00\xff\x80"), b"\x82\x03\x00\xff\x80", (0, 1, 3)),
    "empty text": (wire.frame(TEXT), b"\x81\x00", (1, 0, 0)),
    "empty binary": (wire.frame(BINARY), b"\x82\x00", (0, 1, 0)),
    "ping": (wire.frame(PING), b"\x8a\x00", (0, 0, 0)),
    "ping with a payload": (wire.frame(PING, b"\xff\x00"), b"\x8a\x02\xff\x00", (0, 0, 0)),
    "the longest ping": (wire.frame(PING, b"p" * 125), b"\x8a\x7d" + b"p" * 125, (0, 0, 0)),
    "pong": (wire.frame(PONG), b"", (0, 0, 0)),
    "the longest pong": (wire.frame(PONG, b"\xff" * 125), b"", (0, 0, 0)),
    "several": (
        wire.frame(TEXT, "é".encode())
        + wire.frame(PONG, b"2")
        + wire.frame(BINARY, b"abc")
        + wire.frame(PING, b"3")
        + wire.frame(TEXT, b"d"),
        b"\x81\x02\xc3\xa9\x82\x03abc\x8a\x013\x81\x01d",
        (2, 1, 6),
    ),
    "pongs alone": (wire.frame(PONG, b"a" * 9) * 3, b"", (0, 0, 0)),
    "pong at the end": (wire.frame(TEXT, b"a") + wire.frame(PONG, b"b"), b"\x81\x01a", (1, 0, 1)),
    "a mask of zeros": (bytes.fromhex("8285 00000000") + b"Hello", b"\x82\x05Hello", (0, 1, 5)),
    "a mask of ones": (bytes.fromhex("8183 ffffffff 9e9d9c"), b"\x81\x03abc", (1, 0, 3)),
}


@pytest.mark.parametrize("buffer", BUFFERS.values(), ids=BUFFERS)
@pytest.mark.parametrize("sent, back, counts", ECHOED.values(), ids=ECHOED)
def test_simple_frames_are_echoed_and_counted(codec, sent, back, counts, buffer):
    assert codec.echo(buffer(sent), LIMIT) == (len(sent), back, counts)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [*range(18), *SIZES])
def test_every_form_of_a_length_is_echoed_in_the_shortest(codec, size, opcode):
    payload = noise(size) if opcode == BINARY else b"x" * size
    sent = wire.frame(opcode, payload)
    back = frame_header(0x80 | opcode, size) + payload
    assert codec.echo(sent, LIMIT) == (len(sent), back, (opcode == TEXT, opcode == BINARY, size))


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("limit", [0, 1, 5, 125, 126, 65535, 65536])
def test_the_limit_itself_is_within_it_and_one_more_is_not(codec, limit, opcode):
    good = wire.frame(opcode, b"x" * limit)
    over = wire.frame(opcode, b"x" * (limit + 1))
    taken, _, counts = codec.echo(good + over + good, limit)
    assert (taken, counts) == (len(good), (opcode == TEXT, opcode == BINARY, limit))
    assert codec.echo(over, limit) == NOTHING


def test_control_frames_are_under_no_limit_but_their_own(codec):
    sent = wire.frame(PING, b"p" * 125) + wire.frame(PONG, b"p" * 125)
    assert codec.echo(sent, 0) == (len(sent), b"\x8a\x7d" + b"p" * 125, (0, 0, 0))


@pytest.mark.parametrize("limit", [2**62, 2**63 - 1, 2**64 - 1])
def test_a_limit_may_be_as_large_as_a_length(codec, limit):
    assert codec.echo(wire.frame(TEXT, b"a"), limit)[0] == 7
    for announced in (2**63 - 1, 2**63, 2**64 - 1):
        assert codec.echo(long_form(0x82, 8, announced) + b"payload", limit) == NOTHING


NOT_SIMPLE = {name: header for name, (header, _) in NOT_DATA.items()} | {
    "nothing": b"",
    "a ping of 126": wire.frame(PING, b"p" * 126),
    "a pong of 126": wire.frame(PONG, b"p" * 126),
    "a ping of 65536": wire.frame(PING, b"p" * 65536),
    "a ping's 125 in two bytes": long_form(0x89, 2, 125) + b"p" * 125,
    "a pong's 125 in two bytes": long_form(0x8A, 2, 125) + b"p" * 125,
    "a pong's 125 in eight bytes": long_form(0x8A, 8, 125) + b"p" * 125,
    "half a ping": wire.frame(PING, b"p", fin=False),
    "half a pong": wire.frame(PONG, b"p", fin=False),
    "a ping with RSV1": wire.frame(PING, b"p", rsv=4),
    "a pong with RSV3": wire.frame(PONG, b"p", rsv=1),
    "an unmasked ping": wire.header(PING, 4, masked=False) + b"ping",
    "an unmasked pong": wire.header(PONG, 4, masked=False) + b"pong",
    "close": wire.close(1000),
    "opcode 11": wire.frame(0xB, b"a"),
    "text that is not UTF-8": wire.frame(TEXT, b"abc\xff"),
    "text that ends inside a character": wire.frame(TEXT, "€".encode()[:-1]),
}


@pytest.mark.parametrize("bad", NOT_SIMPLE.values(), ids=NOT_SIMPLE)
def test_it_stops_at_the_first_frame_that_is_not_simple(codec, bad):
    bad += b"x" * 200 if bad else b""
    good = wire.frame(TEXT, b"a") + wire.frame(PONG, b"b") + wire.frame(PING, b"c")
    back = b"\x81\x01a\x8a\x01c"
    assert codec.echo(bad, LIMIT) == NOTHING
    assert codec.echo(good + bad, LIMIT) == (len(good), back, (1, 0, 1))
    if bad:
        assert codec.echo(good + bad + good, LIMIT) == (len(good), back, (1, 0, 1))


@pytest.mark.parametrize("first", range(256))
def test_four_first_bytes_are_simple(codec, first):
    taken, back, _ = codec.echo(bytes([first, 0x80]) + KEY, LIMIT)
    simple = {0x81: b"\x81\x00", 0x82: b"\x82\x00", 0x89: b"\x8a\x00", 0x8A: b""}
    assert (taken, back) == ((6, simple[first]) if first in simple else (0, b""))


@pytest.mark.parametrize(
    "frames",
    [
        [wire.frame(TEXT, b"ab"), wire.frame(PING), wire.frame(PONG, b"c"), wire.frame(BINARY)],
        [wire.frame(BINARY, noise(126)), wire.frame(TEXT, b"x" * 130)],
        [wire.header(BINARY, 65536) + KEY],
    ],
    ids=["short", "two bytes", "eight bytes"],
)
def test_what_is_cut_anywhere_is_taken_up_to_its_last_whole_frame(codec, frames):
    sent = b"".join(frames)
    for end in range(len(sent) + 1):
        at, whole = 0, []
        for frame in frames:
            if at + len(frame) > end or frame[1] == 0xFF:
                break
            at += len(frame)
            whole.append(frame)
        taken, back, _ = codec.echo(sent[:end], LIMIT)
        assert taken == at
        assert back == b"".join(codec.echo(frame, LIMIT)[1] for frame in whole)


def test_a_large_frame_is_not_taken_before_its_last_byte(codec):
    sent = wire.frame(BINARY, noise(70_000))
    assert codec.echo(sent[:-1], LIMIT) == NOTHING
    assert codec.echo(sent + b"\x82", LIMIT)[0] == len(sent)


def test_very_many_frames_are_taken_in_turns(codec):
    sent = wire.frame(TEXT, b"a") * (2 * MOST_FRAMES + 1)
    turns, back = [], b""
    while sent:
        taken, out, counts = codec.echo(sent, LIMIT)
        assert counts == (taken // 7, 0, taken // 7)
        sent, back = sent[taken:], back + out
        turns.append(counts[0])
    assert back == b"\x81\x01a" * (2 * MOST_FRAMES + 1)
    if codec is codecs.PYTHON:
        assert turns == [MOST_FRAMES, MOST_FRAMES, 1]


def test_nothing_of_what_was_echoed_is_kept(codec):
    sent = bytearray(wire.frame(TEXT, b"Hello") + wire.frame(BINARY, b"x" * 99))
    with memoryview(sent) as view:
        _, back, _ = codec.echo(view, LIMIT)
    before = bytes(back)
    sent[:] = bytes(len(sent))
    sent.clear()
    assert type(back) is bytes
    assert back == before


# append

PHASES = range(4)


@pytest.mark.parametrize("buffer", BUFFERS.values(), ids=BUFFERS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("size", [*range(26), 63, 64, 65, 4099])
def test_what_is_appended_is_unmasked(codec, size, phase, buffer):
    payload = noise(size)
    key = KEY[phase:] + KEY[:phase]
    echo = bytearray(b"\x82\x00before")
    assert codec.append(echo, buffer(wire.mask(payload, key)), key) is payload.isascii()
    assert echo == b"\x82\x00before" + payload


@pytest.mark.parametrize("size", [*range(1, 26), 64])
def test_whether_all_that_is_appended_is_ascii_is_told_at_every_place(codec, size):
    text = b"\x7f" * size
    assert codec.append(bytearray(b"\xff"), wire.mask(text), KEY) is True
    for place in range(size):
        for byte in (0x80, 0xFF):
            changed = text[:place] + bytes([byte]) + text[place + 1 :]
            assert codec.append(bytearray(), wire.mask(changed), KEY) is False


def test_what_is_ascii_under_its_mask_only_is_not(codec):
    assert codec.append(bytearray(), b"abc", b"\x80\x80\x80\x80") is False
    assert codec.append(bytearray(), b"\xe1\xe2\xe3", b"\x80\x80\x80\x80") is True


def test_an_echo_grows_by_what_is_appended_piece_by_piece(codec):
    payload = noise(3000)
    masked = wire.mask(payload)
    pieces = random.Random(1)
    echo, at = bytearray(), 0
    while at < len(masked):
        end = at + pieces.randrange(1, 40)
        codec.append(echo, masked[at:end], KEY[at % 4 :] + KEY[: at % 4])
        at = end
    assert echo == payload


def test_nothing_of_what_was_appended_is_kept(codec):
    echo, data = bytearray(), bytearray(wire.mask(b"Hello"))
    codec.append(echo, data, KEY)
    data[:] = bytes(5)
    data.clear()
    assert echo == b"Hello"
    echo.clear()


# utf8


def decoded(text):
    """How far that is UTF-8, or -1, by the table of RFC 3629 4."""
    at = 0
    while at < len(text):
        ranges = next((tail for leads, tail in FORMS if text[at] in leads), None)
        if ranges is None:
            return -1
        for number, allowed in enumerate(ranges, at + 1):
            if number == len(text):
                return at
            if text[number] not in allowed:
                return -1
        at += 1 + len(ranges)
    return at


TAIL = range(0x80, 0xC0)

FORMS = [
    (range(0x80), []),
    (range(0xC2, 0xE0), [TAIL]),
    (range(0xE0, 0xE1), [range(0xA0, 0xC0), TAIL]),
    (range(0xE1, 0xED), [TAIL, TAIL]),
    (range(0xED, 0xEE), [range(0x80, 0xA0), TAIL]),
    (range(0xEE, 0xF0), [TAIL, TAIL]),
    (range(0xF0, 0xF1), [range(0x90, 0xC0), TAIL, TAIL]),
    (range(0xF1, 0xF4), [TAIL, TAIL, TAIL]),
    (range(0xF4, 0xF5), [range(0x80, 0x90), TAIL, TAIL]),
]

EDGES = [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xE0, 0xED, 0xF4, 0xFF]
"""Bytes on both sides of every bound that a continuation byte can have."""


def test_every_start_of_two_bytes(codec):
    for lead in range(256):
        for second in range(256):
            text = bytearray((lead, second))
            assert codec.utf8(text, 0) == decoded(text), text.hex()


def test_every_lead_byte_with_the_boundaries_of_what_follows(codec):
    for lead in [0x7F, *range(0x80, 0x100)]:
        assert codec.utf8(bytearray((lead,)), 0) == decoded(bytes((lead,)))
        for second in EDGES:
            for third in EDGES:
                text = bytearray((lead, second, third))
                assert codec.utf8(text, 0) == decoded(text), text.hex()
    for lead in [0xE0, 0xED, 0xEF, *range(0xF0, 0xF6)]:
        for second in EDGES:
            for third in EDGES:
                for fourth in EDGES:
                    text = bytearray((lead, second, third, fourth))
                    assert codec.utf8(text, 0) == decoded(text), text.hex()


def test_every_boundary_of_the_code_points(codec):
    for point in [0, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF]:
        text = chr(point).encode()
        assert codec.utf8(bytearray(text), 0) == len(text)
        for end in range(1, len(text)):
            assert codec.utf8(bytearray(text[:end]), 0) == 0


@pytest.mark.parametrize(
    "bad, shown",
    [
        ("80", 1),
        ("bf", 1),
        ("c080", 1),  # overlong
        ("c1bf", 1),
        ("e08080", 2),
        ("e09fbf", 2),
        ("f0808080", 2),
        ("f08fbfbf", 2),
        ("eda080", 2),  # surrogates
        ("edafbf", 2),
        ("edb080", 2),
        ("edbfbf", 2),
        ("f4908080", 2),  # beyond U+10FFFF
        ("f5808080", 1),
        ("f8888080 80", 1),
        ("ff", 1),
        ("fe", 1),
        ("c341", 2),
        ("e28241", 3),
        ("f09f8c41", 4),
        ("c3c3", 2),
    ],
)
@pytest.mark.parametrize("before", [0, 1, 7, 8, 9, 16])
def test_what_cannot_become_utf8_is_told_at_the_byte_that_shows_it(codec, bad, shown, before):
    text = b"a" * before + bytes.fromhex(bad)
    for end in range(before + 1, len(text) + 1):
        expected = -1 if end >= before + shown else before
        assert codec.utf8(bytearray(text[:end]), 0) == expected
        if expected < 0:
            assert codec.utf8(bytearray(text[:end] + b"a" * 20), 0) == -1


@pytest.mark.parametrize("character", ["é", "€", "\ud7ff", "\U0001f30d", "\U0010ffff"])
@pytest.mark.parametrize("before", range(18))
def test_an_incomplete_character_at_the_end_is_waited_for(codec, character, before):
    whole = b"a" * before
    encoded = character.encode()
    for end in range(1, len(encoded)):
        text = bytearray(whole + encoded[:end])
        assert codec.utf8(text, 0) == before
        assert codec.utf8(text + encoded[end:], before) == before + len(encoded)
        assert codec.utf8(text + b"a", before) == -1


def test_it_begins_where_it_is_told(codec):
    text = bytearray(b"\xff\xffa" + "é€".encode() + b"b")
    assert codec.utf8(text, 0) == codec.utf8(text, 1) == -1
    assert codec.utf8(text, 2) == codec.utf8(text, 3) == codec.utf8(text, 5) == len(text) == 9
    assert codec.utf8(text, 4) == -1, "inside a character"
    assert codec.utf8(text, 8) == 9
    for start in (9, 10, 10**6):
        assert codec.utf8(text, start) == start, "nothing is left"
    assert codec.utf8(bytearray(), 0) == 0


def test_every_place_of_one_bad_byte_among_ascii(codec):
    for size in range(1, 26):
        assert codec.utf8(bytearray(b"a" * size), 0) == size
        for place in range(size):
            text = bytearray(b"a" * size)
            text[place] = 0xFF
            assert codec.utf8(text, 0) == -1
            assert codec.utf8(text, place + 1) == size


@pytest.mark.parametrize("shift", range(4))
def test_long_text_is_checked_across_the_steps_it_is_checked_in(codec, shift):
    text = bytearray(b"x" * shift + "\U0001f30d".encode() * 33_000)
    assert codec.utf8(text, 0) == len(text)
    for missing in (1, 2, 3):
        assert codec.utf8(text[:-missing], 0) == len(text) - 4
    for place in (65535, 65536, 65537, 131071, 131072):
        changed = text.copy()
        changed[place] = ord("a")
        assert codec.utf8(changed, 0) == -1
    for lead in range(65533, 65537):
        assert codec.utf8(bytearray(b"a" * lead + b"\xed\xa0"), 0) == -1
        assert codec.utf8(bytearray(b"a" * lead + b"\xed\x9f"), 0) == lead


def test_a_text_is_echoed_exactly_if_it_is_utf8(codec):
    pieces = [b"a", b"\xc3", b"\xa9", b"\xe2\x82\xac", b"\xed\xa0\x80", b"\xf0\x9f\x8c", b"\x8d"]
    chosen = random.Random(2)
    seen = set()
    for _ in range(500):
        text = b"".join(chosen.choices(pieces, weights=[9, 3, 3, 5, 1, 3, 3], k=4))
        good = decoded(text) == len(text)
        seen.add(good)
        assert bool(codec.echo(wire.frame(TEXT, text), LIMIT)[0]) is good, text.hex()
    assert seen == {True, False}


# What no caller does

WRONG = {
    "echo: None": lambda codec: codec.echo(None, 5),
    "echo: str": lambda codec: codec.echo("text", 5),
    "echo: a limit of str": lambda codec: codec.echo(wire.frame(TEXT, b"a" * 126), "5"),
    "echo: no limit": lambda codec: codec.echo(b""),
    "echo: one more": lambda codec: codec.echo(b"", 5, 5),
    "append: str": lambda codec: codec.append(bytearray(), "abc", KEY),
    "append: None": lambda codec: codec.append(bytearray(), None, KEY),
    "append: no key": lambda codec: codec.append(bytearray(), b"abc"),
    "append: a key of str": lambda codec: codec.append(bytearray(), b"abc", "abcd"),
    "append: None for the key": lambda codec: codec.append(bytearray(), b"abc", None),
    "append: one more": lambda codec: codec.append(bytearray(), b"abc", KEY, 1),
    "utf8: None": lambda codec: codec.utf8(None, 0),
    "utf8: a float": lambda codec: codec.utf8(bytearray(b"abc"), 0.0),
    "utf8: no start": lambda codec: codec.utf8(bytearray()),
    "utf8: one more": lambda codec: codec.utf8(bytearray(), 0, 0),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_wrong_arguments_raise(codec, call):
    with pytest.raises((TypeError, ValueError)):
        call(codec)


WRONG_IN_C = {
    "echo: int": lambda codec: codec.echo(5, 5),
    "echo: a float limit": lambda codec: codec.echo(b"", 5.0),
    "echo: a negative limit": lambda codec: codec.echo(b"", -1),
    "echo: a limit of 65 bits": lambda codec: codec.echo(b"", 2**64),
    "echo: every second byte": lambda codec: codec.echo(memoryview(b"abcd")[::2], 5),
    "append: every second byte": lambda codec: codec.append(
        bytearray(), memoryview(b"abcd")[::2], KEY
    ),
    "append: to bytes": lambda codec: codec.append(b"", b"abc", KEY),
    "append: a key of three": lambda codec: codec.append(bytearray(), b"abc", b"abc"),
    "append: a key of five": lambda codec: codec.append(bytearray(), b"abc", b"abcde"),
    "append: a key of bytearray": lambda codec: codec.append(bytearray(), b"", bytearray(KEY)),
    "append: to itself": lambda codec: codec.append(echo := bytearray(b"abc"), echo, KEY),
    "utf8: bytes": lambda codec: codec.utf8(b"abc", 0),
    "utf8: a negative start": lambda codec: codec.utf8(bytearray(b"abc"), -1),
    "utf8: far below": lambda codec: codec.utf8(bytearray(b"abc"), -(2**70)),
    "utf8: far beyond": lambda codec: codec.utf8(bytearray(b"abc"), 2**70),
}


@pytest.mark.skipif(codecs.COMPILED is None, reason="the codec in C is not built")
@pytest.mark.parametrize("call", WRONG_IN_C.values(), ids=WRONG_IN_C)
def test_what_could_harm_raises_in_c(call):
    with pytest.raises((TypeError, ValueError, OverflowError, BufferError)):
        call(codecs.COMPILED)


def test_an_echo_that_cannot_grow_stays_as_it_is(codec):
    echo = bytearray(b"abc")
    with memoryview(echo), pytest.raises(BufferError):
        codec.append(echo, b"data", KEY)
    assert echo == b"abc"
    codec.append(echo, wire.mask(b"d"), KEY)
    assert echo == b"abcd"


# Which codec there is


def imported():
    """The module, imported anew beside the one that all others use."""
    spec = importlib.util.find_spec("echo_service.codec")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_the_c_module_the_best_codec_is_the_one_in_python(monkeypatch):
    monkeypatch.setitem(sys.modules, "echo_service._codec", None)
    monkeypatch.delattr("echo_service._codec", raising=False)
    alone = imported()
    assert alone.COMPILED is None
    assert alone.BEST is alone.PYTHON
    assert alone.BEST.echo(wire.frame(TEXT, b"a"), 1) == (7, b"\x81\x01a", (1, 0, 1))


def test_with_the_c_module_it_is_the_best(monkeypatch):
    class Built:
        echo, append, utf8 = codecs.echo, codecs.append, codecs.utf8

    monkeypatch.setitem(sys.modules, "echo_service._codec", Built)
    monkeypatch.setattr("echo_service._codec", Built, raising=False)
    both = imported()
    assert both.BEST is both.COMPILED
    assert tuple(both.COMPILED) == ("C", Built.echo, Built.append, Built.utf8)


def test_each_codec_tells_its_name(codec):
    assert codec.name in ("Python", "C")
    assert (codecs.COMPILED or codecs.PYTHON) is codecs.BEST
