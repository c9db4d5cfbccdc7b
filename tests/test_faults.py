"""Faults of the machine, for real where they can be had: `docs/reliability.md` has the table."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager

import pytest

from tests import wire

pytestmark = pytest.mark.usefixtures("in_time")


@pytest.fixture
def passed(program, connect):
    """Start the command on a socket of ours, which tells where without a log."""

    @contextmanager
    def listening():
        with socket.create_server(("127.0.0.1", 0), backlog=64) as sock:
            yield sock, "ws://127.0.0.1:{1}".format(*sock.getsockname())

    return listening


# The log


@pytest.fixture
def full_pipe():
    """A pipe that nobody reads and that takes no more; its two ends."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"." * 65536)
    except BlockingIOError:
        os.set_blocking(write, True)
    yield read, write
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_stderr_that_nobody_reads_holds_up_nothing(
    program, connect, passed, full_pipe, workers
):
    with passed() as (sock, url):
        service = await program(
            "serve",
            f"--bind=fd:{sock.fileno()}",
            f"--workers={workers}",
            pass_fds=[sock.fileno()],
            stderr=full_pipe[1],
        )
        client = await connect(url)
        await client.open()
        await client.echo()
        service.process.terminate()
        assert (await client.frame()).opcode == wire.CLOSE
        await client.send(wire.close(1001))
        await client.stream.aclose()
        assert await service.ends() == 0
