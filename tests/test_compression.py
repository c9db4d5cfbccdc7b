"""permessage-deflate: offers in, an answer out; compressed payload in, messages out."""

from __future__ import annotations

import random
import time
import tracemalloc
import zlib

import pytest
from wsproto.connection import SERVER, Connection
from wsproto.events import BytesMessage, CloseConnection

from echo_service.compression import Parameters, PerMessageDeflate, negotiate
from tests import wire

PMD = "permessage-deflate"
BITS_12 = "permessage-deflate; client_max_window_bits=12"
SERVER_12 = "permessage-deflate; server_max_window_bits=12"
SERVER_FLAG = "permessage-deflate; server_no_context_takeover"

OFFERS = [
    # Accepted as it stands
    ("permessage-deflate", PMD),
    (" \tpermessage-deflate\t ", PMD),
    ("permessage-deflate; server_no_context_takeover", SERVER_FLAG),
    (
        "permessage-deflate; client_no_context_takeover",
        "permessage-deflate; client_no_context_takeover",
    ),
    (
        "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    ),
    (
        (
            "permessage-deflate; client_max_window_bits=9; server_max_window_bits=10; "
            "client_no_context_takeover; server_no_context_takeover"
        ),
        (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
            "server_max_window_bits=10; client_max_window_bits=9"
        ),
    ),
    ("permessage-deflate;client_max_window_bits", BITS_12),
    ("permessage-deflate\t;\tclient_max_window_bits\t", BITS_12),
    # Windows
    ("permessage-deflate; client_max_window_bits", BITS_12),
    ("permessage-deflate; client_max_window_bits=15", BITS_12),
    ("permessage-deflate; client_max_window_bits=12", BITS_12),
    (
        "permessage-deflate; client_max_window_bits=11",
        "permessage-deflate; client_max_window_bits=11",
    ),
    (
        "permessage-deflate; client_max_window_bits=9",
        "permessage-deflate; client_max_window_bits=9",
    ),
    ("permessage-deflate; server_max_window_bits=15", SERVER_12),
    ("permessage-deflate; server_max_window_bits=12", SERVER_12),
    (
        "permessage-deflate; server_max_window_bits=9",
        "permessage-deflate; server_max_window_bits=9",
    ),
    ("permessage-deflate; client_max_window_bits = 15", BITS_12),
    ('permessage-deflate; client_max_window_bits="15"', BITS_12),
    ('permessage-deflate; server_max_window_bits = "12" ', SERVER_12),
    # Values that no window has
    ("permessage-deflate; server_max_window_bits", None),
    ("permessage-deflate; server_max_window_bits=", None),
    ("permessage-deflate; client_max_window_bits=", None),
    ("permessage-deflate; client_max_window_bits=8", None),
    ("permessage-deflate; server_max_window_bits=8", None),
    ("permessage-deflate; client_max_window_bits=7", None),
    ("permessage-deflate; client_max_window_bits=16", None),
    ("permessage-deflate; server_max_window_bits=16", None),
    ("permessage-deflate; server_max_window_bits=0", None),
    ("permessage-deflate; client_max_window_bits=-9", None),
    ("permessage-deflate; client_max_window_bits=+9", None),
    ("permessage-deflate; client_max_window_bits=09", None),
    ("permessage-deflate; client_max_window_bits=015", None),
    ("permessage-deflate; client_max_window_bits=1_0", None),
    ("permessage-deflate; client_max_window_bits=1 0", None),
    ("permessage-deflate; client_max_window_bits=10.0", None),
    ("permessage-deflate; client_max_window_bits=1e1", None),
    ("permessage-deflate; client_max_window_bits=0xa", None),
    ("permessage-deflate; client_max_window_bits=abc", None),
    ("permessage-deflate; client_max_window_bits=true", None),
    ("permessage-deflate; client_max_window_bits=\u0661\u0660", None),
    ("permessage-deflate; client_max_window_bits==10", None),
    ("permessage-deflate; client_max_window_bits=" + "9" * 5000, None),
    # Quotes
    ('permessage-deflate; client_max_window_bits=""', None),
    ('permessage-deflate; client_max_window_bits=" 10"', None),
    ('permessage-deflate; client_max_window_bits="10', None),
    ('permessage-deflate; client_max_window_bits=10"', None),
    ('permessage-deflate; client_max_window_bits="1"0', None),
    ("permessage-deflate; client_max_window_bits='10'", None),
    ('permessage-deflate; "client_max_window_bits"', None),
    ('"permessage-deflate"', None),
    ('foo; bar="a, permessage-deflate"', None),
    ('foo; bar="a, permessage-deflate', None),
    ('foo; bar="a\\", permessage-deflate, b"', None),
    ('foo; bar="a;b", permessage-deflate', PMD),
    ('foo; bar="a\\",b", permessage-deflate', PMD),
    ('foo; bar="a\\\\", permessage-deflate', PMD),
    # Values where none belongs, unknown and doubled parameters
    ("permessage-deflate; server_no_context_takeover=true", None),
    ("permessage-deflate; client_no_context_takeover=1", None),
    ('permessage-deflate; client_no_context_takeover=""', None),
    ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
    ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
    ("permessage-deflate; client_max_window_bits=10; client_max_window_bits=10", None),
    ("permessage-deflate; client_max_window_bits; client_max_window_bits=10", None),
    ("permessage-deflate; foo", None),
    ("permessage-deflate; foo=bar; client_max_window_bits", None),
    ("permessage-deflate; client_max_window_bits2=10", None),
    ("permessage-deflate; client_max_window_bit=10", None),
    ("permessage-deflate; Client_Max_Window_Bits", None),
    ("permessage-deflate; client_max_window_bits/2", None),
    # Empty elements
    ("", None),
    (" ", None),
    (",", None),
    (",, permessage-deflate ,", PMD),
    ("permessage-deflate;", None),
    ("permessage-deflate;;client_max_window_bits", None),
    ("permessage-deflate; =10", None),
    ("; permessage-deflate", None),
    # Other names
    ("PERMESSAGE-DEFLATE", None),
    ("Permessage-Deflate", None),
    ("permessage-deflate2", None),
    ("x-permessage-deflate", None),
    ("permessage-deflat", None),
    ("permessage-deflate client_max_window_bits", None),
    ("permessage-deflate=1", None),
    ("permessage-deflate\n", None),
    ("permessage-deflate\xa0", None),
    ("permessage-bzip2, x-webkit-deflate-frame", None),
    # Several offers: the first one that will do, and nothing of the others
    ("foo, permessage-deflate", PMD),
    ("permessage-deflate, permessage-deflate; server_no_context_takeover", PMD),
    ("permessage-deflate; server_no_context_takeover, permessage-deflate", SERVER_FLAG),
    ("permessage-deflate; client_max_window_bits=15, permessage-deflate", BITS_12),
    ("permessage-deflate; client_max_window_bits=8, permessage-deflate", PMD),
    ("permessage-deflate; server_no_context_takeover; foo, permessage-deflate", PMD),
    ("permessage-deflate; foo, permessage-deflate; bar", None),
    (
        (
            "permessage-deflate; server_max_window_bits=8, "
            "permessage-deflate; server_max_window_bits=16, "
            "permessage-deflate; server_max_window_bits=13"
        ),
        SERVER_12,
    ),
]

MALFORMED = [
    '"',
    '"\\',
    "\\",
    ";",
    ",",
    "=",
    " ",
    "\t;",
    "a",
    "a=",
    'a="',
    '"a"b',
    '";"',
    "permessage-deflate;",
    "permessage-deflate; =",
    'permessage-deflate; client_max_window_bits="1',
    "permessage-deflate; client_max_window_bits=1 ",
]

HELLO = bytes.fromhex("f248cdc9c90700")
"""RFC 7692 7.2.3.1: "Hello" in one block."""

AGAIN = bytes.fromhex("f200110000")
"""RFC 7692 7.2.3.2: "Hello" after "Hello", by reference to it."""

FINAL = bytes.fromhex("f348cdc9c90700")
"""RFC 7692 7.2.3.4: "Hello" in a block with BFINAL, without the empty block after it."""


def agreed(**parameters):
    return PerMessageDeflate(Parameters(**parameters), 100_000)


def compressed(*payloads):
    """Binary messages, each of one compressed frame."""
    return [wire.frame(2, payload, rsv=4) for payload in payloads]


def inflated(extension, frames):
    """What wsproto makes of ``frames`` with the extension in use: the messages, and a close code.

    Control frames are left out.
    """
    connection = Connection(SERVER, [extension])
    messages = [b""]
    for frame in frames:
        connection.receive_data(frame)
        for event in connection.events():
            if isinstance(event, CloseConnection):
                return messages[:-1], event.code
            if isinstance(event, BytesMessage):
                messages[-1] += event.data
                if event.message_finished:
                    messages.append(b"")
    return messages[:-1], None


def deflated(extension, *messages):
    """The payloads of the compressed messages that go out."""
    return [extension.deflate(message) + extension.flush() for message in messages]


def noise(size):
    """Bytes that do not compress, the same ones each time."""
    return random.Random(size).randbytes(size)


def read_narrowly(client, payload):
    """Inflate so that only the window can be looked back into, and not the output's buffer."""
    message = b""
    data = payload + b"\x00\x00\xff\xff"
    while data or client.unconsumed_tail:
        message += client.decompress(data, 1)
        data = client.unconsumed_tail
    while piece := client.decompress(b"", 1):
        message += piece
    return message


# Negotiation


@pytest.mark.parametrize("offer, answer", OFFERS)
def test_an_offer_is_answered_to_the_letter_or_declined(offer, answer):
    agreed_on = negotiate(offer)
    assert (agreed_on and agreed_on.response) == answer


@pytest.mark.parametrize(
    "offer, expected",
    [
        (PMD, Parameters(False, False, 12, 15, PMD)),
        (BITS_12, Parameters(False, False, 12, 12, BITS_12)),
        (
            "permessage-deflate; server_no_context_takeover; client_max_window_bits=10",
            Parameters(
                True,
                False,
                12,
                10,
                "permessage-deflate; server_no_context_takeover; client_max_window_bits=10",
            ),
        ),
        (
            "permessage-deflate; client_no_context_takeover; server_max_window_bits=11",
            Parameters(
                False,
                True,
                11,
                15,
                "permessage-deflate; client_no_context_takeover; server_max_window_bits=11",
            ),
        ),
    ],
)
def test_what_is_answered_is_what_is_done(offer, expected):
    assert negotiate(offer) == expected


@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize("side", ["server", "client"])
def test_a_window_is_never_wider_than_offered(side, bits):
    agreed_on = negotiate(f"permessage-deflate; {side}_max_window_bits={bits}")
    windows = {
        "server": agreed_on.server_max_window_bits,
        "client": agreed_on.client_max_window_bits,
    }
    assert windows[side] == min(bits, 12)
    assert agreed_on.response == f"permessage-deflate; {side}_max_window_bits={min(bits, 12)}"


@pytest.mark.parametrize("unit", MALFORMED)
def test_16_kib_of_a_malformed_header_are_declined(unit):
    assert negotiate((unit * 16384)[:16384]) is None


@pytest.mark.parametrize("unit", [",", ", ", "a,", ";", "a;", '"",'])
def test_a_header_four_times_as_long_takes_about_four_times_as_long(unit):
    """And not sixteen: by the least of some CPU times, whatever else the machine does."""

    def least(size: int) -> float:
        header, times = unit * (size // len(unit)), []
        for _ in range(10):
            begun = time.thread_time()
            negotiate(header)
            times.append(time.thread_time() - begun)
        return min(times)

    assert least(65536) < 10 * least(16384)


# Messages that come in


@pytest.mark.parametrize(
    "frames, messages",
    [
        # RFC 7692 7.2.3.1: one block, in one frame and in two
        (compressed(HELLO), [b"Hello"]),
        ([wire.frame(2, HELLO[:3], fin=False, rsv=4), wire.frame(0, HELLO[3:])], [b"Hello"]),
        # 7.2.3.2: the second message refers to the first
        (compressed(HELLO, AGAIN), [b"Hello", b"Hello"]),
        # 7.2.3.3: a block without compression
        (compressed(bytes.fromhex("000500faff48656c6c6f00")), [b"Hello"]),
        # 7.2.3.4: a block with BFINAL
        (compressed(bytes.fromhex("f348cdc9c9070000")), [b"Hello"]),
        # 7.2.3.5: two blocks in one message
        (compressed(bytes.fromhex("f24805000000ffffcac9c90700")), [b"Hello"]),
        # 7.2.3.6: an empty message
        (compressed(b"\x00"), [b""]),
        (compressed(b"\x00", HELLO, b"\x00", HELLO), [b"", b"Hello", b"", b"Hello"]),
        # A message that is not compressed, between two that are
        (
            [*compressed(HELLO), wire.frame(2, HELLO), *compressed(AGAIN)],
            [b"Hello", HELLO, b"Hello"],
        ),
    ],
)
def test_the_messages_of_the_rfc_are_inflated_in_every_cut(frames, messages):
    for pieces in wire.cuts(b"".join(frames)):
        assert inflated(agreed(), pieces) == (messages, None)


@pytest.mark.parametrize(
    "payloads, messages",
    [
        ([FINAL], [b"Hello"]),
        ([FINAL + b"\x00", FINAL + b"\x00"], [b"Hello", b"Hello"]),
        ([FINAL, FINAL], [b"Hello", b"Hello"]),
        ([FINAL, HELLO, HELLO], [b"Hello", b"Hello", b"Hello"]),
        ([HELLO, FINAL, HELLO], [b"Hello", b"Hello", b"Hello"]),
        ([FINAL + FINAL], [b"HelloHello"]),
        ([FINAL * 3 + b"\x00", HELLO], [b"HelloHelloHello", b"Hello"]),
        ([FINAL + HELLO, HELLO], [b"HelloHello", b"Hello"]),
        ([b"\x03\x00", HELLO], [b"", b"Hello"]),
        ([b"\x03\x00" * 100, HELLO], [b"", b"Hello"]),
        ([b"\x01", HELLO], [b"", b"Hello"]),  # what is put back at the end ends it
    ],
)
@pytest.mark.parametrize("no_takeover", [False, True])
def test_a_block_with_bfinal_ends_neither_message_nor_compression(payloads, messages, no_takeover):
    for pieces in wire.cuts(b"".join(compressed(*payloads))):
        extension = agreed(client_no_context_takeover=no_takeover)
        assert inflated(extension, pieces) == (messages, None)


def test_the_window_goes_on_after_the_last_block_with_bfinal():
    frames = compressed(FINAL + HELLO, AGAIN)
    assert inflated(agreed(), frames) == ([b"HelloHello", b"Hello"], None)


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff",
        b"\x07",  # a block of the type that there is not
        b"\x00\x05\x00\x00\x00Hello",  # the length of a stored block, and not its complement
        b"\xf2\x48\xcd\xc9\xc9\x07\xff\xff\xff\xff",
        AGAIN,  # refers to a message that was never sent
        FINAL + b"\xff",
        FINAL + AGAIN,  # refers to what a block with BFINAL has ended
        b"\x78\x9c" + HELLO,  # the header of zlib's own format
        b"Hello",
    ],
)
def test_what_does_not_inflate_is_1007_in_every_cut(payload):
    for pieces in wire.cuts(b"".join(compressed(payload, HELLO))):
        assert inflated(agreed(), pieces) == ([], 1007)


