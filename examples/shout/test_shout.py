"""Three tests of a client, each against a real server that the fixture runs."""

from __future__ import annotations

import pytest
import trio
from shout import ClosedError, shout


async def test_words_come_back_in_capitals(echo_server):
    assert await shout(echo_server.urls[0], "hello", "wörld") == ["HELLO", "WÖRLD"]
    assert echo_server.statistics().texts == 2


@pytest.mark.echo_service(max_message_size=1024)
async def test_too_long_a_word_is_reported_with_the_code(echo_server):
    with pytest.raises(ClosedError) as closed:
        await shout(echo_server.urls[0], "x" * 1025)
    assert closed.value.code == 1009


@pytest.mark.echo_service(drain_code=1012)
async def test_a_restart_of_the_server_is_reported_with_the_code(echo_server):
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def restart():
            while echo_server.statistics().texts < 10:
                await trio.lowlevel.checkpoint()
            await echo_server.drain()

        with pytest.raises(ClosedError) as closed:
            await shout(echo_server.urls[0], *["again"] * 100_000)
    assert closed.value.code == 1012
