"""permessage-deflate: what an answer may say, and the client's side."""

from __future__ import annotations

import zlib

import pytest

from echo_service.check.agreement import Deflate, parameters, wrong
from echo_service.check.judge import Verdict
from echo_service.check.row import DecidedError
from echo_service.check.wire import Came, Frame, least_length, take


@pytest.mark.parametrize(
    "offer, answer, words",
    [
        ("", "", ""),
        ("", "server_max_window_bits=12", ""),
        ("", 'server_max_window_bits="12"', ""),
        ("", "server_no_context_takeover; client_no_context_takeover", ""),
        ("server_max_window_bits=10", "server_max_window_bits=10", ""),
        ("server_max_window_bits=10", "server_max_window_bits=9", ""),
        ("server_max_window_bits=10", "server_max_window_bits=11", "more than was offered"),
        ("server_max_window_bits=10", "", "asked for and is missing"),
        ("server_no_context_takeover", "", "asked for and is missing"),
        ("client_no_context_takeover", "", ""),
        ("client_max_window_bits", "", ""),
        ("client_max_window_bits", "client_max_window_bits=8", ""),
        ("client_max_window_bits=9", "client_max_window_bits=10", "more than was offered"),
        ("client_max_window_bits", "client_max_window_bits", "not 8 to 15"),
        ("", "client_max_window_bits=15", "was not offered"),
        ("", "server_max_window_bits=7", "not 8 to 15"),
        ("", "server_max_window_bits=16", "not 8 to 15"),
        ("", "server_max_window_bits=09", "not 8 to 15"),
        ("", "server_max_window_bits", "not 8 to 15"),
        ("", "server_no_context_takeover=1", "has a value"),
        ("", "other", "unknown or doubled"),
        ("", "server_max_window_bits=9; server_max_window_bits=9", "unknown or doubled"),
    ],
)
def test_an_answer_says_only_what_the_offer_allows(offer: str, answer: str, words: str):
    offered, _ = parameters(f"permessage-deflate; {offer}" if offer else "permessage-deflate")
    agreed, unknown = parameters(
        f"permessage-deflate; {answer}" if answer else "permessage-deflate"
    )
    found = unknown or wrong(offered, agreed)
    assert words in found
    assert bool(words) == bool(found)


def deflated(payload: bytes, bits: int = 15, deflater=None) -> Frame:
    deflater = deflater or zlib.compressobj(wbits=-bits)
    data = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
    data = data.removesuffix(b"\x00\x00\xff\xff")
    return Frame(1, data, rsv=4, length=least_length(len(data)))


def test_messages_refer_to_those_before_and_to_greetings():
    deflater = zlib.compressobj(wbits=-15)
    greeting, first, second = (deflated(b"Hello" * 9, deflater=deflater) for _ in range(3))
    read = Deflate({}, [greeting]).read(Came([first, Frame(10, b""), second]))
    whole = Frame(1, b"Hello" * 9)
    assert read.frames == [whole, Frame(10, b""), whole]


@pytest.mark.parametrize(
    "agreed, frames, words",
    [
        ({}, [Frame(1, b"\xff\xff", rsv=4)], "does not inflate"),
        ({}, [Frame(1, b"", rsv=2)], "reserved bit"),
        ({}, [Frame(9, b"", rsv=4)], "reserved bit"),
    ],
)
def test_what_is_not_as_agreed_is_a_failure(agreed, frames, words):
    with pytest.raises(DecidedError) as caught:
        Deflate(agreed).read(Came(frames))
    assert caught.value.judgement.verdict is Verdict.FAIL
    assert words in caught.value.judgement.why


def test_a_window_larger_than_agreed_is_seen():
    far = bytes(range(256)) * 4 + zlib.compress(bytes(3000), 0) + bytes(range(256)) * 4
    assert Deflate({}).read(Came([deflated(far)])).frames[0].payload == far
    with pytest.raises(DecidedError):
        Deflate({"server_max_window_bits": "9"}).read(Came([deflated(far)]))


def test_a_context_that_was_to_be_forgotten_is_seen():
    deflater = zlib.compressobj(wbits=-15)
    frames = [deflated(b"Hello, Hello", deflater=deflater) for _ in range(2)]
    assert len(Deflate({}).read(Came(frames)).frames) == 2
    with pytest.raises(DecidedError):
        Deflate({"server_no_context_takeover": None}).read(Came(frames))


@pytest.mark.parametrize("agreed", [{}, {"client_no_context_takeover": None}])
def test_what_is_sent_is_deflated_as_agreed(agreed):
    deflate = Deflate(agreed)
    sizes = [
        len(taken[0].payload) for _ in range(2) if (taken := take(deflate.message(b"Hello" * 9)))
    ]
    assert (sizes[0] == sizes[1]) == bool(agreed)


@pytest.mark.parametrize("agreed", [{}, {"server_max_window_bits": "9"}], ids=str)
def test_what_inflates_to_more_than_was_sent_is_a_failure(agreed):
    payload = bytes(3 << 20)
    bits = int(agreed.get("server_max_window_bits", 15))
    bomb = deflated(payload, bits)
    for frames, greetings in (([bomb], []), ([], [bomb])):
        with pytest.raises(DecidedError) as caught:
            Deflate(agreed, greetings).read(Came(frames))
        assert caught.value.judgement.verdict is Verdict.FAIL
        assert caught.value.judgement.why == "it inflates to more than was sent"
    deflate = Deflate(agreed)
    deflate.deflate(payload)
    assert deflate.read(Came([bomb])).frames[0].payload == payload


class Counting:
    """An inflater that counts how many bytes it is given, again or not, and gives out at once."""

    def __init__(self, inflater) -> None:
        self._inflater = inflater
        self.given = self.largest = 0

    def decompress(self, data: bytes, most: int) -> bytes:
        self.given += len(data)
        found = self._inflater.decompress(data, most)
        self.largest = max(self.largest, len(found))
        return found

    def __getattr__(self, name: str):
        return getattr(self._inflater, name)


@pytest.mark.parametrize("bits", [9, 15])
@pytest.mark.parametrize("payload", [bytes(300_000), bytes(range(256)) * 400], ids=len)
def test_what_is_inflated_is_gone_through_once(bits: int, payload: bytes):
    deflate = Deflate({"server_max_window_bits": str(bits)})
    deflate._inflater = inflater = Counting(zlib.decompressobj(-bits))
    (whole,) = deflate.read(Came([deflated(payload, bits)])).frames
    assert whole.payload == payload
    assert inflater.given <= len(payload) + len(deflated(payload, bits).payload) + 4
    assert inflater.largest <= 65536
