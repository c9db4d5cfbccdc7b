"""What holds for whatever comes in: laws of the pure modules, on examples always alike."""

from __future__ import annotations

import zlib

import h11
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from echo_service import endpoints, policy, upgrade
from echo_service.compression import Parameters, negotiate
from echo_service.request import Refused, RequestReader, switching_protocols
from echo_service.session import Session
from tests import wire

law = settings(
    derandomize=True,
    deadline=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow],
)

SENDABLE = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
"""The close codes that may stand on the wire."""

AGREED = [
    None,
    Parameters(),
    Parameters(server_no_context_takeover=True, client_no_context_takeover=True),
    Parameters(server_max_window_bits=9, client_max_window_bits=9),
]

agreements = st.sampled_from(AGREED)

limits = st.sampled_from([0, 5, 20, 1000, 1000])

texts = st.text(max_size=10).map(str.encode)

plain_payloads = st.one_of(
    texts,
    st.binary(max_size=30),
    st.sampled_from([b"\xce\xba\xe1\xbd", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a" * 126]),
)

compressed_payloads = st.one_of(
    texts.map(wire.deflate),
    st.binary(max_size=10).map(wire.deflate),
    st.integers(2, 5000).map(lambda size: wire.deflate(b"a" * size)),
    st.binary(max_size=30),
    # What inflates, be it text or not, and then what most often does not
    st.tuples(st.binary(max_size=9), st.binary(max_size=9)).map(
        lambda pair: wire.deflate(pair[0]) + b"\x00\x00\xff\xff" + pair[1]
    ),
)

closes = st.one_of(st.integers(0, 65535).map(lambda code: code.to_bytes(2, "big")), plain_payloads)


def mostly(usual, *others):
    """The usual value nineteen times out of twenty, or so."""
    return st.sampled_from([usual] * 19 * len(others) + list(others))


@st.composite
def almost_valid_frames(draw):
    """A client's frames, with few things wrong."""
    sent = b""
    inside = False
    for _ in range(draw(st.integers(1, 8))):
        data = 0 if inside else draw(st.sampled_from([1, 2]))
        opcode = draw(st.sampled_from([data] * 10 + [9, 9, 10, 0, 1, 2, 3, 8]))
        rsv = draw(st.sampled_from([0, 4])) if opcode in (1, 2) else draw(mostly(0, 1, 4))
        payload = draw(closes if opcode == 8 else compressed_payloads if rsv else plain_payloads)
        fin = draw(mostly(True, False) if opcode > 2 else st.booleans())
        masked = draw(mostly(True, False))
        length = draw(mostly(len(payload), 0, 125, 65536, 2**62, 2**63))
        sent += wire.header(opcode, length, fin=fin, rsv=rsv, masked=masked)
        sent += wire.KEY + wire.mask(payload) if masked else payload
        inside = inside if opcode > 2 else not fin
    return sent


inputs = st.one_of(st.binary(max_size=100), almost_valid_frames(), almost_valid_frames())


@st.composite
def cut(draw, data):
    """The same bytes in pieces."""
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def bytewise(data):
    return [data[i : i + 1] for i in range(len(data))]


@law
@given(data=st.data(), sent=inputs, agreed=agreements, limit=limits)
def test_cutting_the_frames_differently_never_changes_the_answer(data, sent, agreed, limit):
    answers = []
    for pieces in ([sent], bytewise(sent), data.draw(cut(sent))):
        session = Session(limit, agreed)
        frames = wire.read(wire.feed(session, pieces))
        carried = session.carried
        answers.append((frames, session.verdict, carried))
    assert answers[0] == answers[1] == answers[2]


@law
@given(data=st.data(), sent=inputs, agreed=agreements, limit=limits)
def test_any_bytes_are_answered_with_good_frames_or_end_the_session(data, sent, agreed, limit):
    session = Session(limit, agreed)
    answer = wire.feed(session, data.draw(cut(sent)))
    frames = wire.parse(answer)
    assert all(frame.fin and frame.opcode in (1, 2, 8, 10) for frame in frames)
    assert all(frame.rsv == 0 or (frame.rsv == 4 and frame.opcode in (1, 2)) for frame in frames)
    for opcode, payload in wire.read(answer):
        assert len(payload) <= (limit if opcode in (1, 2) else 125)
        assert opcode != 1 or payload.decode() is not None
    closes = [frame.opcode == 8 for frame in frames]
    assert closes == [False] * (len(frames) - 1) + [session.verdict is not None] * bool(frames)
    assert set(wire.codes(answer)) <= SENDABLE | {1005}


@law
@given(data=st.data(), sent=inputs, agreed=agreements)
def test_any_bytes_after_our_close_are_taken_in_silence(data, sent, agreed):
    session = Session(1000, agreed)
    session.end(policy.IDLE)
    assert wire.feed(session, data.draw(cut(sent))) == b""
    assert session.verdict.ending is policy.Ending.IDLE
    assert session.verdict.sent_code == 1011


messages = st.one_of(
    st.tuples(st.just(1), st.text(max_size=40).map(str.encode)),
    st.tuples(st.just(2), st.binary(max_size=40)),
    st.tuples(st.just(2), st.integers(100, 3000).map(lambda size: b"long " * size)),
)

control_frames = st.lists(st.tuples(st.sampled_from([9, 10]), st.binary(max_size=125)), max_size=2)


@st.composite
def conversations(draw):
    """What was agreed on, what a correct client sends, and the frames that must come back."""
    agreed = draw(agreements)
    sent, expected = [], []
    client = None
    for opcode, message in draw(st.lists(messages, max_size=4)):
        payload = message
        rsv = 4 if agreed is not None and draw(st.booleans()) else 0
        if rsv:
            if client is None or agreed.client_no_context_takeover:
                client = zlib.compressobj(wbits=-agreed.client_max_window_bits)
            payload = wire.deflate(message, client)
        *fragments, last = draw(cut(payload))
        for number, fragment in enumerate([*fragments, last]):
            fin = number == len(fragments)
            if number:
                sent.append(wire.frame(0, fragment, fin=fin))
            else:
                sent.append(wire.frame(opcode, fragment, fin=fin, rsv=rsv))
            if fin:
                expected.append((opcode, message))
            for control, body in draw(control_frames):
                sent.append(wire.frame(control, body))
                if control == 9:
                    expected.append((10, body))
    return agreed, b"".join(sent), expected


@law
@given(data=st.data(), conversation=conversations())
def test_what_a_correct_client_sends_comes_back_the_same(data, conversation):
    agreed, sent, expected = conversation
    session = Session(15_000, agreed)
    assert wire.read(wire.feed(session, data.draw(cut(sent)))) == expected
    assert session.verdict is None


@law
@given(st.binary(max_size=125))
def test_any_close_is_answered_with_itself_or_with_a_code_of_ours(payload):
    verdict = policy.closed(payload)
    assert len(verdict.close) <= 125
    if verdict.ending is policy.Ending.PEER_CLOSED:
        assert verdict.close == payload
        assert verdict.rule is None
    else:
        assert verdict.sent_code in (1002, 1007)
        assert verdict.rule.startswith("RFC ")
    assert verdict.close == b"" or verdict.sent_code in SENDABLE


HEADS = [
    wire.request(),
    wire.request("/chat?room=1", ("Sec-WebSocket-Extensions", "permessage-deflate"), Origin="null"),
    wire.request("/", ("Content-Length", "0"), ("Transfer-Encoding", "chunked"), method="POST"),
    wire.request("/healthz", Upgrade=None, Connection=None, Sec_WebSocket_Key=None),
    b"GET / HTTP/1.0\r\n\r\n",
]

scraps = st.one_of(
    st.binary(max_size=3),
    st.sampled_from([b"", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\r\n ", b"\x00", b":", b",", b'"']),
)


@st.composite
def almost_valid_heads(draw):
    """An opening handshake in which a few places were written over."""
    head = draw(st.sampled_from(HEADS))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(head)))
        head = head[:at] + draw(scraps) + head[at + draw(st.integers(0, 3)) :]
    return head


def judged(pieces):
    """A request, None, or a refusal's status, cause and headers."""
    reader = RequestReader()
    try:
        for piece in filter(None, pieces):
            request = reader.receive(piece)
            if request is not None:
                fields = (request.method, request.target, request.http_version)
                return *fields, *request.headers.raw_items()
    except Refused as refused:
        return refused.status, refused.cause, *refused.headers
    return None


@law
@given(data=st.data(), head=st.one_of(st.binary(max_size=60), almost_valid_heads()))
def test_cutting_a_request_differently_never_changes_what_it_is(data, head):
    assert judged([head]) == judged(bytewise(head)) == judged(data.draw(cut(head)))


@law
@given(head=almost_valid_heads(), compress=st.booleans())
def test_any_request_is_accepted_answered_or_refused(head, compress):
    reader = RequestReader()
    try:
        request = reader.receive(head) if head else None
        if request is None:
            return
        assert isinstance(request, h11.Request)
        accepted = upgrade.accept(request, compress=compress, subprotocols=["chat"], origins=set())
        if accepted is None:
            answer = endpoints.answer(request, ready=True)
        else:
            assert switching_protocols(accepted.headers).startswith(b"HTTP/1.1 101 ")
            return
    except Refused as refused:
        answer = endpoints.refusal(refused)
    written = reader.answer(answer.status, answer.headers, answer.body.encode())
    assert written.startswith(b"HTTP/1.1 %d " % answer.status)
    assert answer.status in (200, 400, 403, 405, 426, 505)


offers = st.lists(
    st.sampled_from(
        [
            "permessage-deflate",
            "server_no_context_takeover",
            "client_no_context_takeover",
            "server_max_window_bits",
            "client_max_window_bits",
            "8",
            "9",
            "10",
            "12",
            "15",
            "16",
            "0",
            "a",
            "; ",
            "; ",
            "; ",
            ", ",
            "=",
            "=",
            '"',
            "\\",
            " ",
            "\t",
        ]
    ),
    max_size=20,
).map("".join)


@law
@given(st.one_of(st.text(), offers, offers.map(lambda rest: f"permessage-deflate; {rest}")))
def test_any_offer_is_declined_or_answered_with_what_can_be_kept(header):
    agreed = negotiate(header)
    if agreed is not None:
        assert 9 <= agreed.server_max_window_bits <= 12
        assert 9 <= agreed.client_max_window_bits <= 15
        assert negotiate(agreed.response) == agreed, "what was agreed on can be offered again"
        assert all(word.partition("=")[0] in header for word in agreed.response.split("; "))
