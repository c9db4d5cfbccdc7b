"""The lane: many open sockets in one task, and when a connection gets its own back."""

from __future__ import annotations

import errno
import itertools
import select
import socket
import struct
from contextlib import suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from echo_service import Config, Server, lane, policy, serve
from echo_service.lane import Lane, Rider
from echo_service.policy import Ending
from echo_service.session import Session
from tests import wire
from tests.conftest import until
from tests.wire import BINARY, CONTINUATION, PING, TEXT

pytestmark = [
    pytest.mark.skipif(not lane.AVAILABLE, reason="there is no epoll here"),
    pytest.mark.usefixtures("in_time"),
]


class Rides:
    """One connection that rides, and how each of its rides ended."""

    def __init__(self, lane, session):
        self.client, self.ours = socket.socketpair()
        self.client.settimeout(30)
        self.ours.setblocking(False)
        self.session = session
        self.rider = Rider(lane, self.ours)
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.result = None

    async def run(self):
        with self.scope:
            try:
                self.result = await self.rider.exchange(self.session)
            except (trio.BrokenResourceError, ZeroDivisionError) as error:
                self.result = error
        self.ended.set()

    async def echo(self, payload=b"hello"):
        """Send a message and see it come back, without a word from the connection's task."""
        self.client.sendall(wire.frame(TEXT, payload))
        expected = wire.header(TEXT, len(payload), masked=False) + payload
        received = b""
        while len(received) < len(expected):
            await trio.lowlevel.wait_readable(self.client)
            received += self.client.recv(65536)
        assert received == expected
        assert not self.ended.is_set()

    async def given_back(self):
        await self.ended.wait()
        return self.result


@pytest.fixture
async def track(nursery):
    """A lane that runs."""
    running = Lane(1 << 24)
    nursery.start_soon(running.run)
    yield running
    nursery.cancel_scope.cancel()
    await wait_all_tasks_blocked()
    running.close()


@pytest.fixture
async def riding(track, nursery):
    """Let a session ride; the sockets are closed in the end."""
    made = []

    async def begin(session=None):
        made.append(Rides(track, session or Session(1 << 24)))
        nursery.start_soon(made[-1].run)
        await until(lambda: made[-1].ours.fileno() in track._riders or made[-1].ended.is_set())
        return made[-1]

    yield begin
    for each in made:
        each.scope.cancel()
    await wait_all_tasks_blocked()
    assert track._riders == {}
    for each in made:
        each.client.close()
        each.ours.close()


async def test_many_are_served_and_none_is_given_back(riding):
    riders = [await riding() for _ in range(20)]
    for number in range(60):
        await riders[number % 20].echo(b"%d" % number)
    assert {rider.session.carried[0] for rider in riders} == {3}


async def test_who_closes_is_given_back_with_the_close_sent(riding):
    rider = await riding()
    rider.client.sendall(wire.frame(TEXT, b"a") + wire.close(1000))
    assert await rider.given_back() is True
    assert rider.client.recv(100) == b"\x81\x01a\x88\x02\x03\xe8"
    assert rider.session.verdict.ending is Ending.PEER_CLOSED


async def test_a_pong_is_answered_with_nothing_and_nobody_is_given_back(riding):
    rider = await riding()
    rider.client.sendall(wire.frame(wire.PONG, b"unasked"))
    await rider.echo()


async def test_the_end_of_the_stream_gives_back_that_it_does_not_go_on(riding):
    rider = await riding()
    rider.client.shutdown(socket.SHUT_WR)
    assert await rider.given_back() is False
    assert rider.session.verdict is None


