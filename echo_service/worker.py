"""One of several processes that serve together; `workers` starts it."""

from __future__ import annotations

import dataclasses
import socket
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

import trio

from echo_service import config, logs, process, signals
from echo_service.channel import Channel
from echo_service.config import Config, ConfigError
from echo_service.listeners import Listening
from echo_service.logs import logger
from echo_service.process import Process
from echo_service.server import Server, serve_on
from echo_service.systemd import Notifier

if TYPE_CHECKING:
    from collections.abc import Sequence

EVERY: Final = 1.0
"""Seconds between two reports to the parent, which are signs of life too."""


def instructions(number: int, options: Config, listening: Sequence[Listening]) -> dict[str, Any]:
    """What a worker is told first; it inherits the sockets, under the same numbers."""
    return {
        "worker": number,
        "options": dataclasses.asdict(options) | {"workers": 1, "admin_bind": None},
        "listening": [
            (each.share(number).fileno(), each.address, each.passed) for each in listening
        ],
    }


def main() -> NoReturn:
    """Serve as one of several; what to do comes from the parent, on stdin."""
    sys.exit(trio.run(_run, Channel(socket.socket(fileno=0))))


async def _run(parent: Channel) -> int:
    process.bound_kept_memory()
    with signals.received() as received:
        told = await parent.hear()
        if told is None:
            return 1
        options = Config(**told["options"])
        logs.configure(options.log_format, options.log_level, told["worker"])
        listening = [
            Listening((socket.socket(fileno=fd),), address, passed)
            for fd, address, passed in told["listening"]
        ]
        try:
            server = Server(options)
        except ConfigError as error:
            logger.error("worker.failed", error=config.spoken(error))
            return 1
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_on, server, listening, ())
            service = _Worker(server, options)
            leave = trio.Event()
            nursery.start_soon(_report, parent, server)
            nursery.start_soon(_follow, parent, service, leave)
            code = await signals.obey(received, service, Notifier({}, 0), leave)
            nursery.cancel_scope.cancel()
        await parent.tell(counts=server.counts().to_json(), ready=False)
    return code


class _Worker(Process):
    """A server whose sockets have another one after it, unless the parent itself is to end."""

    last = False

    async def drain(self) -> None:
        """Stop gracefully."""
        await self._server.drain(succeeded=not self.last)


async def _report(parent: Channel, server: Server) -> None:
    while True:
        await parent.tell(counts=server.counts().to_json(), ready=server.ready)
        await trio.sleep(EVERY)


async def _follow(parent: Channel, service: _Worker, leave: trio.Event) -> None:
    """Do what the parent says, to the drain; once it is gone there is nobody to serve for."""
    while (told := await parent.hear()) is not None and not told.get("drain"):
        await parent.tell(reloaded=await service.reload())
    service.last = True
    leave.set()
