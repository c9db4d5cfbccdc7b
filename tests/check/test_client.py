"""One connection: how it ends is seen, and nothing waits beyond the deadline."""

from __future__ import annotations

import socket
import struct
from functools import partial

import pytest
import trio

from echo_service.check.client import Client, in_words
from echo_service.check.wire import Ending, Frame, frame, octets

pytestmark = pytest.mark.usefixtures("in_time")


@pytest.fixture
async def ends(nursery):
    """A client with a deadline far away, and the other end of its TCP connection."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    stream = await trio.open_tcp_stream(*listener.socket.getsockname())
    other = await listener.accept()
    yield Client(stream, trio.current_time() + 60), other
    for each in (stream, other, listener):
        await trio.aclose_forcefully(each)


async def test_a_peer_that_closes_is_seen_after_what_it_sent(ends):
    client, other = ends
    await other.send_all(b"\x81\x05Hello")
    await other.aclose()
    came = await client.come()
    assert came == ([Frame(1, b"Hello")], Ending.CLOSED)
    assert await client.frame() is None
    assert [(each.direction, each.data) for each in client.transcript.passed] == [
        ("<", b"\x81\x05Hello"),
        ("=", b"TCP closed"),
    ]


async def test_a_peer_that_resets_is_seen(ends):
    client, other = ends
    linger = struct.pack("ii", 1, 0)
    other.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    await other.aclose()
    assert await client.come() == ([], Ending.RESET)
    await client.send(b"lost")


@pytest.mark.parametrize(
    "came, least, most",
    [
        (b"\x82\x7f" + (1 << 62).to_bytes(8, "big"), 0, 0),
        (b"\x81\x00\x82\x7f" + (2 << 20).to_bytes(8, "big"), 1, 1),
        (b"\x01\x00" + (b"\x00\x7e\x03\xe8" + bytes(1000)) * 1100, 900, 1050),
        (b"\x00\x00" * 2000, 1000, 1050),
        (b"\x89\x00" * 2000, 0, 0),
    ],
    ids=["announced", "announced next", "bytes", "frames", "pings"],
)
async def test_a_peer_that_floods_is_left_at_once(came, least, most, autojump_clock):
    mine, theirs = trio.testing.memory_stream_pair()
    client = Client(mine, trio.current_time() + 60)
    await theirs.send_all(came)
    frames, ending = await client.come()
    assert ending is Ending.FLOOD
    assert least <= len(frames) <= most
    assert trio.current_time() == 0


async def test_as_much_as_was_sent_may_come_back_in_fragments_of_one_byte(ends):
    client, other = ends
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, frame(2, bytes(65536)))
        nursery.start_soon(other.send_all, b"\x00\x01a" * 65536 + b"\x88\x00")
        came = await client.come()
    assert len(came.frames) == 65537


async def test_a_pong_is_not_to_come_back(autojump_clock):
    mine, theirs = trio.testing.memory_stream_pair()
    client = Client(mine, trio.current_time() + 60)
    await theirs.send_all((b"\x89\x7e\xff\xff" + bytes(65535)) * 20)
    assert await client.come() == ([], Ending.FLOOD)


async def test_a_head_that_is_too_large_is_none_at_once(autojump_clock):
    for end in (b"", b"\r\n\r\n"):
        mine, theirs = trio.testing.memory_stream_pair()
        client = Client(mine, trio.current_time() + 60)
        await theirs.send_all(b"HTTP/1.1 101 OK\r\nX: " + b"a" * 65520 + end)
        assert await client.answer() is None
        assert client.ending is Ending.HEAD
        assert in_words(None, client.ending) == "no answer, more than 65536 bytes of head"
        assert trio.current_time() == 0


async def test_a_head_may_come_in_any_pieces(autojump_clock):
    mine, theirs = trio.testing.memory_stream_pair()
    client = Client(mine, trio.current_time() + 60)
    async with trio.open_nursery() as nursery:

        async def drip() -> None:
            for octet in octets(b"HTTP/1.1 101 OK\r\n\r\n"):
                await trio.testing.wait_all_tasks_blocked()
                await theirs.send_all(octet)

        nursery.start_soon(drip)
        answer = await client.answer()
        assert answer is not None
        assert answer.status == 101


async def test_of_a_transcript_the_first_are_kept(autojump_clock):
    mine, theirs = trio.testing.memory_stream_pair()
    client = Client(mine, trio.current_time() + 60)
    await client.send(bytes(1 << 20), bytes(1 << 20))
    await theirs.send_all(frame(2, bytes(1 << 20), key=b""))
    await client.come(1)
    assert [(each.direction, each.size) for each in client.transcript.passed] == [
        (">", 2 << 20),
        ("<", (1 << 20) + 10),
    ]
    assert [len(each.data) for each in client.transcript.passed] == [1 << 17, 1 << 17]


async def test_a_silent_peer_is_left_at_the_deadline(autojump_clock):
    mine, _theirs = trio.testing.memory_stream_pair()
    client = Client(mine, trio.current_time() + 5)
    assert await client.come() == ([], Ending.WAITING)
    assert trio.current_time() == 5
    assert await client.answer() is None
    assert trio.current_time() == 5


async def test_a_peer_that_takes_nothing_is_left_at_the_deadline(autojump_clock):
    stream = trio.testing.MemorySendStream(send_all_hook=trio.sleep_forever)
    client = Client(
        trio.StapledStream(stream, trio.testing.MemoryReceiveStream()), trio.current_time() + 5
    )
    await client.send(b"a", b"b")
    assert trio.current_time() == 5


async def test_what_has_come_is_not_gone_through_after_the_deadline(autojump_clock):
    slow = trio.testing.MemorySendStream(send_all_hook=partial(trio.sleep, 1))
    incoming = trio.testing.MemoryReceiveStream()
    client = Client(trio.StapledStream(slow, incoming), trio.current_time() + 5)
    incoming.put_data(b"\x89\x00" * 1000)
    assert await client.come() == ([], Ending.WAITING)
    assert trio.current_time() == 5
    assert [passed.direction for passed in client.transcript.passed] == ["<", ">", "="]
    assert client.transcript.passed[1].size == 5 * 6


async def test_a_close_is_the_last_that_is_taken(ends):
    client, other = ends
    await other.send_all(b"\x88\x00\x81\x00")
    assert await client.come() == ([Frame(8, b"")], None)
    assert await client.come(1) == ([Frame(1, b"")], None)


async def test_a_ping_is_answered_and_a_greeting_passed_over(ends):
    _, other = ends
    client, _ = ends
    greeted = Client(client._stream, trio.current_time() + 60, greetings=1)
    await other.send_all(b"\x89\x01p\x01\x01a\x80\x01b\x81\x01c")
    assert await greeted.come(1) == ([Frame(1, b"c")], None)
    assert greeted.greeted == [Frame(1, b"a", fin=False), Frame(0, b"b")]
    assert await other.receive_some() == b"\x8a\x81\x37\xfa\x21\x3d\x47"


async def test_a_pong_that_can_not_be_sent_now_is_let_go(autojump_clock):
    blocked = trio.testing.MemorySendStream(send_all_hook=trio.sleep_forever)
    incoming = trio.testing.MemoryReceiveStream()
    client = Client(trio.StapledStream(blocked, incoming), trio.current_time() + 60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, b"more than is taken")
        await trio.testing.wait_all_tasks_blocked()
        incoming.put_data(b"\x89\x00\x81\x00")
        assert await client.come(1) == ([Frame(1, b"")], None)
        nursery.cancel_scope.cancel()


async def test_hearing_loses_nothing(autojump_clock):
    mine, theirs = trio.testing.memory_stream_pair()
    client = Client(mine, trio.current_time() + 60)
    assert await client.hears(1) is False
    await theirs.send_all(b"\x81\x00")
    assert await client.hears(1) is True
    assert await client.come(1) == ([Frame(1, b"")], None)


async def test_leaving_waits_a_second_at_most(autojump_clock):
    mine, theirs = trio.testing.memory_stream_pair()
    client = Client(mine, trio.current_time() + 60)
    await client.leave()
    assert trio.current_time() == 1
    assert (await theirs.receive_some())[0] == 0x88
