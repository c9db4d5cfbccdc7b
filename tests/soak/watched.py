"""The command, and beside the service a task that tells what Trio and the service count.

`python -m tests.soak.watched serve --bind ...` is `echo-service serve --bind ...` in all else.
Each line on stdin, ``counts`` or ``objects``, is answered with one of JSON on stdout, and at
the end of stdin the service drains, so that it does not outlive whoever watches it.
"""

from __future__ import annotations

import gc
import json
import os
import signal
from typing import TYPE_CHECKING

import trio

from echo_service import cli, process
from echo_service.connection import Connection
from echo_service.server import Server, serve
from echo_service.session import Session

if TYPE_CHECKING:
    from echo_service.registry import Outcome

LEAK = int(os.environ.get("SOAK_LEAK", "0"))
"""Bytes that are kept for each connection that has ended, to see that it is noticed."""


async def serve_watched(
    config: process.Config, *, task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED
) -> None:
    """`serve`, and beside it what answers."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, config)
        if LEAK:
            leak(server)
        nursery.start_soon(answer, server)
        task_status.started(server)


async def answer(server: Server) -> None:
    """Tell what is asked for."""
    async with (
        trio.lowlevel.FdStream(os.dup(0)) as asked,
        trio.lowlevel.FdStream(os.dup(1)) as told,
    ):
        while question := await asked.receive_some():
            answer = counted(server) if question == b"counts\n" else objects()
            await told.send_all(json.dumps(answer).encode() + b"\n")
    signal.raise_signal(signal.SIGTERM)


def counted(server: Server) -> dict[str, object]:
    """Trio's tasks, and the server's counts."""
    statistics = server.statistics()
    return {
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "connections": statistics.connections,
        "opened": statistics.connections_total,
        "texts": statistics.texts,
        "binaries": statistics.binaries,
        "octets": statistics.octets,
        "endings": {ending.value: many for ending, many in statistics.endings.items()},
        "refused": dict(statistics.refused),
    }


def objects() -> dict[str, object]:
    """The connections and sessions that memory holds; takes seconds where there are many."""
    gc.collect()
    return {"objects": sum(isinstance(each, Connection | Session) for each in gc.get_objects())}


def leak(server: Server) -> None:
    """Keep some bytes of each connection that ends."""
    kept: list[bytes] = []
    count = server._registry._count

    def keep_some(outcome: Outcome) -> None:
        kept.append(b"x" * LEAK)
        count(outcome)

    server._registry._count = keep_some


if __name__ == "__main__":
    process.serve = serve_watched
    cli.main()
