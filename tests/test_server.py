"""A server over real sockets: what it serves, counts, survives, and how it stops."""

from __future__ import annotations

import os
import socket
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from echo_service import (
    Config,
    Ending,
    Outcome,
    Server,
    serve,
    serve_stream,
    server,
)
from tests import wire
from tests.conftest import until
from tests.wire import BINARY, CLOSE, TEXT, Frame, frame

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("in_time")

HALF_A_MESSAGE = frame(TEXT, b"half a message")[:9]

LARGE = bytes(8 * 1024 * 1024)
"""More than the kernel's buffers take: the echo to a peer that does not read stalls."""

READY = b"GET /readyz HTTP/1.1\r\nHost: echo.example\r\n\r\n"


def settings(**options: object) -> Config:
    return Config(**{"bind": ["127.0.0.1:0"], **options})


async def answer(client: wire.Client, request: bytes) -> bytes:
    await client.send(request)
    got = await client.rest()
    await client.stream.aclose()
    return got


async def is_closed(client: wire.Client, code: int) -> bool:
    got = await client.frame()
    return got.opcode == CLOSE and got.payload[:2] == code.to_bytes(2, "big")


# What it serves


@pytest.mark.parametrize("address", ["127.0.0.1:0", "unix:{}/echo"])
async def test_urls_are_the_addresses_as_bound(nursery, connect, tmp_path, address: str):
    bind = [address.format(tmp_path)]
    running: Server = await nursery.start(serve, settings(bind=bind))
    (url,) = running.urls
    assert url.startswith("ws+unix:/" if "unix" in address else "ws://127.0.0.1:")
    assert not url.endswith(":0")
    client = await connect(url)
    await client.open()
    await client.echo()


async def test_all_addresses_are_one_server(nursery, connect):
    running: Server = await nursery.start(serve, settings(bind=["127.0.0.1:0", "127.0.0.1:0"]))
    for url in running.urls:
        await (await connect(url)).open()
    assert running.statistics().connections == 2


async def test_certificate_makes_it_wss(nursery, certificate):
    running: Server = await nursery.start(serve, settings(**certificate()))
    before = running._certificate.context
    assert running.urls[0].startswith("wss://127.0.0.1:")
    async with await trio.open_tcp_stream(*_host_and_port(running)) as stream:
        await stream.send_all(READY)
        assert b"HTTP" not in await stream.receive_some()
    running.reload()
    assert running._certificate.context is not before


async def test_reload_without_tls_has_nothing_to_do(echo_server):
    echo_server.reload()


async def test_listening_and_draining_are_logged(nursery, connect, logged):
    running: Server = await nursery.start(serve, settings())
    await (await connect(running)).open()
    nursery.start_soon(running.drain)
    await until(lambda: any(line.event == "server.draining" for line in logged()))
    (url,) = running.urls
    lines = [line for line in logged() if line.event.startswith("server.")]
    assert lines == [
        ("INFO", "server.listening", {"address": url.removeprefix("ws://"), "url": url}),
        ("INFO", "server.draining", {"connections": 1}),
    ]
    nursery.cancel_scope.cancel()


async def test_statistics_count_live_and_after(echo_server, connect):
    first, second, refused = [await connect(echo_server) for _ in range(3)]
    await first.open()
    await second.open()
    assert wire.status(await answer(refused, wire.request(Connection="close"))) == 400
    await first.echo(b"one")
    await first.echo(b"three", BINARY)
    live = echo_server.statistics()
    assert (live.connections, live.connections_total) == (2, 2)
    assert (live.texts, live.binaries, live.octets) == (1, 1, 8)
    assert live.endings == {}

    await first.send(wire.close(1000))
    await first.rest()
    await second.send(wire.close(1006))
    await second.rest()
    for client in (first, second):
        await client.stream.aclose()
    await until(lambda: not echo_server._acceptor.connections)
    after = echo_server.statistics()
    assert (after.connections, after.connections_total) == (0, 2)
    assert (after.texts, after.binaries, after.octets) == (1, 1, 8)
    assert after.endings == {Ending.PEER_CLOSED: 1, Ending.PROTOCOL_ERROR: 1}
    assert after.received_codes == {1000: 1, 1006: 1}
    assert after.sent_codes == {1000: 1, 1002: 1}
    assert after.refused == {400: 1}
    assert (live.connections, live.endings) == (2, {}), "a snapshot does not change"


