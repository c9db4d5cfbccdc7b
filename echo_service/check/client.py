"""One connection to the endpoint: what is sent, what comes, and how it ends.

Nothing here raises because of what an open connection does, and nothing waits beyond the
deadline: how a connection has ended is a fact to be judged like any other.
"""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Final

import trio

from echo_service.check import wire
from echo_service.check.endpoint import UnreachableError
from echo_service.check.transcript import Transcript
from echo_service.check.wire import (
    CLOSE,
    LARGEST_HEAD,
    PING,
    PONG,
    SPARE,
    Came,
    Ending,
    Frame,
)

if TYPE_CHECKING:
    from echo_service.check.endpoint import Endpoint

_TIMES: Final = 4
"""By how much an echo may be larger: in fragments of one byte each it is three times as large."""

_SPARE_FRAMES: Final = 1024
_ECHOED_FRAMES: Final = 65536
"""Frames that may come whatever was sent, and at most as many more as bytes were sent."""

_CHUNK: Final = 65536

_LEAVE: Final = 1.0
"""Seconds that a closing handshake may take when there is nothing left to judge."""


class NotOpenedError(Exception):
    """The opening handshake was not answered with 101; the text says what came."""


class Client:
    """A connection, until ``deadline`` on Trio's clock; ``ending`` is None while it lasts.

    The first ``greetings`` messages that come are not echoes, and passed over; ``greeted``
    are their frames.  ``owed`` is how many bytes may come back, which bounds what is taken.
    """

    def __init__(self, stream: trio.abc.Stream, deadline: float, greetings: int = 0) -> None:
        self.ending: Ending | None = None
        self.transcript = Transcript()
        self.owed = 0
        self.greeted: list[Frame] = []
        self._stream = stream
        self._deadline = deadline
        self._greetings = greetings
        self._unread = bytearray()
        self._received = 0
        self._frames = 0

    async def send(self, *parts: bytes) -> None:
        """Send the parts, each on its own; what the peer does not take any more is let go."""
        self.owed += sum(map(len, parts))
        await self._send(*parts)

    async def _send(self, *parts: bytes) -> None:
        for part in parts:
            self.transcript.add(">", part)
            try:
                with trio.move_on_at(self._deadline):
                    await self._stream.send_all(part)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            except trio.BusyResourceError:
                return  # a pong, while a check sends what the peer does not take: it can wait

    async def answer(self) -> wire.Answer | None:
        """The head of the answer to a request, or None where there is none that ends."""
        seen = 0
        while (end := self._unread.find(b"\r\n\r\n", seen, LARGEST_HEAD)) < 0:
            seen = max(0, len(self._unread) - 3)
            if len(self._unread) > LARGEST_HEAD:
                self._end(Ending.HEAD)
            if not await self._receive():
                begun = wire.answer(bytes(self._unread[:80]))
                is_cut = self.ending is Ending.HEAD and begun.status
                return None if is_cut or not self._unread else begun
        return wire.answer(self._take(end + 4))

    async def frame(self) -> Frame | None:
        """The next frame, or None where there will be none: see ``ending``.

        A ping is answered, and not returned.
        """
        while frame := await self._next():
            if frame.opcode == PING:
                await self._send(wire.frame(PONG, frame.payload))
            elif frame.is_control or not self._greetings:
                return frame
            else:
                self.greeted.append(frame)
                self._greetings -= frame.fin
        return None

    async def message(self) -> bytes | None:
        """The payload of the next message, put together; None where a Close or nothing comes."""
        payload = bytearray()
        while frame := await self.frame():
            if frame.opcode == CLOSE:
                return None
            if not frame.is_control:
                payload += frame.payload
                if frame.fin:
                    return bytes(payload)
        return None

    async def come(self, whole: int | None = None) -> Came:
        """The frames up to a Close, or the end, or so many ``whole`` messages and pongs."""
        frames: list[Frame] = []
        while whole != 0 and (frame := await self.frame()):
            frames.append(frame)
            if frame.opcode == CLOSE:
                return Came(frames)
            if whole is not None:
                whole -= frame.fin
        return Came(frames, self.ending)

    async def hears(self, seconds: float) -> bool:
        """Whether anything, an end too, comes within so many seconds; nothing of it is lost."""
        with trio.move_on_after(seconds):
            await self._receive()
            return True
        return False

    async def leave(self) -> None:
        """Do the closing handshake, where there is nothing left to judge."""
        with trio.move_on_after(_LEAVE):
            await self.send(wire.close(1000))
            await self.come()

    async def aclose(self) -> None:
        """Close TCP, as a client does that has nothing to wait for."""
        await trio.aclose_forcefully(self._stream)

    async def _next(self) -> Frame | None:
        while not self._is_flooded():
            if not self._is_late() and (taken := wire.take(self._unread)):
                self._take(taken[1])
                self._frames += 1
                return taken[0]
            if not await self._receive():
                return None
        self._end(Ending.FLOOD)
        return None

    def _is_flooded(self) -> bool:
        """Whether more has come, or is announced, than an answer to what was sent can have."""
        extent = wire.extent(self._unread)
        announced = max(0, extent[1] - len(self._unread)) if extent else 0
        return (
            self._received + announced > SPARE + _TIMES * self.owed
            or self._frames > _SPARE_FRAMES + min(self.owed, _ECHOED_FRAMES)
        )

    def _is_late(self) -> bool:
        """Whether the deadline has passed: what has come and was not taken is let go."""
        return trio.current_time() >= self._deadline

    async def _receive(self) -> bool:
        if self.ending is not None:
            return False
        data, ending = b"", Ending.WAITING
        try:
            with trio.move_on_at(self._deadline):
                data = bytes(await self._stream.receive_some(_CHUNK))
                ending = Ending.CLOSED
        except trio.BrokenResourceError:
            ending = Ending.RESET
        if data:
            self.transcript.add("<", data)
        else:
            self._end(ending)
        self._unread += data
        self._received += len(data)
        return bool(data)

    def _end(self, ending: Ending) -> None:
        if self.ending is None:
            self.ending = ending
            self.transcript.add("=", ending.value.encode())

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
        self.endpoint = endpoint
        self.patience = patience
        self._deadline = trio.current_time() + patience
        self._greetings = greetings

    async def connect(self) -> Client:
        """A connection without an opening handshake; raises `UnreachableError`."""
        with trio.move_on_at(self._deadline):
            stream = await self.endpoint.connect()
            self.clients.append(Client(stream, self._deadline, self._greetings))
            return self.clients[-1]
        raise UnreachableError("no connection in time")

    def ask(
        self,
        *extra: tuple[str, str],
        method: str = "GET",
        version: str = "HTTP/1.1",
        **changed: str | None,
    ) -> tuple[bytes, str]:
        """A request for an opening handshake, and what accepts it (RFC 6455 4.1).

        ``Sec_WebSocket_Key=None`` leaves a header out, a text replaces it.
        """
        nonce = base64.b64encode(os.urandom(16)).decode()
        named = {name.replace("_", "-"): value for name, value in changed.items()}
        fields = wire.headers(self.endpoint.authority, nonce) | named
        start = f"{method} {self.endpoint.target} {version}"
        return wire.request(start, fields, extra), wire.accept(nonce)

    async def open(self, *extra: tuple[str, str]) -> Client:
        """A connection after its opening handshake; raises `NotOpenedError` without one."""
        return (await self.negotiate(*extra))[0]

    async def negotiate(self, *extra: tuple[str, str]) -> tuple[Client, wire.Answer]:
        """The same, and the answer."""
        client = await self.connect()
        request, accept = self.ask(*extra)
        await client.send(request)
        answer = await client.answer()
        if answer is None or answer.status != 101:
            raise NotOpenedError(in_words(answer, client.ending))
        if answer.all("sec-websocket-accept") != [accept]:
            raise NotOpenedError("101 with a wrong Sec-WebSocket-Accept")
        return client, answer

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
