"""Peers that misbehave in known ways, over loopback."""

from __future__ import annotations

import base64
import hashlib
import re
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio

from echo_service.check.endpoint import Endpoint
from echo_service.check.wire import Frame, take

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Peer:
    """The server's side of a connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.request = b""
        self._unread = b""

    async def upgrade(self, *lines: str, status: str = "101 Switching Protocols") -> None:
        """Read a request and accept it, extensions and all, with these headers more."""
        while b"\r\n\r\n" not in self._unread:
            await self._receive()
        self.request, _, self._unread = self._unread.partition(b"\r\n\r\n")
        head = [f"HTTP/1.1 {status}", "Upgrade: websocket", "Connection: Upgrade", *lines]
        if offered := re.search(rb"(?i)\r\n(Sec-WebSocket-Extensions: [^\r]*)", self.request):
            head.append(offered[1].decode("latin-1"))
        head.append(f"Sec-WebSocket-Accept: {self.accept()}")
        await self.send("".join(f"{line}\r\n" for line in [*head, ""]).encode("latin-1"))

    def accept(self) -> str:
        """What the client's key has to be answered with."""
        key = re.search(rb"(?i)\r\nSec-WebSocket-Key: *(\S*)", self.request)
        nonce = key[1] if key else b""
        digest = hashlib.sha1(nonce + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        return base64.b64encode(digest).decode()

    async def frame(self) -> Frame:
        """The client's next frame."""
        while (taken := take(self._unread)) is None:
            await self._receive()
        self._unread = self._unread[taken[1] :]
        return taken[0]

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        await self.stream.send_all(data)

    async def _receive(self) -> None:
        data = await self.stream.receive_some()
        if not data:
            raise EOFError
        self._unread += data


Serve = "Callable[[Peer], Awaitable[None]]"


@pytest.fixture
def peer(nursery) -> Callable[[Serve], Awaitable[Endpoint]]:
    """Serve each connection by a function; it is closed when the function returns."""

    async def start(serve: Serve) -> Endpoint:
        async def guarded(stream: trio.SocketStream) -> None:
            with suppress(trio.BrokenResourceError, EOFError):
                await serve(Peer(stream))

        listeners = await nursery.start(trio.serve_tcp, guarded, 0)
        port = listeners[0].socket.getsockname()[1]
        return Endpoint(f"ws://127.0.0.1:{port}/", None, host="127.0.0.1", port=port)

    return start