async def test_cap_is_no_higher_than_the_file_limit_allows(nursery, connect, monkeypatch, logged):
    monkeypatch.setattr(server, "connections_allowed", lambda: 1)
    running: Server = await nursery.start(serve, settings(max_connections=2))
    assert logged()[0].event == "server.few_files"
    client = await connect(running)
    await client.open()
    assert wire.status(await answer(await connect(running), READY)) == 503
    await client.echo()


@pytest.mark.echo_service(max_connections=1)
class Passes(trio.abc.Instrument):
    """What a number is at the end of each pass of the event loop."""

    def __init__(self, number: Callable[[], int]) -> None:
        self.seen = [0]
        self._number = number

    def before_io_wait(self, _: float) -> None:
        self.seen.append(self._number())


@pytest.mark.parametrize("fast_lane", [True, False])
async def test_a_burst_of_handshakes_lets_others_have_their_turn(nursery, connect, fast_lane: bool):
    """Trio runs all that is ready before it looks for more; of these sixteen a pass are."""
    running: Server = await nursery.start(serve, settings(fast_lane=fast_lane))
    clients = [await connect(running) for _ in range(100)]
    await until(lambda: len(running._acceptor.connections) == 100)
    passes = Passes(lambda: running.connections)
    trio.lowlevel.add_instrument(passes)
    for client in clients:
        client.stream.socket._sock.send(wire.request())
    await until(lambda: running.connections == 100)
    trio.lowlevel.remove_instrument(passes)
    grown = [after - before for before, after in pairwise(passes.seen)]
    assert max(grown) == server.HANDSHAKES


async def test_sessions_that_hold_some_have_one_turn_in_a_pass(nursery, connect):
    """Each may work for milliseconds, and whoever comes waits for one of them."""
    running: Server = await nursery.start(serve, settings(fast_lane=False))
    clients = [await connect(running) for _ in range(5)]
    for client in clients:
        await client.open("/", ("Sec-WebSocket-Extensions", "permessage-deflate"))
    passes = Passes(lambda: running.statistics().messages)
    trio.lowlevel.add_instrument(passes)
    message = frame(BINARY, wire.deflate(os.urandom(5000)), rsv=4)  # of more than a turn
    for client in clients:
        assert client.stream.socket._sock.send(5 * message) == 5 * len(message)
    await until(lambda: running.statistics().messages == 25)
    trio.lowlevel.remove_instrument(passes)
    grown = [after - before for before, after in pairwise(passes.seen)]
    assert max(grown) == 1


async def test_connection_that_only_lingers_takes_nobodys_room(echo_server, connect):
    lingering = await connect(echo_server)
    await lingering.open()
    await lingering.send(wire.close(1000))
    assert await lingering.rest() == b"\x88\x02\x03\xe8"
    client = await connect(echo_server)
    await client.open()
    await client.echo()


@pytest.mark.echo_service(max_connections=2)
async def test_connections_beyond_the_cap_get_503_until_one_goes(echo_server, connect):
    first = await connect(echo_server)
    await first.open()
    await (await connect(echo_server)).open()
    full = await answer(await connect(echo_server), wire.request())
    assert wire.status(full) == 503
    assert b"\r\nRetry-After: " in full
    assert wire.status(await answer(await connect(echo_server), READY)) == 503
    await first.echo()
    await first.send(wire.close(1000))
    await first.rest()
    await first.stream.aclose()
    await until(lambda: echo_server.statistics().connections == 1)
    assert wire.status(await answer(await connect(echo_server), READY)) == 200
    await (await connect(echo_server)).open()


