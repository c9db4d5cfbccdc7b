"""A transport as its client has asked for: each echo waits, and goes out in small frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from echo_service.shaping import ShapedSession, fragments
from echo_service.transport import NOTHING, Transport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from echo_service.codec import Octets
    from echo_service.controls import Controls
    from echo_service.session import Session


class PacedTransport(Transport):
    """An open connection's transport, by way of which a shaped session echoes.

    It is used by the connection's own task, also where what is below could ride in a lane.
    """

    __slots__ = ("_below", "_delay", "_due", "_most", "_pieces", "_session")

    def __init__(self, below: Transport, session: ShapedSession, controls: Controls) -> None:
        """Take charge of ``below``, on which nothing is left to be sent."""
        super().__init__()
        self._below = below
        self.queue = below.queue
        self._session = session
        self._delay = controls.delay or 0.0
        self._due: float | None = None
        self._most = controls.fragment
        self._pieces: Iterator[Octets] = iter(())

    @property
    def deaf(self) -> bool:
        """Whether an echo waits: nothing is received until it has been sent."""
        return self._due is not None

    async def _answer(self, session: Session) -> Octets | None:
        """As that of any transport, but that each echo waits.  To cancel it loses nothing."""
        if self._session.held is not None:
            return await self._wait()
        return await super()._answer(session)

    async def _wait(self) -> bytes | bytearray:
        """The echo that is held, when it has waited long enough."""
        if self._due is None:
            self._due = trio.current_time() + self._delay
        await trio.sleep_until(self._due)
        self._due = None
        self.active = trio.current_time()  # before, nobody could have shown a sign of life
        return self._session.release()

    def let_go(self) -> Octets:
        """The echo that is held; it waits no longer."""
        self._due = None
        return self._session.let_go()

    async def receive(self) -> bytes | bytearray:
        """The next bytes."""
        return await self._below.receive()

    def send_now(self, data: Octets) -> None:
        """Send the first piece; each of the others is a rest, and others have their turn."""
        self._pieces = iter((data,)) if self._most is None else fragments(data, self._most)
        self._give(next(self._pieces, b""))

    def _give(self, piece: Octets) -> None:
        self._below.send_now(piece)
        self._look_on()

    def _look_on(self) -> None:
        """See what is left to be sent: of this piece, or else the next one."""
        self.rest = self._below.rest or memoryview(next(self._pieces, NOTHING))

    async def send_some(self) -> None:
        """Send some of the rest."""
        if self._below.rest:
            await self._below.send_some()
            self._look_on()
        else:
            await trio.lowlevel.checkpoint()
            self._give(self.rest)

    @property
    def blocked(self) -> bool:
        """Whether the peer has to take something first, and not only a frame to be made."""
        return self._below.blocked

    @property
    def untaken(self) -> int:
        """Bytes that the peer has not taken yet."""
        return self._below.untaken

    @property
    def unread(self) -> bool:
        """Whether bytes have arrived that are looked for now."""
        return not self.deaf and self._below.unread

    async def half_close(self) -> bool:
        """Send our end of stream."""
        return await self._below.half_close()

    async def aclose(self) -> None:
        """Close what is below."""
        await self._below.aclose()

    async def abort(self) -> None:
        """Close what is below at once."""
        await self._below.abort()

    async def reset(self) -> None:
        """Reset what is below."""
        await self._below.reset()