DYNAMIC = wire.deflate(bytes(range(64)) * 3 + b"the quick brown fox" * 9)


@pytest.mark.parametrize("payload", [HELLO, FINAL, DYNAMIC], ids=["fixed", "last", "dynamic"])
def test_a_message_whose_end_is_missing_is_1007_wherever_it_was_cut(payload):
    for end in range(1, len(payload)):
        assert inflated(agreed(), compressed(payload[:end])) == ([], 1007)


@pytest.mark.parametrize("payload", [b"\x03", FINAL[:-1]])
def test_a_block_with_bfinal_that_lacks_its_end_is_1007_and_not_the_message_after_it(payload):
    """What was put back ended it, and the rest of that was taken for the next message's."""
    for pieces in wire.cuts(b"".join(compressed(HELLO, payload, HELLO))):
        assert inflated(agreed(), pieces) == ([b"Hello"], 1007)


def test_a_compressed_message_without_a_byte_is_an_empty_one_and_harms_no_later_one():
    """A sender whose zlib has nothing to flush sends it (7.2.3.6 asks for one byte)."""
    frames = compressed(b"", HELLO, b"", b"", AGAIN)
    assert inflated(agreed(), frames) == ([b"", b"Hello", b"", b"", b"Hello"], None)


@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize("no_takeover", [False, True])
def test_what_a_client_deflates_with_the_agreed_window_is_inflated(bits, no_takeover):
    message = noise(2**bits - 300) * 2
    client = zlib.compressobj(wbits=-bits)
    payloads = [wire.deflate(message, client)]
    if no_takeover:
        client = zlib.compressobj(wbits=-bits)
    payloads.append(wire.deflate(message, client))
    extension = agreed(client_max_window_bits=bits, client_no_context_takeover=no_takeover)
    assert inflated(extension, compressed(*payloads)) == ([message, message], None)


