"""The health check, against peers that are right and wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from echo_service.check.endpoint import UnreachableError
from echo_service.check.quick import quick

if TYPE_CHECKING:
    from tests.check.conftest import Peer

pytestmark = pytest.mark.usefixtures("in_time")


def said(payload: bytes, opcode: int = 1) -> bytes:
    return bytes([0x80 | opcode, len(payload)]) + payload


async def echo(peer: Peer) -> None:
    frame = await peer.frame()
    await peer.send(said(frame.payload, frame.opcode))


async def test_an_echo_and_a_close_are_all_right(peer):
    async def serve(peer: Peer) -> None:
        await peer.upgrade()
        await echo(peer)
        await echo(peer)

    assert await quick(await peer(serve), 30) == ""


async def test_greetings_may_come_first(peer):
    async def serve(peer: Peer) -> None:
        await peer.upgrade()
        await peer.send(said(b"hello") + b"\x89\x00")
        await peer.send(b"\x01\x01a\x80\x01b")
        await echo(peer)
        assert (await peer.frame()).opcode == 10
        await echo(peer)

    assert await quick(await peer(serve), 30) == ""


async def test_another_message_is_no_echo(peer):
    async def serve(peer: Peer) -> None:
        await peer.upgrade()
        await peer.send(said(b"hello") * 4)
        await echo(peer)

    assert await quick(await peer(serve), 30) == "a message did not come back"


@pytest.mark.parametrize("answer", [b"", said(b"\x03\xe8", 8), said(b"late")])
async def test_a_message_must_come_back(peer, answer: bytes):
    async def serve(peer: Peer) -> None:
        await peer.upgrade()
        await peer.frame()
        await peer.send(answer)

    assert await quick(await peer(serve), 30) == "a message did not come back"


async def test_a_close_must_be_answered(peer):
    async def serve(peer: Peer) -> None:
        await peer.upgrade()
        await echo(peer)
        await peer.frame()

    assert await quick(await peer(serve), 30) == "a Close was not answered"


@pytest.mark.parametrize(
    "answer, words",
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "404 Not Found"),
        (b"SSH-2.0-OpenSSH_9\r\n", "no HTTP/1.1 answer: 'SSH-2.0-OpenSSH_9'"),
        (b"", "no answer, TCP closed"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "101 with a wrong Sec-WebSocket-Accept"),
        (b"x" * 70000, "no HTTP/1.1 answer: '" + "x" * 80 + "'"),
        (b"HTTP/1.1 101 OK\r\nX: " + b"x" * 70000, "no answer, more than 65536 bytes of head"),
    ],
)
async def test_without_an_upgrade_there_is_no_connection(peer, answer: bytes, words: str):
    async def serve(peer: Peer) -> None:
        await peer.stream.receive_some()
        await peer.send(answer)

    with pytest.raises(UnreachableError) as caught:
        await quick(await peer(serve), 30)
    assert str(caught.value) == words
