"""A service on one machine, its clients on another, and the cable between them."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING

import pytest
import trio

from tests import wire
from tests.conftest import missing
from tests.network.cable import Cable, Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Program

SERVICE, CLIENT, PORT = "192.0.2.1", "192.0.2.2", 8080


@pytest.fixture
def cable() -> Iterator[Cable]:
    """A cable, a new machine at either end of it."""
    for program in ("ip", "nsenter"):
        if shutil.which(program) is None:
            missing(f"{program} is not here; it comes from Debian's iproute2 or util-linux")
    with ExitStack() as stack:
        ends = []
        for address in (SERVICE, CLIENT):
            try:
                ends.append(Machine(address))
            except OSError as error:
                missing(f"no namespace with a TUN device: {error}")
            stack.callback(ends[-1].close)
        yield Cable(*ends)


class Link:
    """A running service, and clients that reach it by the cable."""

    def __init__(self, cable: Cable, service: Program) -> None:
        self.cable = cable
        self.service = service
        self.clients = AsyncExitStack()

    @property
    def pid(self) -> int:
        return self.service.process.pid

    def files(self) -> int:
        """How many descriptors the service has."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    async def dial(self, receive_buffer: int = 0) -> wire.Client:
        """A client that is connected, and its handshake not done."""
        sock = self.cable.client.socket()
        if receive_buffer:
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
        await sock.connect((SERVICE, PORT))
        stream = trio.SocketStream(sock)
        self.clients.push_async_callback(trio.aclose_forcefully, stream)
        return wire.Client(stream)

    async def connect(self, *extra: tuple[str, str], receive_buffer: int = 0) -> wire.Client:
        """A client whose connection is open."""
        client = await self.dial(receive_buffer)
        await client.open("/", *extra)
        return client

    async def closed(self) -> dict[str, object]:
        """The next line of the service's log that tells how a connection ended."""
        return json.loads(await self.service.line("connection.closed"))


@pytest.fixture
async def serve(cable, program, nursery):
    """Start the command on the service's machine, with these options."""
    async with AsyncExitStack() as stack:

        async def serve(*options: str) -> Link:
            service = await program(
                *("serve", "--bind", f"{SERVICE}:{PORT}", "--log-format", "json", *options),
                shell=f'exec nsenter --net={cable.service.namespace} "$@"',
            )
            await service.url()
            for way in (cable.up, cable.down):
                nursery.start_soon(way.carry)
            link = Link(cable, service)
            stack.push_async_exit(link.clients)
            return link

        yield serve
