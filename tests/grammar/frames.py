"""A client's frames by the grammar of RFC 6455 5 and RFC 7692 7, and what is wrong with some."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import strategies as st

from tests.test_laws import cut
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, mask

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 300
"""The largest message that the service is to echo."""


@dataclass(frozen=True)
class Sent:
    """A frame as a client writes it."""

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0
    masked: bool = True
    key: bytes = b"\x37\xfa\x21\x3d"
    length: int | None = None
    """What is announced, if it is not the payload's."""
    form: int = 0
    """Bytes of the length beyond the first one at least: 0, 2 or 8."""

    def encode(self):
        length = len(self.payload) if self.length is None else self.length
        form = max(self.form, 0 if length < 126 else 2 if length < 65536 else 8)
        short = {0: length, 2: 126, 8: 127}[form]
        first = bytes([self.fin << 7 | self.rsv << 4 | self.opcode, self.masked << 7 | short])
        data = self.key + mask(self.payload, self.key) if self.masked else self.payload
        return first + (length.to_bytes(form, "big") if form else b"") + data


class Answer(NamedTuple):
    """A frame that is to come back."""

    opcode: int
    payload: bytes
    compressed: bool = False


class Place(NamedTuple):
    """What a frame follows: the message that is under way, if one is."""

    opcode: int = 0
    compressed: bool = False
    can_compress: bool = False
    """Whether compression was agreed on, in a message or not."""
    room: int = LIMIT
    """Bytes that a message that is not compressed may still have."""


class Step(NamedTuple):
    """A frame, its place, and what is to come back as soon as it is whole."""

    place: Place
    frame: Sent
    answer: Answer | None = None


# What is right

keys = st.sampled_from([b"\x37\xfa\x21\x3d", bytes(4), b"\xff" * 4, b"\x00\x80\x00\x01"])

sizes = st.sampled_from([0, 1, 124, 125, 126, 127, LIMIT - 1, LIMIT])


