"""A server: its listening sockets, the connections accepted on them, and the drain."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import trio

from echo_service import admin, lane, listeners, tls
from echo_service.acceptor import Acceptor
from echo_service.config import RESERVED_FILES, Config, ConfigError, connections_allowed
from echo_service.connection import Connection
from echo_service.lane import Rider
from echo_service.logs import lifecycle, logger, readiness
from echo_service.registry import Registry
from echo_service.transport import SocketTransport, StreamTransport

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from echo_service.counts import Counts
    from echo_service.lane import Lane
    from echo_service.listeners import Listening
    from echo_service.registry import Outcome, Statistics
    from echo_service.transport import Transport


HANDSHAKES: Final = 16
"""Opening handshakes in one pass of the event loop: whoever is connected has a turn after them."""

HANDSHAKE_UNDER_WAY: Final = 1.0
"""Seconds in which the request of a client that has connected should have come."""


class Server:
    """A running service, as ``nursery.start(serve, config)`` returns it."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._certificate = None
        if config.tls_cert is not None and config.tls_key is not None:
            self._certificate = tls.Certificate(config.tls_cert, config.tls_key)
        self._door = trio.Semaphore(HANDSHAKES)
        self._queue = trio.Semaphore(1)
        self._lane: Lane | None = None
        self._listening: Sequence[Listening] = ()
        most = min(config.max_connections, connections_allowed())
        if most < config.max_connections:
            logger.warning("server.few_files", max_connections=most, asked=config.max_connections)
        self._registry = Registry(most)
        # Beyond the open connections there is room for some that are only being answered.
        self._acceptor = Acceptor(most + RESERVED_FILES // 2, self._connect)
        self._drain_asked = trio.Event()
        self._stopped = trio.Event()
        self._succeeded = False

    @property
    def urls(self) -> list[str]:
        """The addresses as bound: ``ws://127.0.0.1:41871``, or ``ws+unix:/run/echo``."""
        return [each.url(self._config.scheme) for each in self._listening]

    @property
    def connections(self) -> int:
        """How many WebSocket connections are open."""
        return len(self._registry)

    def statistics(self) -> Statistics:
        """A frozen snapshot of what the server has counted."""
        return self._registry.statistics()

    def counts(self) -> Counts:
        """The same as plain numbers, for metrics."""
        return self._registry.snapshot()

    @property
    def ready(self) -> bool:
        """Whether somebody would be let in now."""
        return self._registry.closed_because is None

    def cpu_of_the_dead(self) -> float:
        """Nothing: there are no other processes."""
        return 0.0

    def pids(self) -> list[int]:
        """The process that serves."""
        return [os.getpid()]

    async def drain(self, *, succeeded: bool = False) -> None:
        """Stop gracefully, as SIGTERM does; returns when no task and no socket is left.

        Nobody is let in any more (503, and /readyz says so), every open connection gets a
        Close with the drain code after the echo that is on its way, and their closing
        handshakes are waited for, all within the drain timeout.  Where another server has
        ``succeeded`` to the sockets, as to passed ones, new clients are left to it.
        """
        self._succeeded = self._succeeded or succeeded
        self._drain_asked.set()
        await self._stopped.wait()

    def reload(self) -> None:
        """Read certificate and key again, for the connections to come.

        Raises `ConfigError` where that can't be done; the old ones stay in use.
        """
        if self._certificate is not None:
            self._certificate.reload()

    async def _run(
        self,
        listening: Sequence[Listening],
        admin_listening: Sequence[Listening],
        status: trio.TaskStatus[Server],
    ) -> None:
        self._listening = listening
        accepting = [(each, trio.CancelScope()) for each in listening]
        async with trio.open_nursery() as tasks:
            for each, scope in accepting:
                tasks.start_soon(self._acceptor.run, each, scope, tasks)
                url = each.url(self._config.scheme)
                readiness.info("server.listening", address=each.address, url=url)
            tasks.start_soon(admin.answer, self._config, admin_listening, self)
            status.started(self)
            await self._drain_asked.wait()
            lifecycle.info("server.draining", connections=len(self._registry))
            await self._leave_passed(accepting)
            self._registry.draining = True
            with trio.move_on_after(self._config.drain_timeout):
                await self._end_all([scope for _, scope in accepting])
            tasks.cancel_scope.cancel()
        lifecycle.info("server.stopped")

    async def _end_all(self, accepting: list[trio.CancelScope]) -> None:
        """Drain the open connections, stop accepting, and drain what is still being answered."""
        connections = self._acceptor.connections
        for connection in list(connections):
            if connection.is_open:
                connection.drain()
        while len(self._registry):
            await self._acceptor.ended.park()
        for scope in accepting:
            scope.cancel()
        for connection in list(connections):
            connection.drain()
        while connections:
            await self._acceptor.ended.park()

    async def _leave_passed(self, accepting: list[tuple[Listening, trio.CancelScope]]) -> None:
        """Leave the passed sockets, which outlive us: who connects from now on is the next one's.

        Who has been accepted already would have been the next one's a moment later, and so is
        not refused: their handshakes are waited for, though not for long.
        """
        passed = [scope for each, scope in accepting if each.passed or self._succeeded]
        for scope in passed:
            scope.cancel()
        accepted = list(self._acceptor.connections) if passed else []
        with trio.move_on_after(HANDSHAKE_UNDER_WAY):
            while any(each.shakes_hands for each in accepted):  # noqa: ASYNC110 - it tells nobody
                await trio.sleep(0.01)

    def _connect(self, sock: socket.socket, peer: str) -> Connection:
        transport = self._transport(sock)
        transport.turn = self._turn
        transport.queue = self._queue
        return Connection(transport, self._config, self._registry, peer)

    async def _turn(self) -> None:
        """Wait for a turn at the opening handshake, where many have not done it yet."""
        if len(self._acceptor.connections) - len(self._registry) > HANDSHAKES:
            async with self._door:
                pass  # whoever waits is woken now, to run in the next pass

    def _transport(self, sock: socket.socket) -> Transport:
        if self._certificate is not None:
            return tls.TLSTransport(sock, self._certificate.context)
        return SocketTransport(sock) if self._lane is None else Rider(self._lane, sock)


async def serve(
    config: Config, *, task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until `Server.drain` has been called, or this is cancelled.

    ``nursery.start`` returns the `Server`, once all addresses are listened on.  Installs
    no signal handler and sets up no logging.  To cancel it is an immediate stop, which
    leaves no task and no socket.  Raises `ConfigError` for a certificate that can't be
    used, and `BindError` (an OSError) for an address that can't be listened on.
    """
    if config.workers != 1:
        raise ConfigError("workers", config.workers, "1 here; several are for the command")
    server = Server(config)
    async with (
        listeners.opened(config.bind) as listening,
        listeners.opened(config.admin_addresses) as admin_listening,
    ):
        await serve_on(server, listening, admin_listening, task_status=task_status)


async def serve_on(
    server: Server,
    listening: Sequence[Listening],
    admin_listening: Sequence[Listening],
    *,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve on sockets that listen already, and close them when they are left; else as `serve`.

    Where this is cancelled, they are still open.
    """
    config = server._config
    try:
        async with lane.opened(config.max_message_size, wanted=config.fast_lane) as ours:
            server._lane = ours
            await server._run(listening, admin_listening, task_status)
    finally:
        server._stopped.set()


async def serve_stream(stream: trio.abc.Stream, config: Config) -> Outcome:
    """Serve one connection on any Trio stream, close it, and return how it ended.

    The stream is used as it is: for TLS pass a `trio.SSLStream`.  Never raises, whatever
    the peer does, but for `trio.Cancelled`.
    """
    transport = StreamTransport(stream)
    return await Connection(transport, config, Registry(1), peer_of(stream)).run()


def peer_of(stream: trio.abc.Stream) -> str:
    """The peer's address, as ``192.0.2.1:5000``; ``unknown`` where there is none."""
    below: object = stream
    while hasattr(below, "transport_stream"):
        below = below.transport_stream
    try:
        return listeners.name(below.socket.getpeername()) if hasattr(below, "socket") else "unknown"
    except OSError:
        return "unknown"
