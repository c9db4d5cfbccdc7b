"""A server: its listening sockets, the connections accepted on them, and the drain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from echo_service import listeners, tls
from echo_service.config import RESERVED_FILES, Config, connections_allowed
from echo_service.connection import Connection
from echo_service.logs import logger, readiness
from echo_service.registry import Registry

if TYPE_CHECKING:
    from echo_service.listeners import Listening
    from echo_service.registry import Outcome, Statistics

ACCEPT_PAUSE: Final = 0.1
"""Seconds until the next accept after one that failed for want of files or memory."""


class Server:
    """A running service, as ``nursery.start(serve, config)`` returns it."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._certificate = None
        if config.tls_cert is not None and config.tls_key is not None:
            self._certificate = tls.Certificate(config.tls_cert, config.tls_key)
        self._listening: list[Listening] = []
        most = min(config.max_connections, connections_allowed())
        if most < config.max_connections:
            logger.warning("server.few_files", max_connections=most, asked=config.max_connections)
        self._registry = Registry(most)
        self._connections: set[Connection] = set()
        # Beyond the open connections there is room for some that are only being answered;
        # whoever finds none waits in the kernel's backlog, and no file limit is met.
        self._room = trio.Semaphore(most + RESERVED_FILES // 2)
        self._ended = trio.lowlevel.ParkingLot()
        self._accepting_ended = False
        self._drain_asked = trio.Event()
        self._stopped = trio.Event()

    @property
    def urls(self) -> list[str]:
        """The addresses as bound: ``ws://127.0.0.1:41871``, or ``ws+unix:/run/echo``."""
        return [each.url(self._config.scheme) for each in self._listening]

    def statistics(self) -> Statistics:
        """A frozen snapshot of what the server has counted."""
        return self._registry.statistics()

    async def drain(self) -> None:
        """Stop gracefully, as SIGTERM does; returns when no task and no socket is left.

        Nobody is let in any more (503, and /readyz says so), every open connection gets a
        Close with the drain code after the echo that is on its way, and their closing
        handshakes are waited for, all within the drain timeout.
        """
        self._drain_asked.set()
        await self._stopped.wait()

    def reload(self) -> None:
        """Read certificate and key again, for the connections to come.

        Raises `ConfigError` where that can't be done; the old ones stay in use.
        """
        if self._certificate is not None:
            self._certificate.reload()

    async def _run(self, listening: list[Listening], status: trio.TaskStatus[Server]) -> None:
        self._listening = listening
        accepting = [(each, trio.CancelScope()) for each in listening]
        async with trio.open_nursery() as tasks:
            for each, scope in accepting:
                tasks.start_soon(self._accept, each, scope, tasks)
                url = each.url(self._config.scheme)
                readiness.info("server.listening", address=each.address, url=url)
            status.started(self)
            await self._drain_asked.wait()
            logger.info("server.draining", connections=len(self._registry))
            self._registry.draining = True
            for each, scope in accepting:
                if each.passed:  # it outlives us: whoever connects from now on is the next one's
                    scope.cancel()
            with trio.move_on_after(self._config.drain_timeout):
                for connection in list(self._connections):
                    if connection.is_open:
                        connection.drain()
                while len(self._registry):
                    await self._ended.park()
                self._accepting_ended = True
                for _, scope in accepting:
                    scope.cancel()
                for connection in list(self._connections):
                    connection.drain()
                while self._connections:
                    await self._ended.park()
            tasks.cancel_scope.cancel()
        logger.info("server.stopped")

    async def _accept(
        self, listening: Listening, scope: trio.CancelScope, tasks: trio.Nursery
    ) -> None:
        """Accept connections until ``scope`` is cancelled; no failure to accept ends it."""
        failing = False
        with scope:
            while True:
                await self._room.acquire()
                try:
                    stream = await listening.listener.accept()
                except OSError as error:
                    self._room.release()
                    if not failing:
                        address, words = listening.address, str(error)
                        logger.error("server.accept_failed", address=address, error=words)
                    failing = True
                    await trio.sleep(ACCEPT_PAUSE)
                else:
                    failing = False
                    self._take(stream, tasks)

    def _take(self, stream: trio.SocketStream, tasks: trio.Nursery) -> None:
        """Begin to serve a connection; whatever is wrong with it stays with it."""
        try:
            road: trio.abc.Stream = stream
            if self._certificate is not None:
                road = tls.TLSStream(stream, self._certificate.context)
            connection = Connection(road, self._config, self._registry, peer_of(stream))
        except Exception:
            logger.exception("connection.failed")
            stream.socket.close()
            self._room.release()
            return
        self._connections.add(connection)
        tasks.start_soon(self._serve, connection)
        if self._accepting_ended:  # Trio had accepted it already when accepting was cancelled
            connection.drain()

    async def _serve(self, connection: Connection) -> None:
        try:
            await connection.run()
        finally:
            self._connections.remove(connection)
            self._room.release()
            self._ended.unpark_all()


async def serve(
    config: Config, *, task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until `Server.drain` has been called, or this is cancelled.

    ``nursery.start`` returns the `Server`, once all addresses are listened on.  Installs
    no signal handler and sets up no logging.  To cancel it is an immediate stop, which
    leaves no task and no socket.  Raises `ConfigError` for a certificate that can't be
    used, and `BindError` (an OSError) for an address that can't be listened on.
    """
    server = Server(config)
    try:
        async with listeners.opened(config.bind) as listening:
            await server._run(listening, task_status)
    finally:
        server._stopped.set()


async def serve_stream(stream: trio.abc.Stream, config: Config) -> Outcome:
    """Serve one connection on any Trio stream, close it, and return how it ended.

    The stream is used as it is: for TLS pass a `trio.SSLStream`.  Never raises, whatever
    the peer does, but for `trio.Cancelled`.
    """
    return await Connection(stream, config, Registry(1), peer_of(stream)).run()


def peer_of(stream: trio.abc.Stream) -> str:
    """The peer's address, as ``192.0.2.1:5000``; ``unknown`` where there is none."""
    below: object = stream
    while hasattr(below, "transport_stream"):
        below = below.transport_stream
    try:
        return listeners.name(below.socket.getpeername()) if hasattr(below, "socket") else "unknown"
    except OSError:
        return "unknown"