async def test_who_does_not_read_is_given_back_with_the_rest_of_the_echo(riding):
    rider, other = await riding(), await riding()
    payload = bytes(range(256)) * 8192
    expected = wire.header(BINARY, len(payload), masked=False) + payload
    sent = 0
    message = memoryview(wire.frame(BINARY, payload))
    rider.client.setblocking(False)
    while sent < len(message):
        await trio.lowlevel.wait_writable(rider.client)
        sent += rider.client.send(message[sent : sent + 65536])
    assert await rider.given_back() is True
    rest = rider.rider.rest
    await other.echo()
    received = bytearray()
    while len(received) < len(expected) - len(rest):
        received += rider.client.recv(65536)
    assert bytes(received) + bytes(rest) == expected
    assert len(rest) > 0


async def test_who_is_reset_is_given_back_as_broken(track, nursery):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours:
        ours.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        with pytest.raises(trio.BrokenResourceError) as broken:
            await Rider(track, ours).exchange(Session(1000))
    assert broken.value.__cause__.errno == errno.ECONNRESET


async def test_an_error_in_a_session_goes_to_its_own_task_and_to_no_other(riding):
    class Broken(Session):
        def receive(self, _=b""):
            raise ZeroDivisionError

    broken, other = await riding(Broken(1000)), await riding()
    broken.client.sendall(wire.frame(TEXT))
    assert isinstance(await broken.given_back(), ZeroDivisionError)
    await other.echo()


async def test_who_is_cancelled_leaves_and_what_comes_then_is_not_received(riding):
    rider, other = await riding(), await riding()
    rider.scope.cancel()
    await rider.ended.wait()
    rider.client.sendall(wire.frame(TEXT, b"a"))
    await other.echo()
    assert rider.ours.recv(100) == wire.frame(TEXT, b"a")


async def test_who_holds_something_and_sends_more_has_one_turn_in_a_round(riding, nursery):
    """Or its turns would grow with every round, as long as it goes on sending."""
    calls = []

    class Counted(Session):
        def receive(self, data=b""):
            calls.append(self)
            return super().receive(data)

    busy, other = await riding(Counted(1 << 24)), await riding(Counted(1 << 24))
    fragments = wire.frame(TEXT, fin=False) + wire.frame(CONTINUATION, fin=False) * 100_000
    nursery.start_soon(trio.to_thread.run_sync, busy.client.sendall, fragments)
    while calls.count(busy.session) < 100:
        await other.echo()
    turns = "".join("." if each is busy.session else "o" for each in calls)
    assert "o" in turns
    assert max(map(len, turns.strip(".").split("o"))) <= 3, turns


async def test_who_comes_waits_for_one_of_those_whose_sessions_hold_some(riding):
    calls = []

    class Counted(Session):
        def receive(self, data=b""):
            calls.append("o" if self is other.session else ".")
            return super().receive(data)

    busy = [await riding(Counted(1 << 24)) for _ in range(10)]
    other = await riding(Counted(1 << 24))
    fragments = wire.frame(TEXT, fin=False) + wire.frame(CONTINUATION, fin=False) * 10_000
    for each in busy:
        each.client.sendall(fragments)
    while not all(each.session.holds for each in busy):
        await other.echo()
    calls.clear()
    for _ in range(10):
        await other.echo()
    assert all(each.session.holds for each in busy)
    assert max(map(len, "".join(calls).split("o"))) <= 4, calls


async def test_what_a_session_holds_is_served_in_turn_with_the_others(riding):
    busy, other = await riding(), await riding()
    fragments = wire.frame(TEXT, fin=False) + wire.frame(CONTINUATION, fin=False) * 20_000
    busy.client.sendall(fragments + wire.frame(PING, b"!"))
    await other.echo()
    assert busy.session.holds
    await trio.lowlevel.wait_readable(busy.client)
    assert busy.client.recv(100) == b"\x8a\x01!"
    assert not busy.ended.is_set()


async def test_what_a_session_holds_already_is_done_first(track):
    session = Session(1000)
    session.receive(wire.frame(TEXT, b"a") + wire.close())
    assert session.holds
    ours, client = socket.socketpair()
    with ours, client:
        assert await Rider(track, ours).exchange(session) is True
        assert client.recv(100) == b"\x88\x00"