def test_a_client_that_agreed_to_no_context_may_not_refer_to_an_earlier_message():
    extension = agreed(client_no_context_takeover=True)
    frames = compressed(HELLO, AGAIN)
    assert inflated(extension, frames) == ([b"Hello"], 1007)


@pytest.mark.parametrize(
    "message", [b"\x00" * 1000, noise(1000), b"echo " * 200], ids=["zeros", "noise", "words"]
)
@pytest.mark.parametrize("limit, code", [(1001, None), (1000, None), (999, 1009), (998, 1009)])
def test_the_limit_is_on_the_inflated_bytes_to_the_byte(message, limit, code):
    payload = wire.deflate(message)
    third = len(payload) // 3
    fragments = [wire.frame(2, payload[:third], fin=False, rsv=4), wire.frame(0, payload[third:])]
    byte_by_byte = [bytes([byte]) for byte in b"".join(fragments)]
    for frames in (compressed(payload), fragments, byte_by_byte):
        extension = PerMessageDeflate(Parameters(), limit)
        assert inflated(extension, frames) == ([] if code else [message], code)


@pytest.mark.parametrize("limit, code", [(20, 1007), (19, 1009), (18, 1009)])
def test_too_much_before_data_that_does_not_inflate_is_1009_in_every_cut(limit, code):
    """zlib tells of the error and keeps back what came before it."""
    payload = wire.deflate(b"a" * 20) + b"\x00\x00\xff\xff\x07"
    for pieces in wire.cuts(b"".join(compressed(payload))):
        assert inflated(PerMessageDeflate(Parameters(), limit), pieces) == ([], code)


