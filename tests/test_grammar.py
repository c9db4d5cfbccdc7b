"""What almost valid handshakes and frames come to, as the fault in them has it.

The grammars are in `tests.grammar`; what is expected is known from how an input was made.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import zlib
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from echo_service import codec
from echo_service.compression import Parameters
from echo_service.session import Session
from echo_service.testing import running
from fuzz import handshake
from tests import wire
from tests.grammar import frames, handshakes
from tests.test_laws import AGREED, bytewise, cut
from tests.wire import CLOSE


def law(examples, *, chance=False):
    """So many examples, always alike or by chance."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    return settings(
        derandomize=not chance, deadline=None, max_examples=examples, suppress_health_check=slow
    )


# Handshakes

OPTIONS = 7
"""Compression, the subprotocols and the origins that the grammar reckons with."""


def decided(data, sent):
    """What is decided on a request, however it is cut: status, fields, body, rest; or None."""
    decision = handshake.decide(OPTIONS, [sent])
    for pieces in (bytewise(sent) if len(sent) < 2000 else [sent], data.draw(cut(sent))):
        assert handshake.decide(OPTIONS, list(filter(None, pieces))) == decision
    if decision is None:
        return None
    answer, _, rest = decision
    head, _, body = answer.partition(b"\r\n\r\n")
    return (*handshake.read(head), body, rest)


def accepted(data, head, after=b"\x89\x80 no frame yet"):
    """The extension that is agreed on by a head that must be accepted."""
    status, fields, body, rest = decided(data, head.encode() + after)
    assert (status, body, rest) == (101, b"", after)
    return opened(head, fields)