async def test_the_rest_of_the_program_has_its_turn_after_each_slice(riding, monkeypatch):
    monkeypatch.setattr(lane, "SLICE", 0)
    riders = [await riding() for _ in range(10)]
    for rider in riders:
        rider.client.sendall(wire.frame(TEXT, b"a"))
    turns = [0]
    while turns[-1] < 10:
        await trio.lowlevel.checkpoint()
        turns.append(sum(rider.session.carried[0] for rider in riders))
    steps = [after - before for before, after in itertools.pairwise(turns)]
    assert max(steps) <= 2, "one before and one after each turn of ours, at most"


async def test_who_leaves_between_being_ready_and_being_served_is_passed_over(riding, monkeypatch):
    """After each slice the others run, and may have ended a connection that was ready too."""
    monkeypatch.setattr(lane, "SLICE", 0)
    riders = [await riding() for _ in range(2)]

    class Ends(Session):
        def receive(self, data=b""):
            for rider in riders:
                rider.scope.cancel()
            return super().receive(data)

    first = await riding(Ends(1000))
    for rider in [first, *riders]:
        rider.client.sendall(wire.frame(TEXT, b"a"))
    for rider in riders:
        await rider.ended.wait()
    assert [rider.session.carried[0] for rider in riders] == [0, 0]
    assert first.client.recv(100) == b"\x81\x01a"


async def test_what_arrives_is_remembered_with_its_time(riding, mock_clock):
    rider = await riding()
    mock_clock.jump(7)
    rider.client.sendall(b"\x81")
    await until(lambda: rider.rider.active)
    assert rider.rider.active == trio.current_time()


# A service, with the lane and without it


@pytest.fixture(params=[True, False], ids=["lane", "no lane"])
async def running(request, nursery):
    """A server to be started with options, with the lane and without it."""

    async def start(**options):
        settings = Config(bind=["127.0.0.1:0"], fast_lane=request.param, **options)
        server: Server = await nursery.start(serve, settings)
        return server

    yield start
    nursery.cancel_scope.cancel()


async def test_a_silent_peer_is_pinged_and_given_up(running, connect, mock_clock):
    server = await running(ping_interval=20, ping_timeout=10)
    client = await connect(server)
    await client.open()
    await client.echo()
    await wait_all_tasks_blocked(0.01)
    mock_clock.jump(15)
    await client.echo()
    await wait_all_tasks_blocked(0.01)
    mock_clock.jump(19)
    await wait_all_tasks_blocked(0.01)
    mock_clock.jump(1)
    assert await client.frame() == wire.Frame(PING, b"")
    await wait_all_tasks_blocked(0.01)
    mock_clock.jump(9)
    await client.send(wire.frame(wire.PONG))
    await wait_all_tasks_blocked(0.01)
    mock_clock.jump(19)
    await wait_all_tasks_blocked(0.01)
    mock_clock.jump(1)
    assert await client.frame() == wire.Frame(PING, b"")
    await wait_all_tasks_blocked(0.01)
    mock_clock.jump(10)
    assert wire.codes(await client.rest()) == [1011]


async def test_who_takes_nothing_is_dropped_when_the_stall_timeout_ends(
    running, connect, mock_clock
):
    server = await running(stall_timeout=30, ping_interval=0)
    client, other = await connect(server), await connect(server)
    await client.open()
    await other.open()
    message = wire.frame(BINARY, bytes(1 << 20))
    with trio.move_on_after(1e9) as sending:
        async with trio.open_nursery() as tasks:
            tasks.start_soon(_send_for_ever, client, message)
            await wait_all_tasks_blocked(0.05)
            await other.echo()
            mock_clock.jump(31)
            await until(lambda: server.statistics().endings)
            sending.cancel()
    assert server.statistics().endings == {Ending.STALLED: 1}
    await other.echo()