def test_a_bomb_is_refused_before_it_has_taken_memory():
    client = zlib.compressobj(wbits=-15)
    bomb = b"".join(client.compress(bytes(2**20)) for _ in range(32)) + wire.deflate(b"", client)
    assert len(bomb) < 40_000
    extension = PerMessageDeflate(Parameters(), 100_000)
    frames = compressed(bomb)
    tracemalloc.start()
    try:
        assert inflated(extension, frames) == ([], 1009)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("length, code", [(3024, None), (3025, 1009), (2**62, 1009)])
def test_what_must_inflate_to_too_much_is_refused_at_its_header(length, code):
    header = wire.header(2, length, rsv=4)
    assert inflated(PerMessageDeflate(Parameters(), 1000), [header]) == ([], code)


def test_rsv1_may_stand_on_the_first_frame_of_a_message_only():
    first = wire.frame(2, HELLO[:3], fin=False, rsv=4)
    for second in (wire.frame(0, HELLO[3:], rsv=4), wire.frame(9, b"", rsv=4)):
        assert inflated(agreed(), [first, second]) == ([], 1002)


def test_the_extension_is_in_use_from_the_start_and_offers_nothing():
    extension = agreed()
    assert extension.name == "permessage-deflate"
    assert extension.enabled()
    assert not extension.offer()


