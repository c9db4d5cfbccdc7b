"""What a connection reads from and writes to: a socket of ours, or any Trio stream.

A socket that we have accepted is not made a `trio.SocketStream`.  That one receives in
vain before it waits, and yields to every other task in each accept, half-close and close;
a handshake would take nearly twice as much.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import termios
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from echo_service.codec import Octets
    from echo_service.session import Session

RECEIVE: Final = 65536
"""Bytes that are received at once."""

PIECE: Final = 16384
"""Bytes that a stream is given at once, where it does not tell what it has taken."""

AT_ONCE: Final = 2097152
"""Bytes of an echo after which the rest is left to whoever waits: others have their turn."""

NOTHING: Final = memoryview(b"")

_NO_LINGER: Final = struct.pack("ii", 1, 0)


class Transport(ABC):
    """The way to a peer and back.  Whoever uses it closes it, by `aclose` or `abort`.

    All that waits or sends raises `trio.BrokenResourceError` once the connection is broken.
    """

    __slots__ = ("active", "queue", "rest", "turn")

    def __init__(self) -> None:
        self.active = 0.0
        """When something last arrived, by Trio's clock; 0 until something has."""
        self.rest = NOTHING
        """What `send_now` has left to be sent, by `send_some`."""
        self.queue: trio.Semaphore | None = None
        """Where a session that holds some waits for its turn: each may work for milliseconds."""
        self.turn: Callable[[], Awaitable[None]] | None = None
        """What a socket that has become readable waits for before it receives, so that not all
        that have are served in one pass of the event loop."""

    @abstractmethod
    async def receive(self) -> bytes | bytearray:
        """The next bytes, none at the end of the stream."""

    @abstractmethod
    def send_now(self, data: Octets) -> None:
        """Send what goes without waiting; ``rest`` is what doesn't.  There is no rest before."""

    @abstractmethod
    async def send_some(self) -> None:
        """Wait until some of the rest can be sent, and send it."""

    @property
    def blocked(self) -> bool:
        """Whether the peer has to take something before more can be sent."""
        return len(self.rest) > 0

    @property
    def untaken(self) -> int:
        """Bytes that were sent and that the peer has not taken yet, as far as can be told."""
        return 0

    @abstractmethod
    async def half_close(self) -> bool:
        """Send our end of stream, if that leaves the peer's to be read; whether it does."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close it in good order."""

    @abstractmethod
    async def abort(self) -> None:
        """Close it at once."""

    async def reset(self) -> None:
        """Close it so that the peer notices: TCP resets the connection (RFC 9293 3.5.2)."""
        await self.abort()

    @property
    def unread(self) -> bool:
        """Whether bytes have arrived that were not received, as far as can be told."""
        return False

    @property
    def deaf(self) -> bool:
        """Whether nothing is being received, because an echo is to wait."""
        return False

    def let_go(self) -> Octets:
        """An echo that waits, to be sent before what ends the connection."""
        return b""

    async def exchange(self, session: Session, *, once: bool = False) -> bool:
        """Receive, and send what the session answers, until there is something to decide.

        There is when there is a ``rest``, when the session has ended (True), or when the
        peer has ended the stream (False); with ``once``, when anything has arrived (True).
        Raises whatever the session raises.  To cancel it loses nothing: bytes are received
        as long as it waits, not after.
        """
        while (answer := await self._answer(session)) is not None:
            self.send_now(answer)
            if once or self.rest or session.verdict is not None:
                return True
        return False

    async def _answer(self, session: Session) -> Octets | None:
        """What the session has to say next; None at the end of the stream."""
        if session.holds:
            await self.give_way()
            return session.receive()
        data = await self.receive()
        if not data:
            return None
        self.active = trio.current_time()
        return session.receive(data)

    async def give_way(self) -> None:
        """Let the rest of the program have its turn, and who queues here before."""
        if self.queue is None:
            await trio.lowlevel.checkpoint()
        else:
            async with self.queue:
                pass  # whoever is next is woken now, to run in the next pass


class StreamTransport(Transport):
    """Any Trio stream, as an embedding program has it."""

    __slots__ = ("_stream",)

    def __init__(self, stream: trio.abc.Stream) -> None:
        """Take charge of ``stream``."""
        super().__init__()
        self._stream = stream

    async def receive(self) -> bytes | bytearray:
        """The next bytes."""
        return await self._stream.receive_some(RECEIVE)

    def send_now(self, data: Octets) -> None:
        """Nothing goes without waiting."""
        self.rest = memoryview(data)

    async def send_some(self) -> None:
        """Send a piece; if it is cancelled, some of it may be sent."""
        piece = self.rest[:PIECE]
        await self._stream.send_all(piece)
        self.rest = self.rest[len(piece) :]

    async def half_close(self) -> bool:
        """Send our end of stream, where the stream has two."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()
            return True
        return False

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()

    async def abort(self) -> None:
        """Close the stream forcefully."""
        await trio.aclose_forcefully(self._stream)


class SocketTransport(Transport):
    """A connected socket.  Only waiting yields to other tasks, nothing else here does."""

    __slots__ = ("_socket", "fd")

    def __init__(self, sock: socket.socket) -> None:
        """Take charge of ``sock``."""
        super().__init__()
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self._socket = sock
        self.fd = sock.fileno()

    async def receive(self) -> bytes:
        """The next bytes."""
        while True:
            await trio.lowlevel.wait_readable(self.fd)
            if self.turn is not None:
                await self.turn()
            try:
                return os.read(self.fd, RECEIVE)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError from error

    def send_now(self, data: Octets) -> None:
        """Send what the kernel takes; an error is there again for whoever sends the rest."""
        sent, size = 0, len(data)
        try:
            while sent < size and sent < AT_ONCE:
                sent += os.write(self.fd, memoryview(data)[sent:] if sent else data)
        except OSError:
            pass
        if sent < size:
            self.rest = memoryview(data)[sent:]

    async def send_some(self) -> None:
        """Wait until the kernel takes something; if it is cancelled, nothing was sent."""
        while True:
            await trio.lowlevel.wait_writable(self.fd)
            try:
                sent = os.write(self.fd, self.rest)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError from error
            self.rest = self.rest[sent:] if sent < len(self.rest) else NOTHING
            return

    @property
    def untaken(self) -> int:
        """What the kernel still holds (SIOCOUTQ), where it tells."""
        return self._bytes_in(termios.TIOCOUTQ)

    @property
    def unread(self) -> bool:
        """Whether the kernel holds some for us (SIOCINQ), where it tells."""
        return self._bytes_in(termios.FIONREAD) > 0

    def _bytes_in(self, queue: int) -> int:
        try:
            answer = fcntl.ioctl(self.fd, queue, bytes(4))
        except OSError:
            return 0
        held: int = struct.unpack("i", answer)[0]
        return held

    async def half_close(self) -> bool:
        """Send our FIN."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise trio.BrokenResourceError from error
        return True

    async def aclose(self) -> None:
        """Close the socket, which nobody may be waiting for."""
        self._socket.close()

    async def abort(self) -> None:
        """Close the socket, which is never more than that."""
        self._socket.close()

    async def reset(self) -> None:
        """Close the socket with a linger of nothing; what the peer has not taken is lost."""
        with suppress(OSError):  # it may be reset already
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._socket.close()