async def test_who_takes_a_little_within_the_stall_timeout_is_not_dropped(
    running, connect, mock_clock
):
    """Although the kernel has no room for more of the echo until much of it is taken."""
    server = await running(stall_timeout=30, ping_interval=0)
    client = await connect(server)
    await client.open()
    payload = bytes(1 << 24)
    async with trio.open_nursery() as tasks:
        tasks.start_soon(client.send, wire.frame(BINARY, payload))
        received = 0
        for _ in range(8):
            await wait_all_tasks_blocked(0.02)
            for _ in range(8):  # the kernel of the peer tells of a sixteenth of its buffer
                received += len(await client.stream.receive_some(1 << 17))
            await wait_all_tasks_blocked(0.02)
            mock_clock.jump(29)
        while received < len(payload) + 10:
            received += len(await client.stream.receive_some(1 << 20))
    assert server.statistics().endings == {}
    await client.echo()


async def _send_for_ever(client, message):
    with suppress(trio.BrokenResourceError):
        while True:
            await client.send(message)


async def test_a_drain_closes_who_rides_and_who_is_in_mid_message(running, connect):
    server = await running()
    clients = [await connect(server) for _ in range(3)]
    for client in clients:
        await client.open()
    await clients[0].echo()
    await clients[1].send(wire.frame(TEXT, b"half")[:-1])
    await clients[2].send(wire.frame(TEXT, b"half", fin=False))
    await wait_all_tasks_blocked(0.01)
    async with trio.open_nursery() as tasks:
        tasks.start_soon(server.drain)
        for client, rest in zip(clients, [b"", wire.frame(TEXT, b"half")[-1:], b""], strict=True):
            assert (await client.frame()).payload[:2] == b"\x03\xe9"
            await client.send(rest + wire.close(1001))
            assert await client.rest() == b""
            await client.stream.aclose()
    assert server.statistics().received_codes == {1001: 3}


@pytest.mark.parametrize("size", [125, 126, 65535, 65536, 1 << 20, (1 << 24) - 1, 1 << 24])
async def test_messages_of_every_size_come_back(running, connect, size):
    server = await running()
    client = await connect(server)
    await client.open()
    payload = (b"0123456789abcde" * (size // 15 + 1))[:size]
    async with trio.open_nursery() as tasks:
        tasks.start_soon(client.send, wire.frame(TEXT, payload))
        echo = await client.frame()
    assert (echo.opcode, echo.payload == payload) == (TEXT, True)
    await client.send(wire.close(1000))
    assert await client.rest() == b"\x88\x02\x03\xe8"
    await client.stream.aclose()
    await until(lambda: server.statistics().endings)
    assert server.statistics().octets == size


async def test_an_error_of_our_own_is_a_close_1011_and_the_others_go_on(
    running, connect, monkeypatch
):
    server = await running()
    client, other = await connect(server), await connect(server)
    await client.open()
    await other.open()
    monkeypatch.setattr(policy, "closed", lambda _: 1 / 0)
    await client.send(wire.close(1000))
    assert wire.codes(await client.rest()) == [1011]
    await other.echo()


async def test_without_a_lane_every_byte_goes_through_wsproto(running, connect):
    server = await running()
    client = await connect(server)
    await client.open()
    await client.echo()
    (connection,) = server._acceptor.connections
    assert (connection._session._wsproto is None) == (server._lane is not None)


def test_who_is_new_comes_before_those_who_hold_some():
    ours, theirs = socket.socketpair()
    made = lane.Lane(1000)
    with ours, theirs:
        made._epoll.register(theirs.fileno(), select.EPOLLIN)
        ours.send(b"new")
        made._again = {-1: None, -2: None}
        assert list(made._ready()) == [theirs.fileno(), -1]
        assert list(made._ready()) == [theirs.fileno(), -2]
    made.close()