# What it survives


@pytest.mark.parametrize("sent", [b"", b"GET /", wire.request(), wire.request() + HALF_A_MESSAGE])
async def test_reset_touches_no_other_connection(echo_server, connect, logged, sent: bytes):
    other, client = await connect(echo_server), await connect(echo_server)
    await other.open()
    if sent:
        await client.send(sent)
    if sent.startswith(wire.request()):
        await client.opened()
    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await client.stream.aclose()
    await until(lambda: len(echo_server._acceptor.connections) == 1)
    await other.echo()
    assert not [line for line in logged() if line.level == "ERROR"]


def _host_and_port(running: Server) -> tuple[str, int]:
    host, _, port = running.urls[0].partition("://")[2].rpartition(":")
    return host, int(port)


# The drain


async def test_drain_refuses_whoever_comes_and_closes_whoever_is_there(nursery, connect, logged):
    """While one connection has yet to answer our Close, the address still answers: 503."""
    running: Server = await nursery.start(serve, settings(drain_code=1012))
    idle, within = await connect(running), await connect(running)
    await idle.open()
    await within.open()
    await within.send(HALF_A_MESSAGE)
    silent, begun, waiting = [await connect(running) for _ in range(3)]
    await begun.send(b"GET /")
    await until(lambda: len(running._acceptor.connections) == 5)

    drained = trio.Event()

    async def drain() -> None:
        await running.drain()
        drained.set()

    nursery.start_soon(drain)
    assert await is_closed(idle, 1012)
    assert await is_closed(within, 1012)
    assert wire.status(await answer(waiting, wire.request())) == 503
    assert wire.status(await answer(await connect(running), wire.request())) == 503
    ready = await answer(await connect(running), READY)
    assert wire.status(ready) == 503
    assert not drained.is_set()

    for client in (idle, within):
        assert await client.rest() == b""
        await client.send(wire.close(1012))
        await client.stream.aclose()
    assert await silent.rest() == b""
    assert wire.status(await begun.rest()) == 503
    for client in (silent, begun):
        await client.stream.aclose()
    await drained.wait()
    assert running.statistics().endings == {Ending.DRAINING: 2}
    assert logged()[-1] == ("INFO", "server.stopped", {})
    with pytest.raises(OSError, match="connect"):
        await connect(running)


async def test_drain_may_be_asked_for_often(nursery, connect):
    running: Server = await nursery.start(serve, settings())
    client = await connect(running)
    await client.open()
    async with trio.open_nursery() as drains:
        drains.start_soon(running.drain)
        drains.start_soon(running.drain)
        assert await is_closed(client, 1001)
        await client.stream.aclose()
    await running.drain()


async def test_drain_leaves_no_task_and_no_socket(connect, tmp_path: Path):
    bind = ["127.0.0.1:0", f"unix:{tmp_path}/echo"]
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as nursery:
        running: Server = await nursery.start(serve, settings(bind=bind))
        for url in running.urls:
            client = await connect(url)
            await client.open()
            await client.send(wire.close(1000))
            await client.rest()
            await client.stream.aclose()
        await running.drain()
        assert not (tmp_path / "echo").exists()
        with pytest.raises(OSError, match="connect"):
            await connect(running.urls[0])
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_drain_of_a_server_that_was_cancelled_has_nothing_to_wait_for(autojump_clock):
    async with trio.open_nursery() as nursery:
        running: Server = await nursery.start(serve, settings())
        nursery.cancel_scope.cancel()
    with trio.fail_after(1):
        await running.drain()


