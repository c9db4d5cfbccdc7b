"""The lane: the open plain connections, served together, without a task switch for each echo.

To wake a Trio task takes longer than all else about a small echo.  So an open
connection's task hands its socket and its session over, and sleeps: one task waits for an
epoll of all of them, and does for whoever is ready what the connection would do, receive,
session, send.  The connection is given back where there is something to decide.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from echo_service.transport import SocketTransport

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Collection

    from echo_service.session import Session

SLICE: Final = 0.001
"""Seconds after which the lane gives way to the rest of the program."""

LEAST: Final = 65536
MOST: Final = 2097152
"""Bytes that are received at once, into one buffer for all: a message of a MiB is whole.  It
is the message limit between these two, for as much may have to wait for a peer."""

AVAILABLE: Final = hasattr(select, "epoll")
"""Whether this platform has what a lane needs."""


class Lane:
    """An epoll, the sockets in it, and the buffer they share.

    `run` is to be running as long as anybody rides, and `close` comes after the last.
    """

    def __init__(self, max_message_size: int) -> None:
        self._epoll = select.epoll()
        self._riders: dict[int, Rider] = {}
        self._again: dict[int, None] = {}
        """Whose sessions hold some, in the order of their turns."""
        self._buffer = memoryview(bytearray(min(max(LEAST, max_message_size), MOST)))
        self._buffers = (self._buffer,)

    def close(self) -> None:
        """Close the epoll; nobody may ride any more."""
        self._epoll.close()

    async def run(self) -> None:
        """Serve whoever is ready, for ever; a millisecond at a time."""
        riders = self._riders
        while True:
            await trio.lowlevel.wait_readable(self._epoll)
            until = time.monotonic() + SLICE
            now = trio.current_time()
            while ready := self._ready():
                for fd in ready:
                    rider = riders.get(fd)
                    if rider is not None:  # it may have left in the meantime
                        rider.active = now
                        self._serve(rider)
                    if time.monotonic() > until:
                        await trio.lowlevel.checkpoint()
                        until = time.monotonic() + SLICE
                        now = trio.current_time()

    def _ready(self) -> Collection[int]:
        """Who has bytes to be received, and one whose session holds some.

        Of these only one: each may work for milliseconds, and whoever comes is to wait for one
        of them, not for all.
        """
        ready: Collection[int] = dict(self._epoll.poll(0))
        if self._again:
            first = next(iter(self._again))
            ready = [*(fd for fd in ready if fd not in self._again), first]
            del self._again[first]
        return ready

    def _serve(self, rider: Rider) -> None:
        """Receive once, and send what is to be sent; give the connection back if need be."""
        session = rider.session
        try:
            if session.holds:
                out = session.receive()
            else:
                size = os.readv(rider.fd, self._buffers)
                if not size:
                    return self._give_back(rider, goes_on=False)
                out = session.receive(self._buffer[:size])
        except BlockingIOError:
            return None
        except Exception as error:
            rider.error = error
            return self._give_back(rider, goes_on=False)
        rider.send_now(out)
        if rider.once or rider.rest or session.verdict is not None:
            self._give_back(rider, goes_on=True)
        elif session.holds:
            self._again[rider.fd] = None
        return None

    def _give_back(self, rider: Rider, *, goes_on: bool) -> None:
        self.leave(rider)
        rider.goes_on = goes_on
        trio.lowlevel.reschedule(rider.task)

    def enter(self, rider: Rider) -> None:
        """Let a connection ride; its task has gone to sleep, or will before the next checkpoint."""
        self._epoll.register(rider.fd, select.EPOLLIN)
        self._riders[rider.fd] = rider

    def leave(self, rider: Rider) -> None:
        """Let a connection ride no longer; its socket is still open."""
        del self._riders[rider.fd]
        self._again.pop(rider.fd, None)
        self._epoll.unregister(rider.fd)


@asynccontextmanager
async def opened(max_message_size: int, *, wanted: bool) -> AsyncIterator[Lane | None]:
    """A lane that runs; None if it is not wanted, and where the platform has no epoll."""
    if not wanted or not AVAILABLE:
        yield None
        return
    lane = Lane(max_message_size)
    try:
        async with trio.open_nursery() as tasks:
            tasks.start_soon(lane.run)
            yield lane
            tasks.cancel_scope.cancel()
    finally:
        lane.close()


class Rider(SocketTransport):
    """A socket that rides in a lane while bytes are exchanged on it."""

    __slots__ = ("_lane", "error", "goes_on", "once", "session", "task")

    session: Session
    task: trio.lowlevel.Task
    once: bool
    goes_on: bool

    def __init__(self, lane: Lane, sock: socket.socket) -> None:
        """Take charge of ``sock``."""
        super().__init__(sock)
        self._lane = lane
        self.error: Exception | None = None

    async def exchange(self, session: Session, *, once: bool = False) -> bool:
        """Have the lane receive and send, until there is something to decide."""
        while session.holds:
            await self.give_way()
            self.send_now(session.receive())
            if self.rest or session.verdict is not None:
                return True
        await trio.lowlevel.checkpoint_if_cancelled()
        self.session = session
        self.once = once
        self.task = trio.lowlevel.current_task()
        self._lane.enter(self)
        await trio.lowlevel.wait_task_rescheduled(self._abort)
        error, self.error = self.error, None
        if isinstance(error, OSError):
            raise trio.BrokenResourceError from error
        if error is not None:
            raise error
        return self.goes_on

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._lane.leave(self)
        return trio.lowlevel.Abort.SUCCEEDED