def test_the_extension_tells_whether_the_present_message_is_compressed():
    frames = [
        (wire.frame(2, HELLO[:3], fin=False, rsv=4), True),
        (wire.frame(9, b"ping"), True),
        (wire.frame(0, HELLO[3:]), True),
        (wire.frame(2, b"Hello"), False),
    ]
    for number, (_, expected) in enumerate(frames, 1):
        extension = agreed()
        inflated(extension, [frame for frame, _ in frames[:number]])
        assert extension.compressed is expected


# Messages that go out


def test_what_goes_out_is_what_the_rfc_shows():
    assert deflated(agreed(), b"Hello", b"Hello") == [HELLO, AGAIN]


def test_without_context_every_message_goes_out_alike():
    extension = agreed(server_no_context_takeover=True)
    assert deflated(extension, b"Hello", b"", b"Hello") == [HELLO, b"\x00", HELLO]


def test_an_empty_message_goes_out_as_one_byte():
    extension = agreed()
    assert deflated(extension, b"", b"", b"Hello", b"", b"") == [
        b"\x00",
        b"\x00",
        HELLO,
        b"\x00",
        b"\x00",
    ]


def test_a_message_of_no_parts_goes_out_as_an_empty_one():
    assert agreed().flush() == b"\x00"


def test_a_message_may_be_deflated_in_parts():
    extension = agreed()
    payload = b"".join(map(extension.deflate, [b"He", b"", b"llo"])) + extension.flush()
    assert payload == HELLO


