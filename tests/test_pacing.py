"""A connection as its client has asked for, in memory by the virtual clock, and over sockets."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import lockstep_stream_pair, wait_all_tasks_blocked

from echo_service import Config, Ending, Outcome, Server, serve
from echo_service.registry import Registry
from echo_service.transport import StreamTransport
from tests import wire
from tests.conftest import until
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, frame

if TYPE_CHECKING:
    from tests.conftest import Served

pytestmark = pytest.mark.usefixtures("in_time")

DEFLATE = ("Sec-WebSocket-Extensions", "permessage-deflate")

HELLO = frame(TEXT, b"hello")


def asked(code: int | None, received: int = 1006, **carried: int) -> Outcome:
    return Outcome(Ending.ASKED, 101, received, code, **carried)


async def times(client: wire.Client, opcode: int, count: int) -> list[float]:
    """When the next frames come, all of which have this opcode."""
    seen = []
    for _ in range(count):
        assert (await client.frame()).opcode == opcode
        seen.append(round(trio.current_time(), 3))
    return seen


# delay


@pytest.mark.parametrize("agreed", [(), (DEFLATE,)], ids=["plain", "deflate"])
async def test_each_echo_waits_and_the_next_waits_behind_it(serving, autojump_clock, agreed):
    client: Served = serving()
    await client.send(wire.request("/?delay=2.5", *agreed) + HELLO + HELLO + frame(PING))
    await client.opened()
    begun = trio.current_time()
    assert await times(client, TEXT, 2) == [begun + 2.5, begun + 5]
    assert await client.frame() == Frame(PONG, b"")
    assert trio.current_time() == begun + 5


async def test_a_delayed_echo_holds_back_reading(serving, autojump_clock):
    client: Served = serving(lockstep_stream_pair, ping_interval=0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, wire.request("/?delay=60"))
        await client.opened()
    await client.send(HELLO)
    begun = trio.current_time()
    with trio.move_on_after(59) as waiting:
        await client.send(HELLO)
    assert waiting.cancelled_caught
    assert await times(client, TEXT, 1) == [begun + 60]


async def test_a_peer_is_pinged_while_its_echo_waits_and_given_up_only_after_it(
    serving, autojump_clock
):
    client: Served = serving(ping_interval=7, ping_timeout=3)
    await client.open("/?delay=30")
    begun = trio.current_time()
    await client.send(HELLO)
    assert await times(client, PING, 4) == [begun + 7, begun + 14, begun + 21, begun + 28]
    assert await times(client, TEXT, 1) == [begun + 30]
    assert await times(client, PING, 1) == [begun + 37]
    assert wire.codes(await client.rest()) == [1011]
    assert trio.current_time() == pytest.approx(begun + 40)


async def test_a_drain_lets_the_echo_go_at_once(serving, autojump_clock):
    client: Served = serving(registry=Registry(1))
    await client.open("/?delay=60&fragment=3")
    await client.send(HELLO + HELLO)
    await wait_all_tasks_blocked()
    begun = trio.current_time()
    client.connection.drain()
    *echo, close = wire.parse(await client.rest())
    assert trio.current_time() == begun
    assert echo == [Frame(TEXT, b"hel", fin=False), Frame(CONTINUATION, b"lo")]
    assert close.payload.startswith(b"\x03\xe9")
    await client.stream.aclose()
    assert await client.ends() == Outcome(Ending.DRAINING, 101, 1006, 1001, texts=1, octets=5)


async def test_a_drain_lets_a_slow_reader_have_the_echo_and_the_close(serving, autojump_clock):
    """As without a delay: the stall timeout is that of the echo, the close timeout of the Close."""
    client: Served = serving(lockstep_stream_pair, Registry(1), close_timeout=2, stall_timeout=3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, wire.request("/?delay=60"))
        await client.opened()
    await client.send(frame(BINARY, bytes(100_000)))
    await wait_all_tasks_blocked()
    client.connection.drain()
    got = b""
    while piece := await client.stream.receive_some(10_000):
        got += piece
        await trio.sleep(1)
    echo, close = wire.parse(got)
    assert echo.payload == bytes(100_000)
    assert close.payload.startswith(b"\x03\xe9")


async def test_a_reset_that_waits_for_the_peer_looks_ever_more_rarely(serving, autojump_clock,
                                                                      monkeypatch):  # fmt: skip
    looks = []
    untaken = property(lambda _: looks.append(trio.current_time()) or 1)
    monkeypatch.setattr(StreamTransport, "untaken", untaken)
    client: Served = serving(close_timeout=5)
    await client.open("/?drop=1")
    await client.send(HELLO)
    assert (await client.ends()).ending is Ending.ASKED
    assert len(looks) < 20
    assert looks[-1] - looks[0] > 3


async def test_to_make_frames_is_not_to_be_held_up(nursery, connect):
    """Its own work is none of the time that a peer has left echoes waiting."""
    running: Server = await nursery.start(serve, Config(bind=["127.0.0.1:0"]))
    client = await connect(running)
    await client.open("/?fragment=1")
    await client.send(frame(BINARY, bytes(5000)))
    assert [len((await client.frame()).payload) for _ in range(5000)] == [1] * 5000
    assert running.counts().stalled == 0


async def test_a_peer_gone_while_its_echo_waits_is_found_gone(serving, autojump_clock):
    client: Served = serving()
    await client.open("/?delay=10")
    await client.send(HELLO)
    await wait_all_tasks_blocked()
    await client.stream.aclose()
    assert await client.ends() == Outcome(Ending.VANISHED, 101, 1006)


# ping


async def test_pings_come_that_often_whatever_arrives(serving, autojump_clock):
    client: Served = serving(ping_interval=3, ping_timeout=5)
    await client.open("/?ping=10")
    begun = trio.current_time()
    seen = []
    for second in range(1, 36):
        await trio.sleep_until(begun + second)
        await client.send(HELLO)
        while (await client.frame()).opcode == PING:
            seen.append(trio.current_time() - begun)
    assert seen == pytest.approx([10, 20, 30])


@pytest.mark.parametrize("interval", [0, 2])
async def test_a_peer_that_answers_is_pinged_on(serving, autojump_clock, interval: float):
    client: Served = serving(ping_interval=interval, ping_timeout=3)
    await client.open("/?ping=5")
    begun = trio.current_time()
    for number in range(1, 5):
        assert await times(client, PING, 1) == [begun + 5 * number]
        await trio.sleep(2)
        await client.send(frame(PONG))


async def test_a_peer_that_does_not_answer_is_given_up_after_the_timeout(serving, autojump_clock):
    client: Served = serving(ping_interval=0, ping_timeout=3.5)
    await client.open("/?ping=1")
    begun = trio.current_time()
    assert await times(client, PING, 4) == [begun + second for second in (1, 2, 3, 4)]
    assert wire.codes(await client.rest()) == [1011]
    assert trio.current_time() == pytest.approx(begun + 4.5)


async def test_pings_come_that_often_while_an_echo_waits(serving, autojump_clock):
    client: Served = serving(ping_timeout=2)
    await client.open("/?ping=4&delay=11")
    begun = trio.current_time()
    await client.send(HELLO)
    assert await times(client, PING, 2) == [begun + 4, begun + 8]
    assert await times(client, TEXT, 1) == [begun + 11]
    assert await times(client, PING, 1) == [begun + 12]
    assert wire.codes(await client.rest()) == [1011]
    assert trio.current_time() == pytest.approx(begun + 14)


async def test_a_round_trip_is_measured_from_the_ping(serving, autojump_clock):
    registry = Registry(1)
    client: Served = serving(registry=registry)
    await client.open("/?ping=4&delay=1")
    for _ in range(2):
        await client.frame()
        await trio.sleep(0.5)
        await client.send(frame(PONG))
    await client.send(HELLO)
    await client.frame()
    trips = registry.counts.round_trips
    assert (sum(trips.buckets), trips.total) == (2, pytest.approx(1))


# close and drop


@pytest.mark.parametrize(
    "query, payload, code",
    [
        ("close=0", b"\x00\x00", 0),
        ("close=1005", b"\x03\xed", 1005),
        ("close=65535&reason=bye+bye&after=0", b"\xff\xffbye bye", 65535),
        ("close=none", b"", 1005),
    ],
)
async def test_a_close_goes_out_unasked_for_by_a_message(
    serving, logged, query: str, payload: bytes, code: int
):
    client: Served = serving()
    await client.open(f"/?{query}")
    assert await client.frame() == Frame(CLOSE, payload)
    await client.send(wire.close(1000))
    assert await client.rest() == b""
    await client.stream.aclose()
    assert await client.ends() == asked(code, 1000)
    closed = logged()[-1].fields
    assert (closed["ending"], closed["sent_code"], closed["rule"]) == ("asked", code, None)


async def test_the_closing_handshake_is_waited_for_as_ever(serving, autojump_clock):
    client: Served = serving(close_timeout=3)
    await client.open("/?close=1000&after=1")
    await client.send(HELLO + HELLO)
    assert await client.frame() == Frame(TEXT, b"hello")
    assert await client.frame() == Frame(CLOSE, b"\x03\xe8")
    begun = trio.current_time()
    assert await client.ends() == asked(1000, texts=1, octets=5)
    assert trio.current_time() - begun == 3


async def test_a_close_comes_after_the_delay_of_the_last_echo(serving, autojump_clock):
    client: Served = serving()
    await client.open("/?close=999&after=2&delay=4")
    begun = trio.current_time()
    await client.send(HELLO * 3)
    assert await times(client, TEXT, 2) == [begun + 4, begun + 8]
    assert wire.codes(await client.rest()) == [999]
    assert trio.current_time() == begun + 8


@pytest.mark.parametrize("after", [0, 2])
async def test_in_memory_a_drop_is_an_end_of_stream(serving, after: int):
    client: Served = serving()
    await client.open(f"/?drop={after}")
    if after:
        await client.send(HELLO * 3)
    assert await client.rest() == b"\x81\x05hello" * after
    assert await client.ends() == asked(None, texts=after, octets=5 * after)


# fragment


async def test_a_compressed_echo_is_compressed_in_its_first_frame(serving):
    client: Served = serving()
    await client.open("/?fragment=3", DEFLATE)
    await client.send(frame(TEXT, wire.deflate(b"Hello"), rsv=4))
    frames = [await client.frame()]
    while not frames[-1].fin:
        frames.append(await client.frame())
    assert [each.rsv for each in frames] == [4] + [0] * (len(frames) - 1)
    assert [each.opcode for each in frames] == [TEXT] + [CONTINUATION] * (len(frames) - 1)
    assert wire.inflate(b"".join(each.payload for each in frames)) == b"Hello"


async def test_a_peer_that_stalls_amid_fragments_is_dropped(serving, autojump_clock):
    client: Served = serving(lockstep_stream_pair, stall_timeout=4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, wire.request("/?fragment=10"))
        await client.opened()
    await client.send(frame(BINARY, bytes(100_000)))
    begun = trio.current_time()
    await client.frame()
    assert await client.ends() == Outcome(Ending.STALLED, 101, 1006)
    assert trio.current_time() - begun == 4


# compress and info


@pytest.mark.parametrize("query", ["", "?info=1", "?compress=off&info=1", "?delay=0&info=1"])
async def test_info_is_the_first_message_and_no_echo(serving, query: str):
    client: Served = serving(registry=Registry(1), subprotocol=["chat"])
    offers = DEFLATE, ("Sec-WebSocket-Protocol", "talk, chat")
    head = await client.open(f"/there{query}", *offers)
    if query:
        opcode, text, fin, rsv = await client.frame()
        assert (opcode, fin, rsv) == (TEXT, True, 0)
        told = json.loads(text)
        assert list(told) == ["target", "headers", "peer", "extensions", "subprotocol"]
        assert told["target"] == f"/there{query}"
        assert ["sec-websocket-protocol", "talk, chat"] in told["headers"]
        assert (told["peer"], told["subprotocol"]) == ("192.0.2.1:5000", "chat")
        agreed = None if "off" in query else "permessage-deflate"
        assert str(told["extensions"]).startswith(str(agreed))
    assert ("Sec-WebSocket-Extensions" in head) is ("off" not in query)
    await client.echo()
    assert client.connection.carried == (1, 0, 5)


async def test_info_names_the_client_behind_a_trusted_proxy(serving):
    client: Served = serving(registry=Registry(1), trusted_proxy=["192.0.2.0/24"])
    await client.open("/?info=1", ("X-Forwarded-For", "198.51.100.7"))
    assert json.loads((await client.frame()).payload)["peer"] == "198.51.100.7"


async def test_info_comes_before_a_close(serving):
    client: Served = serving()
    await client.open("/?info=1&close=1013&fragment=1")
    assert (await client.frame()).opcode == TEXT
    assert wire.codes(await client.rest()) == [1013]


# What is refused, left alone, and logged


@pytest.mark.parametrize("query", ["delay=61", "ping=0", "close=70000", "drop=", "delay=1&delay=1"])
async def test_what_can_not_be_done_is_refused(serving, logged, query: str):
    client: Served = serving()
    await client.send(wire.request(f"/?{query}"))
    answer = await client.rest()
    assert wire.status(answer) == 400
    (refused,) = logged()
    assert refused.event == "handshake.refused"
    assert str(refused.fields["cause"]).startswith(query.partition("=")[0])
    assert answer.decode().endswith(f"\r\n\r\n{refused.fields['cause']}\n")


@pytest.mark.parametrize("query", ["delay=61", "delay=60&close=1000&info=1&drop=x"])
async def test_without_controls_all_parameters_are_left_alone(serving, logged, query: str):
    client: Served = serving(controls=False)
    await client.open(f"/?{query}")
    await client.echo()
    assert "controls" not in logged()[0].fields


async def test_a_request_without_an_upgrade_has_no_controls(serving):
    client: Served = serving()
    await client.send(b"GET /healthz?delay=61 HTTP/1.1\r\nHost: echo.example\r\n\r\n")
    assert wire.status(await client.rest()) == 200


async def test_the_controls_in_use_are_logged(serving, logged):
    client: Served = serving()
    await client.open("/?delay=0.5&close=0&reason=gr%C3%BCn&after=1&x=y")
    expected = {"delay": 0.5, "close": 0, "reason": "grün", "after": 1}
    assert logged()[0].fields["controls"] == expected
    client = serving()
    await client.open("/?x=y")
    assert "controls" not in logged()[-1].fields


# Over sockets, by the lane, without it, and enciphered

WAYS = pytest.mark.parametrize("way", ["lane", "no lane", "tls"])


@pytest.fixture
async def dial(nursery, connect, certificate, authority, way: str):
    """Open a connection with controls to a server over sockets; returns the client."""
    options = {"tls": certificate(), "no lane": {"fast_lane": False}}.get(way, {})
    running: Server = await nursery.start(serve, Config(bind=["127.0.0.1:0"], **options))

    async def dial(target: str, *extra: tuple[str, str]) -> wire.Client:
        client: wire.Client = await connect(running)
        if way == "tls":
            context = ssl.create_default_context()
            authority.configure_trust(context)
            client.stream = trio.SSLStream(client.stream, context, server_hostname="localhost")
        await client.open(target, *extra)
        return client

    dial.server = running
    return dial


@WAYS
@pytest.mark.parametrize("agreed", [(), (DEFLATE,)], ids=["plain", "deflate"])
async def test_over_a_socket_it_closes_after_so_many_echoes(dial, way: str, agreed):
    client = await dial("/?close=1006&after=2&fragment=2&delay=0.01", *agreed)
    await client.send(HELLO * 3 + wire.close(1000))
    *echoes, close = wire.parse(await client.rest())
    assert close == Frame(CLOSE, b"\x03\xee")
    assert b"".join(each.payload for each in echoes) == b"hellohello"
    assert len(echoes) == 6


@WAYS
@pytest.mark.parametrize("after", [0, 2])
async def test_over_a_socket_a_drop_is_a_reset(dial, way: str, after: int):
    client = await dial(f"/?drop={after}")
    if after:
        await client.send(HELLO * 3)
    for _ in range(after):
        assert await client.frame() == Frame(TEXT, b"hello")
    with pytest.raises(trio.BrokenResourceError):
        await client.rest()
    await until(lambda: not dial.server.connections)
    assert dial.server.statistics().endings == {Ending.ASKED: 1}


async def test_over_a_unix_socket_a_drop_is_an_end_of_stream(nursery, connect, tmp_path):
    running: Server = await nursery.start(serve, Config(bind=[f"unix:{tmp_path}/echo"]))
    client = await connect(running)
    await client.open("/?drop=1")
    await client.echo()
    assert await client.rest() == b""


@pytest.mark.parametrize("way", ["lane"])
async def test_of_a_large_echo_all_has_arrived_when_the_reset_does(dial, way: str):
    """A reset throws away what is still on its way: it is not sent before that has gone."""
    client = await dial("/?drop=1&fragment=1000000")
    payload = bytes(range(256)) * 20_000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, frame(BINARY, payload))
        got = bytearray()
        while len(got) < len(payload):
            got += (await client.frame()).payload
    assert got == payload
    with pytest.raises(trio.BrokenResourceError):
        await client.rest()


@pytest.mark.parametrize("way", ["lane"])
async def test_a_reset_comes_amid_an_echo(dial, way: str):
    client = await dial("/?drop=1.5&fragment=4")
    await client.send(HELLO + frame(BINARY, b"0123456789"))
    got = [await client.frame() for _ in range(3)]
    assert got == [
        Frame(TEXT, b"hell", fin=False),
        Frame(CONTINUATION, b"o"),
        Frame(BINARY, b"0123", fin=False),
    ]
    with pytest.raises(trio.BrokenResourceError):
        await client.frame()


@pytest.mark.parametrize("way", ["lane", "no lane"])
async def test_a_message_in_frames_of_one_byte_holds_up_nobody(dial, nursery, way: str):
    """A MiB of them takes half a second's work; others have their turn all the time."""
    busy = await dial("/?fragment=1")
    ended = trio.Event()

    async def read() -> None:
        got = 0
        while got < 3 * 1048576:
            got += len(await busy.stream.receive_some(65536))
        ended.set()

    nursery.start_soon(read)
    nursery.start_soon(busy.send, frame(BINARY, bytes(1048576)))
    other = await dial("/")
    for _ in range(5):
        await other.echo()
    assert not ended.is_set()
    await ended.wait()


@pytest.mark.parametrize("way", ["lane"])
async def test_pings_come_by_the_lane_too(dial, way: str):
    client = await dial("/?ping=1&compress=off&info=1", DEFLATE)
    assert (await client.frame()).opcode == TEXT
    await client.echo()
    assert (await client.frame()).opcode == PING
