"""What wsproto and h11 do that one would not expect, and that the service does right.

Each test shows both; the library's half fails when the library has been mended, and then
there may be something to take out of the service.
"""

from __future__ import annotations

import codecs
import zlib

import h11
import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.connection import SERVER, Connection, ConnectionState
from wsproto.events import AcceptConnection, CloseConnection, TextMessage
from wsproto.extensions import PerMessageDeflate
from wsproto.utilities import RemoteProtocolError

from echo_service import upgrade
from echo_service.compression import Parameters, negotiate
from echo_service.policy import Ending
from echo_service.request import Refused, RequestReader
from echo_service.session import Session
from tests import wire

OFFER = "Sec-WebSocket-Extensions"

HELLO = bytes.fromhex("f248cdc9c90700")
"""RFC 7692 7.2.3.1: "Hello", compressed."""


def accepted_by_wsproto(request, *extensions):
    """What wsproto's own handshake says, as a server; raises whatever it raises."""
    connection = WSConnection(ConnectionType.SERVER)
    connection.receive_data(request)
    list(connection.events())
    return connection.send(AcceptConnection(extensions=list(extensions)))


def accepted(request):
    """What ours says."""
    return upgrade.accept(RequestReader().receive(request))


def refused(request):
    """The status that ours refuses with."""
    with pytest.raises(Refused) as caught:
        accepted(request)
    return caught.value.status


def events(connection, *pieces):
    """All events that wsproto makes of the pieces."""
    found = []
    for piece in pieces:
        connection.receive_data(piece)
        found += connection.events()
    return found


def deflating():
    """wsproto's own compression, agreed on."""
    extension = PerMessageDeflate()
    extension.accept("permessage-deflate")
    return Connection(SERVER, [extension])


# wsproto's events


def test_a_parse_failure_does_not_close_by_itself_and_leaves_the_parser_dead():
    library = Connection(SERVER)
    assert events(library, wire.frame(3)) == [CloseConnection(1002, "Invalid opcode 0x3")]
    assert library.state is ConnectionState.OPEN
    assert events(library, wire.close(1000)) == []

    session = Session(1000)
    assert wire.codes(session.receive(wire.frame(3))) == [1002]
    assert not session.awaits_close, "the peer's Close can't be told any more"


def test_a_real_close_with_1002_and_a_parse_failure_look_alike():
    real, failure = Connection(SERVER), Connection(SERVER)
    codes = [events(real, wire.close(1002))[0].code, events(failure, wire.frame(3))[0].code]
    assert codes == [1002, 1002]

    real, failure = Session(1000), Session(1000)
    assert real.receive(wire.close(1002)) == b"\x88\x02\x03\xea"
    assert real.verdict.ending is Ending.PEER_CLOSED
    failure.receive(wire.frame(3))
    assert failure.verdict.ending is Ending.PROTOCOL_ERROR


def test_1014_is_registered_but_rejected_while_1012_and_1013_are_not():
    answers = [events(Connection(SERVER), wire.close(code))[0] for code in (1012, 1013, 1014)]
    assert [answer.code for answer in answers] == [1012, 1013, 1002]

    answers = [Session(1000).receive(wire.close(code)) for code in (1012, 1013, 1014)]
    assert answers == [b"\x88\x02\x03\xf4", b"\x88\x02\x03\xf5", b"\x88\x02\x03\xf6"]


# wsproto's handshake


@pytest.mark.parametrize(
    "request_head, exception, status",
    [
        (
            wire.request("/", (OFFER, "permessage-deflate; client_max_window_bits=abc")),
            ValueError,
            None,
        ),
        (
            wire.request("/", (OFFER, 'permessage-deflate; client_max_window_bits="10"')),
            ValueError,
            None,
        ),
        (wire.request(Connection="Upgrade, \xe9"), UnicodeDecodeError, 400),
        (wire.request("/", (OFFER, "\xe9")), UnicodeDecodeError, 400),
        (wire.request("/", ("Sec-WebSocket-Protocol", "\xe9")), UnicodeDecodeError, 400),
        (wire.request(Host="xn--a"), UnicodeError, None),
    ],
)
def test_one_request_can_kill_a_server_that_catches_only_protocol_errors(
    request_head, exception, status
):
    with pytest.raises(exception) as caught:
        accepted_by_wsproto(request_head, PerMessageDeflate())
    assert not isinstance(caught.value, RemoteProtocolError)

    if status is None:
        assert accepted(request_head) is not None
    else:
        assert refused(request_head) == status


