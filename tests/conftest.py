"""Fixtures that several test modules share."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import pytest
import trio
import trustme
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from echo_service import Config, Outcome, Server, serve_stream
from echo_service.connection import Connection
from echo_service.transport import StreamTransport
from tests import wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from echo_service.registry import Registry

PATIENCE = 60
"""Seconds after which a test hangs for certain, on however busy a machine."""


def missing(words: str) -> NoReturn:
    """Skip the test and say what is missing; where nothing may be skipped, as in CI, fail."""
    if os.environ.get("NOTHING_SKIPPED"):
        pytest.fail(words)
    pytest.skip(words)


@pytest.fixture
def in_time() -> Iterator[None]:
    """A test that hangs is interrupted, by the machine's clock, whatever clock Trio goes by.

    As by Ctrl-C, which Trio sees to: any other exception in a signal handler would break it.
    It does so only where Python handles the signal, which a shell has a program in the
    background ignore.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    previous = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture(autouse=True)
def signals_kept() -> Iterator[None]:
    """Signals do what they did before: a service that ends in this process ignores them."""
    wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in wanted]
    yield
    for number, handler in zip(wanted, before, strict=True):
        signal.signal(number, handler)


class Line(NamedTuple):
    """What was logged at once."""

    level: str
    event: str
    fields: dict[str, object]


_NO_FIELDS = {*vars(logging.makeLogRecord({})), "message", "asctime"}


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[Line]]:
    """What has been logged so far, from info on."""
    caplog.set_level(logging.INFO, "echo_service")

    def lines() -> list[Line]:
        found = []
        for record in caplog.records:
            fields = {k: v for k, v in vars(record).items() if k not in _NO_FIELDS}
            found.append(Line(record.levelname, record.getMessage(), fields))
        return found

    return lines


class Served(wire.Client):
    """A client of one connection that is served, and how the connection ends."""

    def __init__(self, pair: tuple[trio.abc.Stream, trio.abc.Stream], registry: Registry | None):
        super().__init__(pair[0])
        self.outcome: Outcome | None = None
        self.connection: Connection | None = None
        self._registry = registry
        self._served = pair[1]
        self._ended = trio.Event()

    async def run(self, config: Config) -> None:
        if self._registry is None:
            self.outcome = await serve_stream(self._served, config)
        else:
            transport = StreamTransport(self._served)
            self.connection = Connection(transport, config, self._registry, "192.0.2.1:5000")
            self.outcome = await self.connection.run()
        self._ended.set()

    async def ends(self) -> Outcome:
        """How the connection ended, once it has."""
        await self._ended.wait()
        assert self.outcome is not None
        return self.outcome


@pytest.fixture
def serving(nursery: trio.Nursery) -> Callable[..., Served]:
    """Serve one end of a pair of streams, and be the client at the other.

    With a ``registry`` the connection is one of several and can be drained.
    """

    def begin(
        streams: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]] = memory_stream_pair,
        registry: Registry | None = None,
        **options: object,
    ) -> Served:
        served = Served(streams(), registry)
        nursery.start_soon(served.run, Config(**options))
        return served

    return begin


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., object]]:
    """Connect to a server's address, TCP or unix; the clients are closed in the end."""
    async with AsyncExitStack() as stack:

        async def connect(server: Server | str) -> wire.Client:
            url = server if isinstance(server, str) else server.urls[0]
            stream = await open_stream(url)
            stack.push_async_callback(trio.aclose_forcefully, stream)
            return wire.Client(stream)

        yield connect


async def open_stream(url: str) -> trio.SocketStream:
    """A TCP or unix stream to a server's address, as its ``urls`` name it."""
    scheme, _, address = url.partition("://")
    if not address:
        return await trio.open_unix_socket(scheme.partition("unix:")[2])
    host, _, port = address.rpartition(":")
    return await trio.open_tcp_stream(host.strip("[]"), int(port))


async def until(fact: Callable[[], object]) -> None:
    """Wait until something has become true that no event tells of."""
    while not fact():
        await wait_all_tasks_blocked()


async def eventually(fact: Callable[[], object]) -> None:
    """Wait until something has become true in another process, or by its doing."""
    while not fact():  # noqa: ASYNC110 - no event of ours tells of it
        await trio.sleep(0.01)


@pytest.fixture
def logging_kept() -> Iterator[None]:
    """The program's logging is as it was, after a test that has set it up."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:], level, logging.raiseExceptions = before
    root.setLevel(level)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Who the TLS clients trust."""
    return trustme.CA()


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Write a new certificate and its key for localhost; returns the options that name them."""

    def issue() -> dict[str, str]:
        issued = authority.issue_cert("localhost", "127.0.0.1")
        cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
        cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return {"tls_cert": str(cert), "tls_key": str(key)}

    return issue


class Program:
    """A running command; ``lines`` are those of its stderr that have been read."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._unfinished = ""
        self._seen = 0

    async def line(self, words: str) -> str:
        """The next line of stderr that holds the words."""
        while True:
            while self._seen == len(self.lines):
                assert await self._read_lines(), f"ended without {words!r}: {self.lines}"
            line = self.lines[self._seen]
            self._seen += 1
            if words in line:
                return line

    async def url(self) -> str:
        """The address as bound, once the service listens."""
        found = re.search(r"wss?(\+unix)?:[^\s\"]+", await self.line("server.listening"))
        assert found
        return found[0]

    async def ends(self) -> int:
        """The exit code, once the program has ended; stdout has stayed empty."""
        while self.process.stderr and await self._read_lines():
            pass
        if self.process.stdout:
            assert await self.process.stdout.receive_some() == b""
        return await self.process.wait()

    async def _read_lines(self) -> bool:
        data = await self.process.stderr.receive_some()
        *whole, self._unfinished = (self._unfinished + data.decode()).split("\n")
        self.lines += whole
        return bool(data)


@pytest.fixture
async def program() -> AsyncIterator[Callable[..., object]]:
    """Start the command with these arguments; what still runs in the end is killed."""
    async with AsyncExitStack() as stack:

        async def start(
            *arguments: str,
            shell: str = 'exec "$@"',
            environ: dict[str, str] | None = None,
            **options: object,
        ) -> Program:
            command = ["sh", "-c", shell, "sh", sys.executable, "-m", "echo_service", *arguments]
            kept = {k: v for k, v in os.environ.items() if not k.startswith("ECHO_SERVICE_")}
            options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
            process = await trio.lowlevel.open_process(
                command, env=kept | (environ or {}), **options
            )
            stack.push_async_callback(_end, process)
            return Program(process)

        yield start


async def _end(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        if process.returncode is None:
            process.kill()
        await process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                await pipe.aclose()
