"""The command, started as anybody would, and what is watched of it while it is attacked."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import trio

from tests import wire
from tests.attacks import process
from tests.conftest import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

MIB = 1 << 20
LIMIT = 4 * MIB
"""The message limit of the services that are attacked: so large a message is a block of its own
for glibc, and is seen to come and to go."""


class Way(NamedTuple):
    """How a service is started."""

    name: str
    options: tuple[str, ...] = ()
    tls: bool = False
    shell: str = 'exec "$@"'


HASTE = ("--stall-timeout", "1", "--close-timeout", "1")

LANE = Way("")
WSPROTO = Way("no fast lane", ("--no-fast-lane",))
TLS = Way("TLS", tls=True)
HASTY = Way("short timeouts", HASTE)
HASTY_WSPROTO = Way("short timeouts, no fast lane", (*HASTE, "--no-fast-lane"))
HASTY_TLS = Way("short timeouts, TLS", HASTE, tls=True)


@contextmanager
def gone_is_fine() -> Iterator[None]:
    """The service may end the connection within."""
    with suppress(trio.BrokenResourceError):
        yield


class Service:
    """A running service; its log goes to a file, a line of JSON an event."""

    def __init__(self, directory: Path, way: Way, certificate: dict[str, str]) -> None:
        self.way = way
        self._log = directory / "log"
        self._trusted = certificate["ca"] if way.tls else None
        self._context = ssl.create_default_context(cafile=self._trusted)
        options = ["--bind", "127.0.0.1:0", "--max-message-size", str(LIMIT)]
        options += ["--log-format", "json", *way.options]
        if way.tls:
            options += ["--tls-cert", certificate["cert"], "--tls-key", certificate["key"]]
        command = ["sh", "-c", way.shell, "sh"]
        command += [sys.executable, "-m", "echo_service", "serve", *options]
        environ = {k: v for k, v in os.environ.items() if not k.startswith("ECHO_SERVICE_")}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stderr=log, env=environ
            )
        self.pid = self.process.pid
        self.port = 0

    async def starts(self) -> None:
        """Wait until it listens."""
        listens = '"event": "server.listening"'
        await eventually(lambda: listens in self.log() or self.process.poll() is not None)
        found = re.search(r'"address": "127.0.0.1:(\d+)"', self.log())
        assert found, self.log()
        self.port = int(found[1])

    def ends(self) -> int:
        """Have it end in good order, and return its exit code."""
        self.process.terminate()
        return self.process.wait()

    def log(self, since: int = 0) -> str:
        """What was logged, from so many bytes on."""
        return self._log.read_bytes()[since:].decode()

    def lines(self, since: int = 0) -> list[dict[str, object]]:
        """The whole lines of that; fails on one that is none of ours."""
        return [json.loads(line) for line in self.log(since).split("\n")[:-1]]

    def witness(self) -> subprocess.Popen[str]:
        """A client that echoes all the while (`tests.attacks.witness`)."""
        command = [sys.executable, "-m", "tests.attacks.witness", str(self.port), str(self.pid)]
        command += [self._trusted] if self._trusted else []
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    @asynccontextmanager
    async def client(self, *, tls: bool | None = None) -> AsyncIterator[wire.Client]:
        """A client that has connected, its TLS handshake yet to be done."""
        stream: trio.abc.Stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        if self.way.tls if tls is None else tls:
            stream = trio.SSLStream(
                stream, self._context, server_hostname="localhost", https_compatible=True
            )
        try:
            yield wire.Client(stream)
        finally:
            await trio.aclose_forcefully(stream)

    async def answer(self, *sent: bytes) -> bytes:
        """All that comes back on a new connection for what is sent on it."""
        async with self.client() as client:
            await client.send(*sent)
            return await client.rest()

    @property
    def files(self) -> int:
        """File descriptors that are open."""
        return process.files(self.pid)
