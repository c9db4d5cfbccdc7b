"""What a worker and its parent tell each other."""

from __future__ import annotations

import socket

import pytest
import trio

from echo_service.channel import Channel


@pytest.fixture
async def pair():
    ends = [Channel(sock) for sock in socket.socketpair()]
    yield ends
    for end in ends:
        end.close()


async def test_what_is_told_is_heard_in_order(pair):
    here, there = pair
    await here.tell(drain=True)
    await here.tell(words="a\nb", number=1.5)
    assert await there.hear() == {"drain": True}
    assert await there.hear() == {"words": "a\nb", "number": 1.5}


async def test_lines_longer_than_a_piece_come_whole(pair, nursery):
    here, there = pair
    nursery.start_soon(lambda: here.tell(long="x" * 1_000_000))
    nursery.start_soon(lambda: here.tell(short=1))
    heard = [await there.hear(), await there.hear()]
    assert {"long": "x" * 1_000_000} in heard
    assert {"short": 1} in heard


async def test_hearing_that_is_cancelled_loses_nothing(pair):
    here, there = pair
    with trio.move_on_after(0):
        await there.hear()
    await here.tell(a=1)
    assert await there.hear() == {"a": 1}


async def test_an_end_that_is_gone_is_heard_and_may_be_told(pair):
    here, there = pair
    await here.tell(last=1)
    here.close()
    assert await there.hear() == {"last": 1}
    assert await there.hear() is None
    await there.tell(anybody=True)
    await there.tell(anybody=True)