@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize("no_takeover", [False, True])
def test_a_client_with_exactly_the_agreed_window_reads_what_goes_out(bits, no_takeover):
    far = noise(2**bits + 100) * 2 + noise(2**bits - 300) * 2
    messages = [far, b"", far, b"Hello"]
    extension = agreed(server_max_window_bits=bits, server_no_context_takeover=no_takeover)
    client = zlib.decompressobj(-bits)
    for message, payload in zip(messages, deflated(extension, *messages), strict=True):
        if no_takeover:
            client = zlib.decompressobj(-bits)
        assert read_narrowly(client, payload) == message


def test_that_test_would_notice_a_window_that_is_too_wide():
    far = noise(2000) * 2
    with pytest.raises(zlib.error, match="too far back"):
        read_narrowly(zlib.decompressobj(-9), wire.deflate(far))


def test_the_way_back_to_an_error_does_not_copy_what_it_inflates_again_and_again():
    """Bytes appended to bytes, 4 KiB of input would copy 8 GiB."""
    zeros = zlib.compressobj(wbits=-15)
    payload = zeros.compress(bytes(4_000_000)) + zeros.flush(zlib.Z_SYNC_FLUSH) + b"\x07"
    extension = PerMessageDeflate(Parameters(), 4_100_000)
    tracemalloc.start()
    try:
        assert inflated(extension, compressed(payload)) == ([], 1007)
        assert tracemalloc.get_traced_memory()[1] < 3 * 4_100_000
    finally:
        tracemalloc.stop()