async def test_drain_cuts_what_is_left_at_its_timeout(nursery, connect, mock_clock, tmp_path):
    """One that stalls, one that never answers our Close, one in the opening handshake."""
    config = settings(bind=[f"unix:{tmp_path}/echo"], close_timeout=100, drain_timeout=7)
    running: Server = await nursery.start(serve, config)
    stalled, deaf, begun = [await connect(running) for _ in range(3)]
    await stalled.open()
    await stalled.send(frame(BINARY, LARGE))
    await deaf.open()
    await begun.send(b"GET /")
    await until(lambda: running.statistics().binaries == 1)
    await until(lambda: len(running._acceptor.connections) == 3)

    nursery.start_soon(running.drain)
    assert await is_closed(deaf, 1001)
    mock_clock.jump(6.9)
    await wait_all_tasks_blocked()
    assert running.statistics().connections == 2
    mock_clock.jump(0.2)
    await running.drain()
    assert running.statistics().connections == 0
    assert running.statistics().endings == {Ending.CANCELLED: 1, Ending.DRAINING: 1}
    got = await stalled.rest()
    assert len(got) < len(LARGE)
    assert not any(got[10:]), "nothing but the echo was sent"


async def test_drain_lets_an_echo_in_progress_go_out(nursery, connect):
    running: Server = await nursery.start(serve, settings())
    client = await connect(running)
    await client.open()
    await client.send(frame(BINARY, LARGE))
    await until(lambda: running.statistics().binaries == 1)
    nursery.start_soon(running.drain)
    await wait_all_tasks_blocked()
    assert await client.frame() == Frame(BINARY, LARGE)
    assert await is_closed(client, 1001)


async def test_drain_is_not_held_up_by_who_waits_in_the_backlog(nursery, connect):
    """Room that the last open connection leaves is taken by somebody who says nothing."""
    for _ in range(5):  # who comes first, the newcomer or the drain, is for Trio's dice
        running: Server = await nursery.start(
            serve, settings(max_connections=1, close_timeout=0.05, handshake_timeout=600)
        )
        client = await connect(running)
        await client.open()
        for _ in range(40):  # 32 are accepted beside the one
            await connect(running)
        await running.drain()
        assert running.statistics().endings == {Ending.DRAINING: 1}


async def test_who_comes_when_all_is_said_is_refused(nursery, connect):
    """One lingers yet; nobody would answer who connects now."""
    running: Server = await nursery.start(serve, settings())
    client = await connect(running)
    await client.open()
    await client.send(wire.close(1000))
    await client.rest()  # our FIN too, and the client's is to come
    nursery.start_soon(running.drain)
    await until(lambda: not running.ready)
    await wait_all_tasks_blocked()
    with pytest.raises(OSError, match="attempts to connect"):
        await trio.open_tcp_stream(*_host_and_port(running))
    await client.stream.aclose()
    await running.drain()


async def test_hundreds_of_connections_are_drained(nursery, connect, mock_clock):
    """Of 300 some stall, some are in mid-message: all others get the Close and answer it."""
    running: Server = await nursery.start(serve, settings())
    clients = [await connect(running) for _ in range(300)]
    async with trio.open_nursery() as openers:
        for client in clients:
            openers.start_soon(client.open)
    stalled, within, live = clients[:3], clients[3:100], clients[3:]
    for client in stalled:
        await client.send(frame(BINARY, LARGE))
    for client in within:
        await client.send(HALF_A_MESSAGE)
    await until(lambda: running.statistics().binaries == len(stalled))

    async def close(client: wire.Client) -> None:
        assert await is_closed(client, 1001)
        await client.send(wire.close(1001))
        assert await client.rest() == b""
        await client.stream.aclose()

    nursery.start_soon(running.drain)
    async with trio.open_nursery() as closers:
        for client in live:
            closers.start_soon(close, client)
    await until(lambda: running.statistics().connections == len(stalled))
    mock_clock.jump(20)
    await running.drain()
    assert running.statistics().endings == {
        Ending.DRAINING: len(live),
        Ending.CANCELLED: len(stalled),
    }


# Passed sockets


