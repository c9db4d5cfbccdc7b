"""What comes in by way of wsproto, as the extension sees it: held, judged, and told."""

from __future__ import annotations

import pytest
from wsproto.connection import SERVER, Connection
from wsproto.events import CloseConnection

from echo_service import intake
from echo_service.compression import Parameters, PerMessageDeflate
from echo_service.intake import Intake
from echo_service.policy import Violation
from tests import wire
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, TEXT

LIMIT = 1000

EURO = "€".encode()


def deflating():
    return PerMessageDeflate(Parameters(), LIMIT)


def taken(sent, deflate=None, limit=LIMIT):
    """What has taken these bytes, whole and byte by byte alike."""
    made = [Intake(limit, each) for each in (deflate, deflating() if deflate else None)]
    for each, pieces in zip(
        made, ([sent], [sent[i : i + 1] for i in range(len(sent))]), strict=True
    ):
        connection = Connection(SERVER, [each])
        for piece in pieces:
            connection.receive_data(piece)
            if any(isinstance(event, CloseConnection) for event in connection.events()):
                break
    whole, bytewise = made
    assert (whole.violation, whole.close) == (bytewise.violation, bytewise.close)
    return whole


def test_it_is_always_on_and_offers_nothing():
    assert Intake(LIMIT, None).enabled()
    assert not Intake(LIMIT, None).offer()


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_is_put_together_from_its_fragments(opcode):
    sent = wire.frame(opcode, b"a" + EURO[:1], fin=False) + wire.frame(PING, b"amid")
    sent += wire.frame(CONTINUATION, EURO[1:])
    there = taken(sent)
    assert there.is_text == (opcode == TEXT)
    assert there.size == 4
    assert there.take() == (b"a" + EURO, False)
    assert there.take() == (b"", False)


def test_a_compressed_message_is_deflated_again_as_it_comes():
    deflated = wire.deflate(b"Hello")
    sent = wire.frame(TEXT, deflated[:3], fin=False, rsv=4) + wire.frame(CONTINUATION, deflated[3:])
    there = taken(sent, deflating())
    assert there.size == 5
    message, compressed = there.take()
    assert compressed
    assert wire.inflate(bytes(message)) == b"Hello"


def test_a_whole_compressed_message_can_be_given_at_once():
    there = Intake(LIMIT, deflating())
    assert there.message(intake.Opcode.TEXT, wire.deflate(b"Hello")) is None
    assert wire.inflate(bytes(there.take()[0])) == b"Hello"
    assert there.message(intake.Opcode.BINARY, b"\x07") is Violation.DEFLATE


def test_the_close_is_kept_as_it_came():
    assert taken(wire.close(1004, b"why")).close == b"\x03\xecwhy"
    assert taken(wire.frame(CLOSE, b"a")).close == b"a"
    assert taken(wire.frame(CLOSE)).close == b""
    assert taken(wire.frame(TEXT)).close is None


@pytest.mark.parametrize("size", [0, 125, 126, 65536])
def test_frames_that_are_complete_are_counted_with_their_headers(size):
    sent = wire.frame(PING, b"abc") + wire.frame(BINARY, bytes(size))
    there = taken(sent, limit=1 << 17)
    assert there.taken == len(sent)
    assert there.at_rest(len(sent))
    assert not there.at_rest(len(sent) + 1)
    assert not taken(wire.frame(TEXT, fin=False)).at_rest(6)


def test_what_is_missing_of_a_frame_is_told():
    assert taken(wire.frame(BINARY, b"Hello")[:-2]).missing == 2
    assert taken(wire.frame(BINARY, b"Hello")).missing == 0


VIOLATIONS = {
    "a continuation of nothing": (wire.frame(CONTINUATION), Violation.CONTINUATION_STRAY),
    "a message in a message": (
        wire.frame(TEXT, fin=False) + wire.frame(TEXT),
        Violation.CONTINUATION_MISSING,
    ),
    "too much announced": (wire.header(BINARY, LIMIT + 1), Violation.TOO_BIG),
    "too much in fragments": (
        wire.frame(BINARY, bytes(LIMIT), fin=False) + wire.header(CONTINUATION, 1),
        Violation.TOO_BIG,
    ),
    "no UTF-8": (wire.frame(TEXT, b"a\xff"), Violation.TEXT),
    "half a character": (wire.frame(TEXT, EURO[:2]), Violation.TEXT),
    "a surrogate, before its end": (wire.header(TEXT, 3) + wire.KEY + wire.mask(b"\xed\xa0"),
                                    Violation.TEXT),
}  # fmt: skip


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_is_told(name):
    sent, violation = VIOLATIONS[name]
    assert taken(sent + wire.KEY).violation is violation


DEFLATED = {
    "data that does not inflate": (BINARY, b"\x07", Violation.DEFLATE),
    "text that does not inflate": (TEXT, b"\x07", Violation.DEFLATED_TEXT),
    "data that ends too soon": (BINARY, wire.deflate(b"Hello")[:-2], Violation.DEFLATE),
    "text that is not UTF-8": (TEXT, wire.deflate(b"\xff"), Violation.DEFLATED_TEXT),
    "half a character": (TEXT, wire.deflate(EURO[:2]), Violation.DEFLATED_TEXT),
    "too much": (BINARY, wire.deflate(bytes(LIMIT + 1)), Violation.TOO_BIG),
}


@pytest.mark.parametrize("name", DEFLATED)
def test_a_violation_within_compression_is_told(name):
    opcode, payload, violation = DEFLATED[name]
    assert taken(wire.frame(opcode, payload, rsv=4), deflating()).violation is violation


def test_what_no_deflater_sends_is_refused_at_its_header():
    sent = wire.header(BINARY, 2 * LIMIT + 1025, rsv=4)
    assert taken(sent, deflating()).violation is Violation.TOO_BIG


def test_a_continuation_of_no_message_is_no_part_of_the_compressed_one_before_it():
    sent = wire.frame(BINARY, wire.deflate(b"a"), rsv=4)
    stray = wire.header(CONTINUATION, 2 * LIMIT + 1025) + wire.KEY
    assert taken(sent + stray, deflating()).violation is Violation.CONTINUATION_STRAY


def test_plain_messages_go_through_beside_compressed_ones():
    there = taken(
        wire.frame(BINARY, wire.deflate(b"a"), rsv=4) + wire.frame(BINARY, b"b"), deflating()
    )
    assert there.take()[1] is False


def test_more_fragments_than_allowed_are_refused(monkeypatch):
    monkeypatch.setattr(intake, "MAX_FRAGMENTS", 3)
    sent = wire.frame(BINARY, fin=False) + wire.frame(CONTINUATION, fin=False) * 2
    assert taken(sent + wire.frame(PING)).violation is None
    assert taken(sent + wire.frame(CONTINUATION)).violation is Violation.TOO_MANY_FRAGMENTS


def test_long_text_is_decoded_in_steps():
    text = EURO * 30_000
    there = taken(wire.frame(TEXT, text), limit=len(text))
    assert there.take() == (text, False)