def opened(head, fields):
    """Hold the fields of a 101 against its request (RFC 6455 4.2.2); the extension."""
    digest = hashlib.sha1((head.key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    expected = {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-accept": base64.b64encode(digest).decode(),
    }
    chosen = [name for name in head.subprotocols if name in handshakes.SPOKEN]
    if chosen:
        expected["sec-websocket-protocol"] = chosen[0]
    extension = fields.pop("sec-websocket-extensions", None)
    assert fields == expected
    return extension


def agreement(extension, offers):
    """Hold what is agreed on against the first good offer (RFC 7692 7.1)."""
    offer = next((each.parameters for each in offers if each.parameters is not None), None)
    if offer is None:
        assert extension is None
        return None
    name, *answers = extension.split("; ")
    given = dict([*each.split("="), None][:2] for each in answers)
    assert name == "permessage-deflate"
    assert list(given) == [each for each in handshakes.PARAMETERS if each in offer]
    for window in {"server_max_window_bits", "client_max_window_bits"} & offer.keys():
        assert 9 <= int(given[window]) <= int(offer[window] or 15)
    return {each: int(value) if value else True for each, value in given.items()}


def refused(data, sent, statuses):
    """Hold that it is refused with one of these statuses, and told so well."""
    status, fields, body, _ = decided(data, sent)
    assert status in statuses
    assert fields["connection"].split(", ")[0] == "close"
    assert body.isascii()
    assert int(fields["content-length"]) == len(body) or sent.startswith(b"HEAD ")
    if status == 426:
        assert fields["upgrade"] == "websocket"
    if status == 405:
        assert fields["allow"].startswith("GET")
    return fields


def check_handshake(data):
    head = data.draw(handshakes.heads())
    agreement(accepted(data, head), head.offers)


def check_faulty_handshake(data, label):
    head = data.draw(handshakes.faulty_heads(label))
    fields = refused(data, head.encode(), handshakes.FAULTS[label].statuses)
    assert label != "another version" or fields["sec-websocket-version"] == "13"
    assert label != "another method" or fields["allow"] == "GET"


def check_twice_faulty_handshake(data):
    head, statuses = data.draw(handshakes.twice_faulty_heads())
    refused(data, head.encode(), statuses)


@law(60)
@given(data=st.data())
def test_a_handshake_without_a_fault_is_accepted(data):
    check_handshake(data)


@pytest.mark.parametrize("label", handshakes.FAULTS)
@law(4)
@given(data=st.data())
def test_a_faulty_handshake_is_refused_with_its_status(label, data):
    check_faulty_handshake(data, label)


@law(60)
@given(data=st.data())
def test_a_handshake_with_two_faults_is_refused_for_one_of_them(data):
    check_twice_faulty_handshake(data)


@pytest.mark.parametrize("label", handshakes.WRONG_OFFERS)
@law(4)
@given(data=st.data())
def test_a_faulty_offer_is_declined_and_the_next_one_taken(label, data):
    head = data.draw(handshakes.heads())
    wrong = handshakes.Offer(data.draw(st.sampled_from(handshakes.WRONG_OFFERS[label])))
    good = data.draw(handshakes.good_offers())
    for offers in ([wrong], [wrong, good], [good, wrong]):
        head.put(data.draw, "Sec-WebSocket-Extensions", *(offer.text for offer in offers))
        agreement(accepted(data, head), offers)


@law(20)
@given(data=st.data())
def test_a_handshake_that_is_not_whole_is_waited_for(data):
    sent = data.draw(handshakes.heads()).encode()
    assert decided(data, sent[: data.draw(st.integers(1, len(sent) - 1))]) is None


# Frames

CODECS = [codec.PYTHON, None, *filter(None, [codec.COMPILED])]
"""None is the session in which wsproto has every byte."""


def first(answer):
    """The payload of the first frame, which is whole."""
    size = {126: 2, 127: 8}.get(answer[1], 0)
    length = int.from_bytes(answer[2 : 2 + size], "big") if size else answer[1]
    assert len(answer) >= 2 + size + length
    return answer[2 + size : 2 + size + length]


def hold(answer, expected, agreed):
    """Hold what came back, byte by byte, against what was expected."""
    inflater = None
    for opcode, payload, compressed in expected.answers:
        if compressed:
            back = first(answer)
            if inflater is None or agreed.server_no_context_takeover:
                inflater = zlib.decompressobj(-agreed.server_max_window_bits)
            assert wire.inflate(back, inflater) == payload
        else:
            back = payload
        echo = wire.header(opcode, len(back), rsv=4 * compressed, masked=False) + back
        assert answer.startswith(echo), (answer, opcode, payload)
        answer = answer[len(echo) :]
    if not expected.codes:
        assert answer == b""
        return
    (close,) = wire.parse(answer)
    assert close.opcode == CLOSE
    assert int.from_bytes(close.payload[:2], "big") in expected.codes, (close, expected.codes)
    assert "RFC " in close.payload[2:].decode()
    assert len(close.payload) <= 125


def judge(data, sent, expected, agreed, limit=frames.LIMIT):
    """Hold it against what every session answers, however it is cut."""
    step = len(sent) // 100 + 1
    small = [sent[at : at + step] for at in range(0, len(sent), step)]
    ways = [sent], small, data.draw(cut(sent))
    has_closed = any(answer.opcode == CLOSE for answer in expected.answers)
    for each in CODECS:
        for pieces in ways:
            session = Session(limit, agreed, each)
            hold(wire.feed(session, pieces), expected, agreed)
            assert (session.verdict is not None) == (has_closed or bool(expected.codes))


def check_frames(data):
    agreed = data.draw(st.sampled_from(AGREED))
    judge(data, *frames.right(data.draw(frames.conversations(agreed))), agreed)


def check_faulty_frame(data, label):
    agreed = data.draw(
        st.sampled_from([each for each in AGREED if label in frames.labels(each is not None)])
    )
    judge(data, *data.draw(frames.faulty(agreed, label)), agreed)


def check_twice_faulty_frames(data):
    agreed = data.draw(st.sampled_from(AGREED))
    judge(data, *data.draw(frames.twice_faulty(agreed)), agreed)


@law(60)
@given(data=st.data())
def test_frames_without_a_fault_come_back_byte_by_byte(data):
    check_frames(data)


@pytest.mark.parametrize("label", frames.FAULTS)
@law(3)
@given(data=st.data())
def test_a_faulty_frame_is_answered_with_its_code(label, data):
    check_faulty_frame(data, label)


@law(60)
@given(data=st.data())
def test_of_two_faulty_frames_the_first_is_answered(data):
    check_twice_faulty_frames(data)


@law(30)
@given(data=st.data())
def test_a_frame_that_is_not_whole_is_waited_for(data):
    agreed = data.draw(st.sampled_from(AGREED))
    judge(data, *data.draw(frames.cut_off(agreed)), agreed)


@pytest.mark.parametrize("size", [65535, 65536, 70_000])
@law(3)
@given(data=st.data())
def test_a_large_message_comes_back_byte_by_byte(size, data):
    agreed = data.draw(st.sampled_from(AGREED))
    steps = data.draw(frames.messages(agreed, size))
    judge(data, *frames.right(steps), agreed, size)


# A handshake and what follows it, over a socket


@pytest.fixture(scope="module", params=[True, False], ids=["lane", "no lane"])
def port(request):
    """Where a service listens, with the lane and without."""
    options = {"max_message_size": frames.LIMIT, "fast_lane": request.param}
    options |= {"subprotocol": handshakes.SPOKEN, "allow_origin": handshakes.ALLOWED}
    with running(**options) as server:
        yield int(server.urls[0].rpartition(":")[2])


def check_connection(data, port):
    """A client that keeps to the RFCs but for one fault, from its first byte to the last."""
    head = data.draw(handshakes.heads())
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as client,
        client.makefile("rb") as stream,
    ):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(head.encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += stream.read(1)
        status, fields = handshake.read(answer[:-4])
        assert status == 101
        agreed = agreement(opened(head, fields), head.offers)
        agreed = None if agreed is None else Parameters(**agreed)
        labels = frames.labels(agreed is not None)
        sent, expected = data.draw(
            frames.conversations(agreed).map(frames.right)
            | st.sampled_from(labels).flatmap(lambda label: frames.faulty(agreed, label))
        )
        for piece in data.draw(cut(sent)):
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        hold(stream.read(), expected, agreed)


@law(40)
@given(data=st.data())
def test_a_connection_is_answered_as_its_frames_have_it(port, data):
    check_connection(data, port)


# By chance, and many more


def check_any(data, whole, faulty, labels):
    """One of the checks of ``whole``, or of an input that is ``faulty`` in one of these ways."""
    check = data.draw(st.sampled_from([*whole, *(partial(faulty, label=each) for each in labels)]))
    check(data)


@pytest.mark.exhaustive
@law(1000, chance=True)
@given(data=st.data())
def test_the_same_of_many_more_handshakes(data):
    whole = [check_handshake, check_twice_faulty_handshake]
    check_any(data, whole, check_faulty_handshake, handshakes.FAULTS)


@pytest.mark.exhaustive
@law(1000, chance=True)
@given(data=st.data())
def test_the_same_of_many_more_frames(data):
    check_any(data, [check_frames, check_twice_faulty_frames], check_faulty_frame, frames.FAULTS)


@pytest.mark.exhaustive
@law(300, chance=True)
@given(data=st.data())
def test_the_same_of_many_more_connections(port, data):
    check_connection(data, port)