@pytest.fixture
def passed():
    """A listening socket of somebody else's, who may pass it on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        yield sock


def url_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()
    return f"ws://{host}:{port}"


async def test_passed_socket_is_served_and_left_to_its_owner_on_drain(nursery, connect, passed):
    """From the moment of the drain on, whoever connects is the next service's."""
    running: Server = await nursery.start(serve, settings(bind=[f"fd:{passed.fileno()}"]))
    assert running.urls == [url_of(passed)]
    client = await connect(running)
    await client.open()
    nursery.start_soon(running.drain)
    assert await is_closed(client, 1001)

    late = await connect(running)
    await late.send(b"for the next")
    await wait_all_tasks_blocked()
    theirs, _ = passed.accept()
    with theirs:
        theirs.setblocking(True)
        assert theirs.recv(100) == b"for the next"
    await client.stream.aclose()
    await running.drain()
    await connect(url_of(passed))


async def test_drain_of_a_passed_socket_refuses_nobody_who_has_been_accepted(
    nursery, connect, passed
):
    """A moment later the next service would have answered them."""
    running: Server = await nursery.start(serve, settings(bind=[f"fd:{passed.fileno()}"]))
    clients = [await connect(running) for _ in range(3)]
    await until(lambda: len(running._acceptor.connections) == 3)
    await clients[0].open()
    nursery.start_soon(running.drain)
    for client in clients[1:]:
        await client.open()
    for client in clients:
        assert await is_closed(client, 1001)
        await client.stream.aclose()
    await running.drain()
    assert running.statistics().refused == {}


async def test_drain_of_a_passed_socket_waits_for_a_request_a_second_at_most(
    nursery, connect, passed, mock_clock
):
    running: Server = await nursery.start(serve, settings(bind=[f"fd:{passed.fileno()}"]))
    silent, client = await connect(running), await connect(running)
    await client.open()
    await until(lambda: len(running._acceptor.connections) == 2)
    mock_clock.autojump_threshold = 0
    begun = trio.current_time()
    nursery.start_soon(running.drain)
    assert await is_closed(client, 1001)
    assert trio.current_time() - begun == pytest.approx(1, abs=0.02)
    await client.stream.aclose()
    assert await silent.rest() == b""
    await silent.stream.aclose()
    await running.drain()


# Cancelling


async def test_cancelling_is_an_immediate_stop_that_leaves_nothing(connect, tmp_path: Path):
    bind = ["127.0.0.1:0", f"unix:{tmp_path}/echo"]
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as nursery:
        running: Server = await nursery.start(serve, settings(bind=bind))
        clients = [await connect(url) for url in running.urls]
        for client in clients:
            await client.open()
        nursery.cancel_scope.cancel()
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert running.statistics().connections == 0
    assert running.statistics().endings == {Ending.CANCELLED: 2}
    for client in clients:
        assert await client.rest() == b""
    assert not (tmp_path / "echo").exists()
    for url in running.urls:
        with pytest.raises(OSError, match=r"connect|No such file"):
            await connect(url)


# The peer's name


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "wrapped"])
async def test_peer_is_named_by_its_address(wrapped: bool):
    class Wrapper:
        def __init__(self, stream: object) -> None:
            self.transport_stream = stream

    with socket.create_server(("127.0.0.1", 0)) as listening:
        stream = await trio.open_tcp_stream(*listening.getsockname())
        async with stream:
            peer = server.peer_of(Wrapper(stream) if wrapped else stream)
            assert peer == "127.0.0.1:{1}".format(*listening.getsockname())
        assert server.peer_of(stream) == "unknown"


async def test_peer_in_memory_is_unknown(logged):
    theirs, ours = memory_stream_pair()
    client = wire.Client(theirs)
    await client.send(wire.request())
    await theirs.send_eof()
    assert await serve_stream(ours, Config()) == Outcome(Ending.VANISHED, 101, 1006)
    await client.opened()
    assert logged()[0].fields["peer"] == "unknown"
