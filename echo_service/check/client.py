"""One connection to the endpoint: what is sent, what comes, and how it ends.

Nothing here raises because of what the peer does, and nothing waits beyond the deadline:
how a connection has ended is a fact to be judged like any other.
"""

from __future__ import annotations

import base64
import enum
import os
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from echo_service.check import wire
from echo_service.check.endpoint import UnreachableError
from echo_service.check.wire import CLOSE, PING, PONG, Frame

if TYPE_CHECKING:
    from echo_service.check.endpoint import Endpoint

_LARGEST_HEAD: Final = 65536
"""Bytes of a response's head after which it is none."""

_CHUNK: Final = 65536


class Ending(enum.Enum):
    """Why nothing more comes; the value says it of the peer."""

    CLOSED = "TCP closed"
    RESET = "TCP reset"
    WAITING = "nothing more in time"
    BROKEN = "what no server may send"


class Passed(NamedTuple):
    """Bytes that went by, ``>`` to the peer or ``<`` from it."""

    direction: str
    data: bytes


class NotOpenedError(Exception):
    """The opening handshake was not answered with 101; the text says what came."""


class Client:
    """A connection, until ``deadline`` on Trio's clock; ``ending`` is None while it lasts.

    The first ``greetings`` messages that come are not echoes, and passed over.
    """

    def __init__(self, stream: trio.abc.Stream, deadline: float, greetings: int = 0) -> None:
        self.ending: Ending | None = None
        self.transcript: list[Passed] = []
        self._stream = stream
        self._deadline = deadline
        self._greetings = greetings
        self._unread = bytearray()

    async def send(self, *parts: bytes) -> None:
        """Send the parts, each on its own; what the peer does not take any more is let go."""
        for part in parts:
            self.transcript.append(Passed(">", part))
            try:
                with trio.move_on_at(self._deadline):
                    await self._stream.send_all(part)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async def answer(self) -> wire.Answer | None:
        """The head of the answer to a request, or None where there is none that ends."""
        while (end := self._unread.find(b"\r\n\r\n")) < 0:
            if len(self._unread) > _LARGEST_HEAD or not await self._receive():
                return wire.answer(bytes(self._unread[:80])) if self._unread else None
        return wire.answer(self._take(end + 4))

    async def frame(self) -> Frame | None:
        """The next frame, or None where there will be none: see ``ending``.

        A ping is answered, and not returned.
        """
        while frame := await self._next():
            if frame.opcode == PING:
                await self.send(wire.frame(PONG, frame.payload))
            elif frame.is_control or not self._greetings:
                return frame
            else:
                self._greetings -= frame.fin
        return None

    async def message(self) -> bytes | None:
        """The payload of the next message, put together; None where a Close or nothing comes."""
        payload = b""
        while frame := await self.frame():
            if frame.opcode == CLOSE:
                return None
            if not frame.is_control:
                payload += frame.payload
                if frame.fin:
                    return payload
        return None

    async def aclose(self) -> None:
        """Close TCP, as a client does that has nothing to wait for."""
        await trio.aclose_forcefully(self._stream)

    async def _next(self) -> Frame | None:
        while (taken := wire.take(self._unread)) is None:
            if not await self._receive():
                return None
        self._take(taken[1])
        return taken[0]

    async def _receive(self) -> bool:
        if self.ending is None:
            data = await self._receive_some()
            self._unread += data
            if data:
                self.transcript.append(Passed("<", data))
        return self.ending is None

    async def _receive_some(self) -> bytes:
        try:
            with trio.move_on_at(self._deadline):
                data = await self._stream.receive_some(_CHUNK)
                self.ending = None if data else Ending.CLOSED
                return bytes(data)
            self.ending = Ending.WAITING
        except trio.BrokenResourceError:
            self.ending = Ending.RESET
        return b""

    def _take(self, size: int) -> bytes:
        taken = bytes(self._unread[:size])
        del self._unread[:size]
        return taken


class Trial:
    """The connections of one check, which are closed with it.

    They all end ``patience`` seconds from now.
    """

    def __init__(self, endpoint: Endpoint, patience: float, greetings: int = 0) -> None:
        self.clients: list[Client] = []
        self._endpoint = endpoint
        self._deadline = trio.current_time() + patience
        self._greetings = greetings

    async def connect(self) -> Client:
        """A connection without an opening handshake; raises `UnreachableError`."""
        with trio.move_on_at(self._deadline):
            stream = await self._endpoint.connect()
            self.clients.append(Client(stream, self._deadline, self._greetings))
            return self.clients[-1]
        raise UnreachableError("no connection in time")

    async def open(self, *extra: tuple[str, str]) -> Client:
        """A connection after its opening handshake; raises `NotOpenedError` without one."""
        client = await self.connect()
        nonce = base64.b64encode(os.urandom(16)).decode()
        fields = wire.headers(self._endpoint.authority, nonce)
        await client.send(wire.request(f"GET {self._endpoint.target} HTTP/1.1", fields, extra))
        answer = await client.answer()
        if answer is None or answer.status != 101:
            raise NotOpenedError(in_words(answer, client.ending))
        if answer.all("sec-websocket-accept") != [wire.accept(nonce)]:
            raise NotOpenedError("101 with a wrong Sec-WebSocket-Accept")
        return client

    async def aclose(self) -> None:
        """Close the connections."""
        for client in self.clients:
            await client.aclose()


def in_words(answer: wire.Answer | None, ending: Ending | None) -> str:
    """An answer to an opening handshake, or what came instead."""
    if answer is None:
        return f"no answer, {ending.value if ending else 'or none that ends'}"
    if answer.status == 0:
        return f"no HTTP/1.1 answer: {answer.reason!r}"
    return f"{answer.status} {answer.reason}".strip()