@pytest.mark.parametrize(
    "request_head, status",
    [
        (wire.request(Sec_WebSocket_Key="short"), 400),
        (wire.request("/", ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")), 400),
        (wire.request(version="HTTP/1.0"), 505),
        (wire.request("/", ("Content-Length", "5")), 400),
        (wire.request("/", ("Transfer-Encoding", "chunked")), 400),
    ],
)
def test_a_handshake_that_is_against_the_rfc_is_accepted(request_head, status):
    assert accepted_by_wsproto(request_head).startswith(b"HTTP/1.1 101 ")

    assert refused(request_head) == status


def test_two_legal_connection_headers_are_rejected():
    request = wire.request("/", ("Connection", "keep-alive"))
    with pytest.raises(RemoteProtocolError):
        accepted_by_wsproto(request)

    assert accepted(request) is not None


def test_frames_that_came_with_the_request_are_lost():
    library = WSConnection(ConnectionType.SERVER)
    library.receive_data(wire.request() + wire.frame(1, b"early"))
    list(library.events())
    library.send(AcceptConnection())
    assert list(library.events()) == []

    reader = RequestReader()
    assert reader.receive(wire.request() + wire.frame(1, b"early")) is not None
    assert Session(1000).receive(reader.trailing) == b"\x81\x05early"


# wsproto's compression


def test_compressed_data_is_inflated_without_bound():
    bomb = wire.frame(2, wire.deflate(bytes(2**22)), rsv=4)
    assert sum(len(event.data) for event in events(deflating(), bomb)) == 2**22

    assert wire.codes(Session(1000, Parameters()).receive(bomb)) == [1009]


def test_a_ping_between_compressed_fragments_ends_the_compression():
    frames = [
        wire.frame(1, HELLO[:3], fin=False, rsv=4),
        wire.frame(9, b"ping"),
        wire.frame(0, HELLO[3:]),
    ]
    assert events(deflating(), *frames)[-1].code == 1007

    answer = wire.feed(Session(1000, Parameters()), frames)
    assert wire.read(answer) == [(10, b"ping"), (1, b"Hello")]


def test_a_block_with_bfinal_makes_every_later_message_fail():
    frames = [
        wire.frame(2, bytes.fromhex("f348cdc9c9070000"), rsv=4),
        wire.frame(2, wire.deflate(b"later"), rsv=4),
    ]
    first, second = events(deflating(), *frames)
    assert (first.data, second.code) == (b"Hello", 1007)

    answer = wire.feed(Session(1000, Parameters()), frames)
    assert wire.read(answer) == [(2, b"Hello"), (2, b"later")]


@pytest.mark.parametrize(
    "offer",
    [
        "permessage-deflate; unknown",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover=true",
        "permessage-deflate; client_max_window_bitsize=10",
    ],
)
def test_an_unknown_doubled_or_malformed_parameter_is_accepted(offer):
    assert PerMessageDeflate().accept(offer) is not None

    assert negotiate(offer) is None


def test_what_one_offer_says_leaks_into_the_next():
    offers = "permessage-deflate; client_max_window_bits=10, permessage-deflate"
    library = PerMessageDeflate()
    answer = accepted_by_wsproto(wire.request("/", (OFFER, offers)), library)
    assert b"client_max_window_bits" not in answer
    assert library.client_max_window_bits == 10, "though it was answered without them"

    agreed = negotiate(offers)
    assert agreed.response == "permessage-deflate; client_max_window_bits=10"
    assert agreed.client_max_window_bits == 10
    far = bytes(range(256)) * 3
    client = zlib.compressobj(wbits=-10)
    session = Session(1000, agreed)
    for _ in range(2):
        frames = wire.frame(2, wire.deflate(far, client), rsv=4)
        assert session.receive(frames)[0] == 0xC2
    assert session.verdict is None


def test_one_extension_object_is_the_state_of_one_connection():
    shared = PerMessageDeflate()
    shared.accept("permessage-deflate")
    first, second = Connection(SERVER, [shared]), Connection(SERVER, [shared])
    begun = wire.frame(2, HELLO[:3], fin=False, rsv=4)
    assert events(first, begun)
    assert events(second, wire.frame(2, HELLO, rsv=4))[-1].data != b"Hello"

    agreed = Parameters()
    first, second = Session(1000, agreed), Session(1000, agreed)
    first.receive(begun)
    assert wire.read(second.receive(wire.frame(2, HELLO, rsv=4))) == [(2, b"Hello")]


# wsproto's frames


def test_a_length_of_2_to_the_62_is_waited_for():
    assert events(Connection(SERVER), wire.header(2, 2**62) + wire.KEY) == []

    assert wire.codes(Session(1000).receive(wire.header(2, 2**62))) == [1009]


def test_fragments_are_not_counted():
    begun = wire.frame(2, fin=False) + wire.frame(0, fin=False) * 131_072
    assert len(events(Connection(SERVER), begun)) == 131_073

    assert wire.codes(wire.take(Session(1000), begun)) == [1008]


def test_a_cut_inside_a_character_gives_an_empty_text_message():
    half, rest = wire.frame(1, "é".encode())[:-1], wire.frame(1, "é".encode())[-1:]
    expected = [
        TextMessage(data="", frame_finished=False, message_finished=False),
        TextMessage(data="é"),
    ]
    assert events(Connection(SERVER), half, rest) == expected

    session = Session(1000)
    assert session.receive(half) == b""
    assert session.receive(rest) == b"\x81\x02\xc3\xa9"


def test_the_end_of_the_stream_after_a_finished_close_invents_a_second_close():
    library = Connection(SERVER)
    [close] = events(library, wire.close(1000))
    library.send(close.response())
    assert events(library, None) == [CloseConnection(1006)]
    assert events(Connection(SERVER), b"") == [], "h11's word for the end says nothing here"

    session = Session(1000)
    session.receive(wire.close(1000))
    verdict = session.verdict
    assert session.receive(b"") == b""
    assert session.verdict == verdict


# h11


def test_the_first_frames_are_in_the_trailing_data_only_after_the_end_of_the_message():
    early = wire.frame(1, b"early")
    library = h11.Connection(h11.SERVER)
    library.receive_data(wire.request() + early)
    assert isinstance(library.next_event(), h11.Request)
    assert isinstance(library.next_event(), h11.EndOfMessage)
    assert library.next_event() is h11.PAUSED
    assert library.trailing_data == (early, False)

    reader = RequestReader()
    reader.receive(wire.request() + early)
    assert reader.trailing == early


def test_the_limit_is_for_an_incomplete_head_and_100_kib_at_once_pass():
    request = wire.request("/", ("X", "x" * 102_400))
    library = h11.Connection(h11.SERVER)
    library.receive_data(request)
    assert isinstance(library.next_event(), h11.Request)

    assert refused(request) == 431


@pytest.mark.parametrize(
    "request_head, status",
    [
        (wire.request(version="HTTP/1.0"), 505),
        (wire.request(Upgrade="h2c"), 426),
        (wire.request("/", ("Content-Length", "5")), 400),
    ],
)
def test_an_upgrade_of_http_1_0_or_to_h2c_or_with_a_body_is_let_through(request_head, status):
    library = h11.Connection(h11.SERVER)
    library.receive_data(request_head)
    assert isinstance(library.next_event(), h11.Request)

    assert refused(request_head) == status


def test_a_version_after_1_1_needs_no_host():
    request = wire.request(version="HTTP/1.2", Host=None)
    library = h11.Connection(h11.SERVER)
    library.receive_data(request)
    assert isinstance(library.next_event(), h11.Request)

    assert refused(request) == 400


# Python's UTF-8


def test_a_surrogate_is_waited_for_to_its_third_byte():
    decoder = codecs.getincrementaldecoder("utf-8")()
    assert decoder.decode(b"\xed\xa0") == ""

    begun = wire.header(1, 100) + wire.KEY + wire.mask(b"\xed\xa0")
    assert wire.codes(Session(1000).receive(begun)) == [1007]