def full(size):
    """So many bytes of text."""
    return "\N{EURO SIGN}".encode() * (size // 3) + b"." * (size % 3)


texts = st.text(max_size=12).map(str.encode) | sizes.map(full)

binaries = st.binary(max_size=12) | sizes.map(lambda size: b"\xff" * size)

PAYLOADS = {TEXT: texts, BINARY: binaries}

control_payloads = st.binary(max_size=8) | st.sampled_from([b"", b"\xff" * 124, b"." * 125])

SENDABLE = [(1000, 1003), (1007, 1014), (3000, 4999)]
"""The close codes that come back as they are (RFC 6455 7.4, and the registry of 11.7)."""

NOT_SENDABLE = [
    *((0, 999), (1004, 1004), (1005, 1005), (1006, 1006), (1015, 1015)),
    *((1016, 2999), (5000, 65535)),
]
"""Those that don't: not used, reserved, never on the wire, not assigned, not defined (7.4)."""


def codes(ranges):
    """One of these close codes, often one at an end of a range."""
    edges = [edge for each in ranges for edge in each]
    return (st.sampled_from(edges) | st.one_of(*(st.integers(*each) for each in ranges))).map(
        lambda code: code.to_bytes(2, "big")
    )


reasons = st.text(max_size=12).map(str.encode) | st.sampled_from(
    [b"", b"x" * 123, "ü".encode() * 61]
)

closes = st.just(b"") | st.tuples(codes(SENDABLE), reasons).map(b"".join)


class Compressor:
    """The client's side of permessage-deflate, as far as it may go by what was agreed on."""

    def __init__(self, agreed):
        self._agreed = agreed
        self._stream = None

    def deflate(self, message, form):
        """One message: "kept" context, "fresh", or the "last" block of a stream (7.2.3.4)."""
        if self._stream is None or form != "kept" or self._agreed.client_no_context_takeover:
            self._stream = zlib.compressobj(wbits=-self._agreed.client_max_window_bits)
        if form == "last":
            data = self._stream.compress(message) + self._stream.flush() + b"\x00"
            self._stream = None
            return data
        data = self._stream.compress(message) + self._stream.flush(zlib.Z_SYNC_FLUSH)
        return data[:-4] or b"\x00"  # zlib gives nothing for nothing, but 7.2.3.6 does


ALONE = SimpleNamespace(client_no_context_takeover=True, client_max_window_bits=9)
"""What is agreed on where a message stands on its own, in the smallest window."""


def deflated(message):
    return Compressor(ALONE).deflate(message, "fresh")


@st.composite
def controls(draw, place):
    """No control frame or some, between two others."""
    steps = []
    for opcode in draw(st.lists(st.sampled_from([PING, PONG]), max_size=2)):
        payload = draw(control_payloads)
        answer = Answer(PONG, payload) if opcode == PING else None
        steps.append(Step(place, Sent(opcode, payload, key=draw(keys)), answer))
    return steps


@st.composite
def messages(draw, agreed, size=None):
    """The frames of a few messages, of this size or any; compressed or not, in fragments or not."""
    outside = Place(can_compress=agreed is not None)
    compressor = Compressor(agreed)
    steps = []
    said = {}
    for opcode in draw(st.lists(st.sampled_from([TEXT, BINARY]), max_size=3)):
        steps += draw(controls(outside))
        message = draw(PAYLOADS[opcode]) if size is None else full(size)
        if draw(st.booleans()):  # the same again, which refers to what there was where it may
            message = said.get(opcode, message)
        said[opcode] = message
        compressed = agreed is not None and draw(st.sampled_from([True, True, False]))
        payload = message
        if compressed:
            payload = compressor.deflate(
                message, draw(st.sampled_from(["kept", "kept", "fresh", "last"]))
            )
        fragments = draw(cut(payload)) if draw(st.booleans()) else [payload]
        steps += draw(
            fragmented(
                outside,
                Sent(opcode, rsv=4 * compressed),
                fragments,
                Answer(opcode, message, compressed),
            )
        )
    return steps


@st.composite
def fragmented(draw, outside, first, fragments, answer):
    """The frames of a message, and control frames between them."""
    steps = []
    place = outside
    for number, fragment in enumerate(fragments, 1):
        is_last = number == len(fragments)
        frame = replace(first, payload=fragment, fin=is_last, key=draw(keys))
        if number > 1:
            frame = replace(frame, opcode=CONTINUATION, rsv=0)
        steps.append(Step(place, frame, answer if is_last else None))
        if not is_last:
            place = Place(
                first.opcode, answer.compressed, outside.can_compress, place.room - len(fragment)
            )
            steps += draw(controls(place))
    return steps


@st.composite
def conversations(draw, agreed):
    """What a correct client sends, frame by frame; at last it may close."""
    steps = draw(messages(agreed))
    if draw(st.booleans()):
        payload = draw(closes)
        place = Place(can_compress=agreed is not None)
        steps.append(Step(place, Sent(CLOSE, payload), Answer(CLOSE, payload)))
    return steps


# What is wrong


class Fault(NamedTuple):
    """A frame that must not come, where it would come, and the code that it is answered with."""

    code: int
    fits: Callable
    """Whether it is a fault at a place."""
    make: Callable
    """The frame, by chance and place."""
    in_header: bool = True
    """Whether the header shows it, before a payload can."""


def anywhere(_):
    return True


def outside(place):
    return not place.opcode


def inside(place):
    return bool(place.opcode)


def can_be_compressed(place):
    return outside(place) and place.can_compress


def new_data(draw, _=None):
    opcode = draw(st.sampled_from([TEXT, BINARY]))
    return Sent(opcode, draw(PAYLOADS[opcode]), draw(st.booleans()))


def any_data(draw, place):
    """A data frame that may come here."""
    frame = new_data(draw)
    if not place.opcode:
        return frame
    return replace(frame, opcode=CONTINUATION, payload=frame.payload[: max(place.room, 0)])


def having(payloads, *opcodes, **options):
    """A frame with one of these payloads."""
    return lambda draw, _: Sent(draw(st.sampled_from(opcodes)), draw(payloads), **options)


CONTROLS = {
    "a Close": (anywhere, having(closes, CLOSE)),
    "a Ping": (anywhere, having(control_payloads, PING)),
    "a Pong": (anywhere, having(control_payloads, PONG)),
}

FRAMES = CONTROLS | {
    "text": (outside, having(texts, TEXT)),
    "binary data": (outside, having(binaries, BINARY)),
    "a first fragment": (outside, having(texts, TEXT, BINARY, fin=False)),
    "a continuation": (inside, any_data),
    "a compressed message": (
        can_be_compressed,
        having(texts.map(deflated), TEXT, BINARY, rsv=4),
    ),
}
"""Right frames, by where they may come."""


def unmasked(draw, frame):
    return replace(frame, masked=False)


def rsv2(draw, frame):
    return replace(frame, rsv=frame.rsv | 2)


def rsv3(draw, frame):
    return replace(frame, rsv=frame.rsv | 1)


def reserved_opcode(draw, frame):
    return replace(frame, opcode=draw(st.sampled_from([3, 4, 5, 6, 7, 11, 12, 13, 14, 15])))


def not_minimal(draw, frame):
    length = len(frame.payload)
    return replace(frame, form=8 if length > 125 else draw(st.sampled_from([2, 8])))


def over_63_bits(draw, frame):
    return replace(frame, length=draw(st.sampled_from([2**63, 2**63 + 1, 2**64 - 1])))


def rsv1(draw, frame):
    return replace(frame, rsv=4)


def in_fragments(draw, frame):
    return replace(frame, fin=False)


def announcing(draw, frame, *lengths):
    """The frame with one of these lengths, and as many bytes unless they are very many."""
    length = draw(st.sampled_from([*lengths, 65535, 65536, 2**63 - 1]))
    return replace(frame, length=length, payload=b"x" * length if length < 1000 else b"")


def too_long(draw, frame):
    return announcing(draw, frame, 126, 127)


def changed(change, base):
    """A right frame with one thing changed."""
    return lambda draw, place: change(draw, base(draw, place))


not_utf8 = st.tuples(
    st.text(max_size=5).map(str.encode),
    st.sampled_from(
        [
            *(b"\x80", b"\xbf", b"\xc0\xaf", b"\xc1\xbf", b"\xe0\x9f\xbf", b"\xed\xa0\x80"),
            *(b"\xed\xbf\xbf", b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5", b"\xff"),
            *(b"\xc3", b"\xe2\x82", b"\xf0\x9f\x8c"),
        ]
    ),
    st.text(max_size=5).map(str.encode),
).map(b"".join)
"""What is wrong in the middle, and at the end what is not whole."""

half_utf8 = st.sampled_from([b"\xc3", b"a\xe2\x82", b"\xf0\x9f\x8c", b"abc\xf0"])
"""What is not whole; where a character is under way already, it is wrong."""

never_utf8 = st.sampled_from([b"\xc0", b"\xc1", b"\xf5", b"\xff", b"a\xff", b"\xfe" * 9])
"""What is wrong whatever character it may be a part of."""

NOT_DEFLATE = {
    "a block of the reserved type": b"\x06",  # RFC 1951 3.2.3
    "a last block of the reserved type": b"\x07",
    "a length without its complement": b"\x00\x05\x00\x00\x00Hello",  # 3.2.4
    "5 bytes of which 3 come": b"\x00\x05\x00\xfa\xffHel",
    "a last block without its end": b"\x03",
    "a block without its end": b"\x02",
    "a table of codes that is not whole": b"\x04\x00",  # 3.2.7
}

bombs = st.sampled_from([LIMIT + 1, LIMIT + 2, 65535, 65536]).map(full).map(deflated)


def too_large(draw, frame):
    return announcing(draw, frame, LIMIT + 1, LIMIT + 2)


def far_too_large(draw, place):
    """So many bytes announced that nothing within the limit deflates to them."""
    frame = Sent(CONTINUATION) if place.opcode else Sent(BINARY, rsv=4)
    return replace(frame, length=draw(st.sampled_from([2 * LIMIT + 1025, 10**6, 2**63 - 1])))


ON_ANY_FRAME = {
    "no mask": unmasked,
    "RSV2": rsv2,
    "RSV3": rsv3,
    "a reserved opcode": reserved_opcode,
    "a length not minimal": not_minimal,
    "a length over 63 bits": over_63_bits,
}
"""Faults of a header that any frame may have, beside others too."""

ON_CONTROLS = {"RSV1": rsv1, "no FIN": in_fragments, "over 125 bytes": too_long}

FAULTS = {
    # RFC 6455 5.1 to 5.5
    **{
        f"{name} on {base}": Fault(1002, fits, changed(change, frame))
        for faults, bases in ((ON_ANY_FRAME, FRAMES), (ON_CONTROLS, CONTROLS))
        for name, change in faults.items()
        for base, (fits, frame) in bases.items()
    },
    "RSV1 on a continuation": Fault(1002, inside, changed(rsv1, any_data)),
    "RSV1 without an agreement": Fault(
        1002, lambda place: outside(place) and not place.can_compress, changed(rsv1, any_data)
    ),
    "a continuation of nothing": Fault(
        1002, outside, lambda draw, _: replace(new_data(draw), opcode=CONTINUATION)
    ),
    "a message inside another": Fault(1002, inside, new_data),
    # 5.5.1 and 7.4
    **{
        f"a close code from {least} to {most}": Fault(
            1002,
            anywhere,
            having(st.tuples(codes([(least, most)]), reasons).map(b"".join), CLOSE),
            False,
        )
        for least, most in NOT_SENDABLE
    },
    "such a code, and a reason not in UTF-8": Fault(
        1002,
        anywhere,
        having(st.tuples(codes(NOT_SENDABLE), not_utf8).map(b"".join), CLOSE),
        False,
    ),
    "a Close of one byte": Fault(
        1002, anywhere, having(st.sampled_from([b"\x00", b"\x03", b"\xff"]), CLOSE), False
    ),
    "a reason not in UTF-8": Fault(
        1007, anywhere, having(st.tuples(codes(SENDABLE), not_utf8).map(b"".join), CLOSE), False
    ),
    # 8.1
    "text not in UTF-8": Fault(1007, outside, having(not_utf8, TEXT), False),
    "text that ends amid a character": Fault(1007, outside, having(half_utf8, TEXT), False),
    "a message that ends amid a character": Fault(
        1007,
        lambda place: place.opcode == TEXT and not place.compressed and place.room > 9,
        having(half_utf8, CONTINUATION),
        False,
    ),
    "text that inflates to half a character": Fault(
        1007, can_be_compressed, having(half_utf8.map(deflated), TEXT, rsv=4), False
    ),
    "a first fragment not in UTF-8": Fault(
        1007, outside, having(never_utf8, TEXT, fin=False), False
    ),
    "a fragment not in UTF-8": Fault(
        1007,
        lambda place: place.opcode == TEXT and not place.compressed and place.room > 9,
        lambda draw, _: Sent(CONTINUATION, draw(never_utf8), draw(st.booleans())),
        False,
    ),
    # 10.4
    "a message a byte too large": Fault(
        1009, outside, having(st.just(full(LIMIT + 1)), TEXT, BINARY)
    ),
    "a message too large": Fault(1009, outside, changed(too_large, any_data)),
    "a fragment too large": Fault(
        1009,
        lambda place: inside(place) and not place.compressed,
        changed(too_large, any_data),
    ),
    "a length far too large": Fault(
        1009, lambda place: place.compressed or (outside(place) and place.can_compress),
        far_too_large,
    ),
    # RFC 7692 6 and 7.2.2
    **{
        f"data that does not inflate: {what}": Fault(
            1007, can_be_compressed, having(st.just(data), BINARY, rsv=4), False
        )
        for what, data in NOT_DEFLATE.items()
    },
    "text that inflates to no UTF-8": Fault(
        1007,
        can_be_compressed,
        having(not_utf8.map(deflated), TEXT, rsv=4),
        False,
    ),
    "a message that inflates to too much": Fault(
        1009,
        can_be_compressed,
        having(bombs, TEXT, BINARY, rsv=4),
        False,
    ),
}  # fmt: skip


def labels(can_compress):
    """The faults that can be made where compression was agreed on, or was not."""
    places = [Place(opcode, can_compress=can_compress) for opcode in (0, TEXT, BINARY)]
    return [label for label, fault in FAULTS.items() if any(map(fault.fits, places))]


class Expected(NamedTuple):
    """What is to come back, and the codes of which one is to fail the client, if it is failed."""

    answers: list[Answer]
    codes: set[int]


def encode(frames):
    return b"".join(frame.encode() for frame in frames)


def right(steps):
    """The bytes of a conversation, and what is to come of them."""
    answers = [step.answer for step in steps if step.answer is not None]
    return encode(step.frame for step in steps), Expected(answers, set())


@st.composite
def cut_off(draw, agreed):
    """A conversation of which the last frame has not come whole, and the frames before it."""
    steps = draw(conversations(agreed).filter(bool))
    sent, _ = right(steps)
    last = len(steps[-1].frame.encode())
    missing = draw(st.integers(1, last))
    return sent[:-missing], right(steps[:-1])[1]


@st.composite
def faulty(draw, agreed, label):
    """A conversation into which this fault has come, with whatever comes after it."""
    fault = FAULTS[label]
    before, place, after = draw(broken_off(agreed, fault.fits))
    frame = fault.make(draw, place)
    sent, (answers, _) = right(before)
    return sent + frame.encode() + after, Expected(answers, {fault.code})


@st.composite
def twice_faulty(draw, agreed):
    """A conversation with two faults, which are one frame's or those of one and a later one."""
    could = labels(agreed is not None)
    fault = FAULTS[draw(st.sampled_from(could))]
    before, place, after = draw(broken_off(agreed, fault.fits))
    frame = fault.make(draw, place)
    sent, (answers, _) = right(before)
    found = {fault.code}
    if draw(st.booleans()):
        frame = ON_ANY_FRAME[draw(st.sampled_from(sorted(ON_ANY_FRAME)))](draw, frame)
        found = {1002, fault.code} if fault.in_header else {1002}
    else:
        later = FAULTS[draw(st.sampled_from(could))]
        after = later.make(draw, place).encode() + after
    return sent + frame.encode() + after, Expected(answers, found)


@st.composite
def broken_off(draw, agreed, fits):
    """The steps up to a fitting place in a conversation, the place, and bytes that come after."""
    steps = draw(conversations(agreed))
    is_open = not steps or steps[-1].frame.opcode != CLOSE
    places = [step.place for step in steps]
    if is_open:
        places.append(Place(can_compress=agreed is not None))
    fitting = [number for number, place in enumerate(places) if fits(place)]
    if not fitting:  # it wants a message that is under way
        opcode, compressed = draw(st.sampled_from([(TEXT, False), (BINARY, False), (BINARY, True)]))
        place = Place(opcode, compressed and agreed is not None, agreed is not None)
        if not fits(place):
            place = place._replace(opcode=TEXT, compressed=False)
        frame = Sent(place.opcode, fin=False, rsv=4 * place.compressed)
        steps = [step for step in steps if step.frame.opcode != CLOSE]
        return [*steps, Step(Place(), frame)], place, b""
    at = draw(st.sampled_from(fitting))
    return steps[:at], places[at], encode(step.frame for step in steps[at:])
