"""The second address: metrics and health for the operator, and no echo."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

import trio

from echo_service import endpoints
from echo_service.acceptor import Acceptor
from echo_service.connection import Connection
from echo_service.logs import readiness
from echo_service.registry import Registry
from echo_service.transport import SocketTransport

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    import h11

    from echo_service.config import Config
    from echo_service.counts import Counts
    from echo_service.endpoints import Answer
    from echo_service.listeners import Listening

ROOM: Final = 16
"""Clients that are answered at a time; the others wait in the kernel's backlog."""

TIMEOUT: Final = 2.0
"""Seconds that a client has for its request: sixteen silent ones are not to hold up a probe."""


class Source(Protocol):
    """Whom the operator asks about: a server, or the parent of several."""

    @property
    def ready(self) -> bool:
        """Whether connections are accepted now."""

    def counts(self) -> Counts:
        """What has been counted so far."""

    def pids(self) -> Sequence[int]:
        """The processes that the service consists of."""

    def cpu_of_the_dead(self) -> float:
        """Seconds of CPU time that others have taken which have ended."""


async def answer(config: Config, listening: Sequence[Listening], source: Source) -> None:
    """Answer for ever on these addresses, if there are any, what is asked about ``source``."""
    if not listening:
        return
    from echo_service.metrics import Metrics  # noqa: PLC0415 - not loaded for nothing

    metrics = Metrics(source.counts, source.pids, source.cpu_of_the_dead)
    registry = Registry(0)
    hurried = replace(config, handshake_timeout=min(config.handshake_timeout, TIMEOUT))

    def decide(request: h11.Request) -> Answer:
        return endpoints.answer_admin(request, ready=source.ready, metrics=metrics.answer)

    def connect(sock: socket.socket, peer: str) -> Connection:
        return _Visit(decide, SocketTransport(sock), hurried, registry, peer)

    acceptor = Acceptor(ROOM, connect)
    async with trio.open_nursery() as tasks:
        for each in listening:
            tasks.start_soon(acceptor.run, each, trio.CancelScope(), tasks)
            readiness.info("server.listening", address=each.address, url=each.url("http"))


class _Visit(Connection):
    """A connection on which no request is an opening handshake."""

    __slots__ = ("_answer_to",)

    def __init__(
        self,
        answer_to: Callable[[h11.Request], Answer],
        transport: SocketTransport,
        config: Config,
        registry: Registry,
        peer: str,
    ) -> None:
        super().__init__(transport, config, registry, peer)
        self._answer_to = answer_to

    def decide(self, request: h11.Request) -> Answer:
        """What the request is answered; raises `Refused`."""
        return self._answer_to(request)
