"""One process that serves, as the command starts it."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from echo_service import config, signals
from echo_service.config import Config, ConfigError
from echo_service.logs import logger
from echo_service.server import serve
from echo_service.systemd import Notifier

if TYPE_CHECKING:
    from echo_service.server import Server

_MALLOPT: Final = {
    -3: 2 * 1024 * 1024,  # M_MMAP_THRESHOLD
    -1: 4 * 1024 * 1024,  # M_TRIM_THRESHOLD
}
"""What glibc is told (mallopt(3)): from how many bytes on a block is taken from the system and
given back at once, and how many bytes of free memory may be kept."""


class Process:
    """A server, as signals see it."""

    lives = True  # else nobody would ask

    def __init__(self, server: Server, options: Config) -> None:
        self._server = server
        self._options = options
        self.pids = server.pids

    @property
    def urls(self) -> list[str]:
        """The addresses as bound."""
        return self._server.urls

    @property
    def connections(self) -> int:
        """How many WebSocket connections are open."""
        return self._server.connections

    async def serves(self) -> None:
        """Nothing to wait for."""

    async def drain(self) -> None:
        """Stop gracefully."""
        await self._server.drain()

    async def reload(self) -> str | None:
        """Read the certificate again; the log says what came of it."""
        if self._options.tls_cert is None:
            logger.info("reload.ignored", cause="there is no certificate to read again")
            return None
        try:
            self._server.reload()
        except ConfigError as error:
            logger.error("certificate.kept", error=config.spoken(error))
            return str(error)
        logger.info("certificate.reloaded")
        return None


async def run(options: Config) -> int:
    """Serve until a signal says otherwise; returns the exit code."""
    bound_kept_memory()
    with signals.received() as received:
        async with trio.open_nursery() as nursery:
            server: Server = await nursery.start(serve, options)
            manager = Notifier(os.environ, os.getpid())
            code = await signals.obey(received, Process(server, options), manager)
            nursery.cancel_scope.cancel()
    return code


def bound_kept_memory() -> None:
    """Have glibc give back what a message of more than 2 MiB took, and keep what others took.

    Left alone, glibc moves both bounds with what it sees freed: it would keep 16 MiB for the
    next message of that size, and after a start without large ones give back each MiB at once.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, size in _MALLOPT.items():
            mallopt(parameter, size)
