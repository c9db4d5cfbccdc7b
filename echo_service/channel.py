"""What a worker and its parent tell each other: a line of JSON each, over a pair of sockets."""

from __future__ import annotations

import json
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import trio

if TYPE_CHECKING:
    import socket

_PIECE: Final = 65536

_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


class Channel:
    """One end of it; several tasks may tell, one hears.  Whoever made it closes it."""

    def __init__(self, sock: socket.socket) -> None:
        """Take charge of ``sock``."""
        sock.setblocking(False)
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._telling = trio.Lock()
        self._lines: deque[bytes] = deque()
        self._unfinished = b""

    async def tell(self, **words: Any) -> None:
        """Tell the other end, after what was told before, if it is still there."""
        async with self._telling:
            with suppress(*_GONE):
                await self._stream.send_all(json.dumps(words, default=str).encode() + b"\n")

    async def hear(self) -> dict[str, Any] | None:
        """The next that the other end tells; None once it is gone.  To cancel it loses nothing."""
        while not self._lines:
            try:
                data = await self._stream.receive_some(_PIECE)
            except _GONE:
                return None
            if not data:
                return None
            *whole, self._unfinished = (self._unfinished + data).split(b"\n")
            self._lines.extend(whole)
        heard: dict[str, Any] = json.loads(self._lines.popleft())
        return heard

    def close(self) -> None:
        """Close this end."""
        self._stream.socket.close()
