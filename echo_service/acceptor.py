"""Accepting: connections taken from listening sockets, each served in a task of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from echo_service import listeners
from echo_service.logs import logger

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from echo_service.connection import Connection
    from echo_service.listeners import Listening

AT_ONCE: Final = 16
"""Connections that are accepted before the rest of the program has its turn."""

PAUSE: Final = 0.1
"""Seconds until the next try after an accept that failed, or that there was no room for."""


class Acceptor:
    """Who is connected, and who is let in.

    There is ``room`` for so many ``connections``; whoever finds none waits in the kernel's
    backlog, until one of them ends or need no longer linger.  ``connect`` makes a `Connection`
    of an accepted socket and the peer's name.
    """

    def __init__(self, room: int, connect: Callable[[socket.socket, str], Connection]) -> None:
        self.connections: dict[Connection, None] = {}
        """In the order in which they came."""
        self.ended = trio.lowlevel.ParkingLot()
        """Where to wait until one more has ended."""
        self._room = room
        self._connect = connect

    async def run(self, listening: Listening, scope: trio.CancelScope, tasks: trio.Nursery) -> None:
        """Accept connections until ``scope`` is cancelled; no failure to accept ends it.

        Then the socket is closed, so that whoever comes is refused and does not wait in vain.
        """
        failing = False
        sock = listening.share()
        with scope:
            while True:
                await trio.lowlevel.wait_readable(sock)
                for _ in range(AT_ONCE):
                    while len(self.connections) >= self._room:
                        self._hurry()
                        with trio.move_on_after(PAUSE):  # some may begin to linger, too
                            await self.ended.park()
                    if scope.cancel_called:  # too late: it had been woken already
                        break
                    try:
                        accepted, address = sock.accept()
                    except (BlockingIOError, ConnectionAbortedError):
                        break
                    except OSError as error:
                        if not failing:
                            where, words = listening.address, str(error)
                            logger.error("server.accept_failed", address=where, error=words)
                        failing = True
                        await trio.sleep(PAUSE)
                        break
                    failing = False
                    self._take(accepted, address, tasks)
        sock.close()

    def _take(self, sock: socket.socket, address: object, tasks: trio.Nursery) -> None:
        """Begin to serve a connection; whatever is wrong with it stays with it."""
        try:
            connection = self._connect(sock, listeners.name(address))
        except Exception:
            logger.exception("connection.failed")
            sock.close()
            return
        self.connections[connection] = None
        tasks.start_soon(self._serve, connection)

    def _hurry(self) -> None:
        """End the linger of whoever came first of those that have nothing else to do."""
        for connection in self.connections:
            if connection.lingers:
                connection.hurry()
                return

    async def _serve(self, connection: Connection) -> None:
        try:
            await connection.run()
        finally:
            del self.connections[connection]
            self.ended.unpark_all()
