"""A model check of how a connection ends, above all of the closing handshake.

A schedule, drawn at random, has both sides close, fail, stall, vanish and drain at any moment, by
the virtual clock; whatever it is, the connection ends in time, once, and with at most one Close.
"""

from __future__ import annotations

import logging
import socket
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple
from unittest import mock

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from echo_service import Config, Ending, connection, lane
from echo_service.codec import BEST, PYTHON
from echo_service.connection import HELD_UP, Connection
from echo_service.lane import Rider
from echo_service.registry import Registry
from echo_service.session import Session
from echo_service.transport import StreamTransport
from tests import wire
from tests.test_policy import ECHOED
from tests.wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from echo_service.transport import Transport

HANDSHAKE, INTERVAL, TIMEOUT, STALL, CLOSING = 11.0, 17.0, 7.0, 13.0, 5.0
"""The deadlines, in seconds; no two sums of them are alike."""

LIMIT = 6000
"""Bytes of the largest message: more than a client takes that does not read."""

ROOM = 1000
"""Bytes that such a client takes, where it is in memory."""

OPTIONS = {
    "handshake_timeout": HANDSHAKE,
    "ping_interval": INTERVAL,
    "ping_timeout": TIMEOUT,
    "stall_timeout": STALL,
    "close_timeout": CLOSING,
    "max_message_size": LIMIT,
}


# What a client may send


class End(NamedTuple):
    """How what was sent ends the connection, if nothing else does before."""

    ending: Ending
    received: int | None
    sent: int


class Part(NamedTuple):
    """Bytes of a client, what answers them, and how they end the connection."""

    data: bytes
    answer: Frame | None = None
    end: End | None = None


def message(opcode: int, payload: bytes, places: set[int], ping: bytes | None) -> list[Part]:
    """A message, in as many fragments as there are places and one more, a ping before the last."""
    cuts = [0, *sorted(place for place in places if place < len(payload)), len(payload)]
    fragments = [payload[a:b] for a, b in pairwise(cuts)]
    first = [opcode] + [CONTINUATION] * (len(fragments) - 1)
    frames = [Part(wire.frame(o, f, fin=False)) for o, f in zip(first, fragments, strict=True)]
    last = wire.frame(first[-1], fragments[-1])
    frames[-1:] = [] if ping is None else pinged(ping)
    return [*frames, Part(last, Frame(opcode, payload))]


def pinged(payload: bytes) -> list[Part]:
    return [Part(wire.frame(PING, payload), Frame(PONG, payload))]


def closed(code: int | None, reason: bytes) -> list[Part]:
    data = wire.close(code, b"" if code is None else reason)
    if code is None:
        end = End(Ending.PEER_CLOSED, 1005, 1005)
    elif code not in ECHOED:
        end = End(Ending.PROTOCOL_ERROR, code, 1002)
    elif reason == b"\xff":
        end = End(Ending.INVALID_DATA, code, 1007)
    else:
        end = End(Ending.PEER_CLOSED, code, code)
    return [Part(data, end=end)]


VIOLATIONS = {
    b"\x81\x05hello": 1002,  # without a mask
    b"\x81\xfe\x00\x01" + wire.KEY + wire.mask(b"x"): 1002,  # a length in too many bytes
    wire.frame(TEXT, b"x", rsv=4): 1002,
    wire.frame(3, b"x"): 1002,
    wire.frame(CONTINUATION, b"x"): 1002,
    wire.frame(PING, b"x", fin=False): 1002,
    wire.frame(CLOSE, b"x"): 1002,
    wire.frame(BINARY, b"x", fin=False) + wire.frame(TEXT, b"x"): 1002,
    wire.frame(TEXT, b"half \xff"): 1007,
    wire.header(BINARY, LIMIT + 1) + wire.KEY: 1009,
}
ENDINGS = {1002: Ending.PROTOCOL_ERROR, 1007: Ending.INVALID_DATA, 1009: Ending.TOO_BIG}


def violated(data: bytes) -> list[Part]:
    code = VIOLATIONS[data]
    return [Part(data, end=End(ENDINGS[code], None, code))]


PAYLOADS = [b"", b"hello", "\u00fcml\u00e4ut".encode(), b"x" * 600, b"x" * LIMIT]

controls = st.sampled_from([b"", b"ping", b"." * 125])
messages = st.builds(
    message,
    st.sampled_from([TEXT, BINARY]),
    st.sampled_from(PAYLOADS),
    st.sets(st.integers(0, 6), max_size=3),
    st.none() | controls,
)
pings = controls.map(pinged)
pongs = st.just([Part(wire.frame(PONG))])
codes = st.sampled_from([None, 0, 999, 1000, 1001, 1005, 3333]) | st.integers(0, 65535)
closes = st.builds(closed, codes, st.sampled_from([b"", b"bye", b"\xff"]))
violations = st.sampled_from(sorted(VIOLATIONS)).map(violated)

seconds = st.sampled_from(
    [0.0, HELD_UP, 1.0, CLOSING, TIMEOUT, HANDSHAKE, STALL, INTERVAL, INTERVAL + TIMEOUT]
) | st.floats(0, 30, allow_subnormal=False)
shares = st.sampled_from([1.0] * 9 + [0.02, 0.5, 0.98])


def step(name: str, *arguments: st.SearchStrategy[object]) -> st.SearchStrategy[tuple]:
    """A step of a schedule, and whether what it sets off is over before the next."""
    return st.tuples(st.just(name), st.tuples(*arguments), st.booleans())


wait = step("wait", seconds)
stall, resume = step("stall"), step("resume")
stand_still = step("stand_still", seconds, st.booleans())
talking = st.one_of(
    step("send", messages, shares),
    step("send", messages | pings | pongs, shares),
    wait,
    st.one_of(wait, stall, resume, stand_still),
)
ending = st.one_of(
    step("send", closes, shares),
    step("send", closes | violations, shares),
    step("drain"),
    st.one_of(*[step(name) for name in ("eof", "reset", "fail", "cancel")]),
    stall,
    resume,
    talking,
    talking,
)
schedules = st.tuples(
    shares,
    st.builds(list.__add__, st.lists(talking, max_size=6), st.lists(ending, max_size=6)),
)
"""How much of the opening handshake is sent at first, and the steps after it."""


# The two sides


class Client:
    """What a client has got, and when; the ways to it are below."""

    may_lose = False
    """Whether what it was sent is lost when it resets the connection."""
    stalls = frozenset({"stall"})
    """After which steps it may be taken for one that stalls."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.fin = False
        self.stalled = False
        self.closed_at: float | None = None
        """When the service's last bytes came."""

    def take(self, data: bytes) -> None:
        assert not (data and self.fin), "bytes after the end of the stream"
        self.got += data
        self.closed_at = trio.current_time() if data else self.closed_at


class InMemory(Client, trio.abc.HalfCloseableStream):
    """The service's end of a stream whose client does what it is told."""

    # Other than a socket, it notices that the time is over before it has tried.
    stalls = frozenset({"stall", "stand_still"})

    def __init__(self) -> None:
        super().__init__()
        self.transport: Transport = StreamTransport(self)
        self.gone = False
        self._inbox = bytearray()
        self._eof = self._broken = False
        self._held = 0
        self._moved = trio.lowlevel.ParkingLot()

    # As the service sees it

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while not (self._inbox or self._eof or self._broken):
            await self._moved.park()
        self._check()
        data = bytes(self._inbox[:max_bytes])
        del self._inbox[:max_bytes]
        return data

    async def send_all(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        while data:
            self._check()
            size = min(len(data), ROOM - self._held) if self.stalled else len(data)
            self.take(bytes(data[:size]))
            self._held += size
            data = data[size:]
            if data:
                await self._moved.park()

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def send_eof(self) -> None:
        self._check()
        self.fin = True

    async def aclose(self) -> None:
        self.gone = True
        await trio.lowlevel.checkpoint()

    def _check(self) -> None:
        assert not self.gone, "used after it was closed"
        if self._broken:
            raise trio.BrokenResourceError

    # What the client does

    def give(self, data: bytes) -> None:
        self._inbox += data
        self._moved.unpark_all()

    def stall(self) -> None:
        self.stalled = True
        self._held = 0

    def resume(self) -> None:
        self.stalled = False
        self._moved.unpark_all()

    def eof(self) -> None:
        self._eof = True
        self._moved.unpark_all()

    def reset(self) -> None:
        self._broken = True
        self._moved.unpark_all()

    async def finish(self) -> None:
        """All has arrived already."""


class OnALane(Client):
    """The same over a pair of sockets, the service's on its lane."""

    may_lose = True

    def __init__(self, ours: socket.socket, theirs: socket.socket, on: lane.Lane) -> None:
        super().__init__()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # as little as there is
        ours.setblocking(False)
        self.transport: Transport = Rider(on, theirs)
        self._ours, self._theirs = ours, theirs
        self._moved = trio.lowlevel.ParkingLot()

    @property
    def gone(self) -> bool:
        return self._theirs.fileno() == -1

    async def read(self) -> None:
        """Take what comes, unless it stalls."""
        while self._ours.fileno() != -1 and not self.fin:
            if self.stalled:
                await self._moved.park()
                continue
            try:
                await trio.lowlevel.wait_readable(self._ours)
                while not self.stalled and not self.fin:
                    data = self._ours.recv(65536)
                    self.take(data)
                    self.fin = not data
            except BlockingIOError:
                continue
            except (OSError, trio.ClosedResourceError):
                break
        await trio.sleep_forever()

    def give(self, data: bytes) -> None:
        with suppress(BrokenPipeError):
            assert self._ours.send(data) == len(data)

    def stall(self) -> None:
        self.stalled = True

    def resume(self) -> None:
        self.stalled = False
        self._moved.unpark_all()

    def eof(self) -> None:
        self._ours.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        trio.lowlevel.notify_closing(self._ours)
        self._ours.close()

    async def finish(self) -> None:
        """Take what is still in the kernel."""
        self.resume()
        await wait_all_tasks_blocked()


@asynccontextmanager
async def in_memory() -> AsyncIterator[Client]:
    yield InMemory()


@asynccontextmanager
async def on_a_lane() -> AsyncIterator[Client]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        async with lane.opened(LIMIT, wanted=True) as on, trio.open_nursery() as nursery:
            client = OnALane(ours, theirs, on)
            nursery.start_soon(client.read)
            yield client
            assert not on._riders
            assert not on._again
            nursery.cancel_scope.cancel()


class Play:
    """A connection that is served while a schedule is carried out, and what is to come of it."""

    def __init__(self, client: InMemory | OnALane, fast_lane: bool) -> None:
        self.client = client
        self.registry = Registry(1)
        config = Config(fast_lane=fast_lane, **OPTIONS)
        self.connection = Connection(client.transport, config, self.registry, "192.0.2.1:5000")
        self.outcome = None
        self.done = trio.Event()
        self.ended_at = 0.0
        self.scope = trio.CancelScope()
        self.did: set[str] = set()
        """Which steps were taken."""
        self.last_step = self.last_byte = trio.current_time()
        self.silence = 0.0
        """How long nothing came of the client, at the longest."""
        self.outbox: list[Part] = [Part(wire.request())]
        self.sent = 0
        """Bytes of the first part in the outbox that were sent."""
        self.spoke = False
        self.due: list[Frame] = []
        """What is to be answered, in order: nothing after the first part that ends it."""
        self.end: End | None = None
        """How the client has ended it, first."""
        self.end_is_whole = False
        self.received = {1006, None}
        """What may be recorded as the code of its Close."""

    async def run(self) -> None:
        try:
            with self.scope:
                self.outcome = await self.connection.run()
        finally:
            self.ended_at = trio.current_time()
            self.silence = max(self.silence, self.ended_at - self.last_byte)
            self.done.set()

    # The steps

    @property
    def may_send(self) -> bool:
        return not self.did & {"eof", "reset"}

    def send(self, added: list[Part], share: float) -> None:
        """Send so much of what is yet to be sent, and of these parts."""
        self.outbox += added
        size = round(share * (sum(len(part.data) for part in self.outbox) - self.sent))
        data = b"".join(part.data for part in self.outbox)[self.sent :][:size]
        if data and self.may_send:
            self.hear()
            self.client.give(data)
            self.spoke = True
            self.sent += size
            self._note()

    def hear(self) -> None:
        """Note how long nothing has come of the client."""
        now = trio.current_time()
        self.silence = max(self.silence, now - self.last_byte)
        self.last_byte = now

    def _note(self) -> None:
        """What is due for what was sent."""
        while self.outbox and self.sent:
            part = self.outbox[0]
            if part.end and self.end is None:
                self.end = part.end
            if part.end:
                self.received.add(part.end.received)
            if self.sent < len(part.data):
                break
            self.outbox.pop(0)
            self.sent -= len(part.data)
            if part.answer and self.end is None:
                self.due.append(part.answer)
            self.end_is_whole = self.end is not None

    def stall(self) -> None:
        self.client.stall()

    def resume(self) -> None:
        self.client.resume()

    def eof(self) -> None:
        if self.may_send:
            self.client.eof()

    def reset(self) -> None:
        if "reset" not in self.did:
            self.client.reset()

    def drain(self) -> None:
        self.registry.draining = True
        self.connection.drain()

    def cancel(self) -> None:
        self.scope.cancel()

    def fail(self) -> None:
        """See `failing`."""

    async def wait(self, time: float) -> None:
        with trio.move_on_after(time):
            await self.done.wait()

    def stand_still(self, time: float, is_alive: bool) -> None:
        """As a process that is stopped: time passes, and the client lives on meanwhile."""
        self.silence = max(self.silence, trio.current_time() - self.last_byte)
        trio.lowlevel.current_clock().jump(time)
        if is_alive:
            self.last_byte = trio.current_time()
            self.send([], 1.0)
            self.send([Part(wire.frame(PONG))], 1.0)

    async def perform(self, schedule: tuple[float, list[tuple]]) -> None:
        share, taken = schedule
        self.send([], share)
        for name, arguments, over in taken:
            if self.done.is_set():
                return
            waiting = getattr(self, name)(*arguments)
            self.did.add(name)
            if waiting is not None:
                await waiting
            elif over:
                await wait_all_tasks_blocked()
            self.last_step = trio.current_time()

    # What must have come of it

    def check(self) -> None:
        assert self.client.gone, "the stream is closed"
        self.check_time()
        head, _, frames = bytes(self.client.got).partition(b"\r\n\r\n")
        if self.outcome is None:
            assert "cancel" in self.did
        if wire.status(head) == 101:
            self.check_frames(*whole_frames(frames))
        self.check_counts()
        if self.outcome is not None:
            self.check_ending()

    def check_time(self) -> None:
        """It has ended within the sum of the deadlines, and not before the client had its time."""
        took = self.ended_at - self.last_step
        ends_soon = self.end_is_whole or self.did & {"eof", "reset", "drain"}
        longest = HANDSHAKE + INTERVAL + HELD_UP + TIMEOUT + HELD_UP
        assert took <= STALL + CLOSING + (0 if ends_soon else longest) + 1e-6, "too late"
        cut_short = self.did & {"eof", "reset", "cancel", "fail", "stall", "stand_still"}
        if self.outcome and self.outcome.sent_code is not None and not cut_short:
            assert self.ended_at - self.client.closed_at >= CLOSING - 1e-6, "too early"

    def check_frames(self, frames: list[Frame], cut_off: bytes) -> None:
        """At most one Close was sent, nothing after it, and before it what is due, in order."""
        closes = [frame for frame in frames if frame.opcode == CLOSE]
        answers = [frame for frame in frames if frame.opcode not in (CLOSE, PING)]
        assert closes == frames[-1:] or not closes
        assert not (closes and cut_off)
        assert answers == self.due[: len(answers)]
        if self.outcome is None:
            return
        lost = self.client.may_lose and "reset" in self.did
        sent = wire.codes(b"".join(map(as_sent, closes)))
        assert lost or sent == [self.outcome.sent_code] * (self.outcome.sent_code is not None)
        if closes and self.end and self.outcome.ending is self.end.ending:
            assert answers == self.due, "what came in full before it is answered"
        texts = [frame for frame in answers if frame.opcode == TEXT]
        binaries = [frame for frame in answers if frame.opcode == BINARY]
        counted = self.outcome.texts, self.outcome.binaries, self.outcome.octets
        there = len(texts), len(binaries), sum(len(each.payload) for each in texts + binaries)
        assert lost or all(a <= b for a, b in zip(counted, there, strict=True))
        assert counted == there or not closes

    def check_counts(self) -> None:
        """The registry has counted one ending, and it is this one."""
        statistics = self.registry.statistics()
        assert len(self.registry) == statistics.connections == 0
        assert sum(statistics.endings.values()) == statistics.connections_total <= 1
        if statistics.connections_total:
            assert sum(self.registry.counts.durations.buckets) == 1
        if self.outcome is None:
            return
        if statistics.connections_total:
            assert statistics.endings == {self.outcome.ending: 1}
            assert statistics.received_codes == {self.outcome.received_code: 1}
            assert statistics.sent_codes == {self.outcome.sent_code: 1}
        else:
            refused = self.outcome.ending is Ending.REFUSED
            assert statistics.refused == ({self.outcome.status: 1} if refused else {})

    def check_ending(self) -> None:
        """Something was done that ends a connection so."""
        outcome = self.outcome
        ending, did = outcome.ending, self.did
        assert outcome.received_code in self.received
        if self.end and ending is self.end.ending:
            assert outcome.received_code == self.end.received
            assert outcome.sent_code in (self.end.sent, None)
            return
        assert {
            Ending.IDLE: self.silence >= INTERVAL + TIMEOUT - 1e-6
            and outcome.sent_code in (1011, None),
            Ending.DRAINING: "drain" in did and outcome.sent_code in (1001, None),
            Ending.INTERNAL_ERROR: "fail" in did and outcome.sent_code in (1011, None),
            Ending.STALLED: did & self.client.stalls and outcome.sent_code is None,
            Ending.VANISHED: (did & {"eof", "reset"} and outcome.sent_code is None)
            or (outcome.status is None and (not self.spoke or did & {"drain", "stand_still"})),
            Ending.REFUSED: outcome.status in (408, 503),
        }[ending]  # fmt: skip


def as_sent(frame: Frame) -> bytes:
    return bytes([0x80 | frame.opcode, len(frame.payload)]) + frame.payload


def whole_frames(data: bytes) -> tuple[list[Frame], bytes]:
    """The frames that are there whole, and what there is of one more."""
    end = 0
    while True:
        size = data[end + 1] if len(data) >= end + 2 else 0
        start = end + {126: 4, 127: 10}.get(size, 2)
        size = int.from_bytes(data[end + 2 : start], "big") if size > 125 else size
        if len(data) < start + size:
            return wire.parse(data[:end]), data[end:]
        end = start + size


@contextmanager
def failing(play: Play) -> Iterator[None]:
    """Once it is to ``fail``, the session does, as it would for want of memory."""
    receive = Session.receive

    def receive_or_fail(session: Session, data: bytes = b"") -> bytes | bytearray:
        if "fail" in play.did:
            raise MemoryError
        return receive(session, data)

    with mock.patch.object(Session, "receive", receive_or_fail):
        yield


@contextmanager
def logged() -> Iterator[list[logging.LogRecord]]:
    """What the service logs, and nobody else hears."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    logger = logging.getLogger("echo_service")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)  # which, other than the attribute, is heard of by its cache
    logger.propagate = False
    yield records
    logger.removeHandler(handler)
    level, logger.propagate = before
    logger.setLevel(level)


async def carry_out(schedule, way, fast_lane: bool) -> None:
    async with way() as client:
        tasks = trio.lowlevel.current_statistics().tasks_living
        play = Play(client, fast_lane)
        with failing(play), logged() as records:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(play.run)
                await play.perform(schedule)
                with trio.move_on_after(1000):
                    await play.done.wait()
                nursery.cancel_scope.cancel()
            assert trio.lowlevel.current_statistics().tasks_living == tasks
            await client.finish()
        play.check()
    events = [record.getMessage() for record in records]
    opened = play.registry.counts.connections_total
    assert events.count("connection.opened") == events.count("connection.closed") == opened
    assert events.count("connection.failed") <= ("fail" in play.did)


def run(schedule, codec, way, fast_lane: bool) -> None:
    with mock.patch.object(connection, "BEST", codec):
        trio.run(carry_out, schedule, way, fast_lane, clock=MockClock(autojump_threshold=0))


VARIANTS = pytest.mark.parametrize(
    "codec, way, fast_lane",
    [
        (BEST, in_memory, True),
        (PYTHON, in_memory, True),
        (BEST, in_memory, False),
        pytest.param(
            BEST,
            on_a_lane,
            True,
            marks=pytest.mark.skipif(not lane.AVAILABLE, reason="this platform has no epoll"),
        ),
    ],
    ids=["codec", "codec in Python", "wsproto", "lane"],
)


@VARIANTS
@settings(derandomize=True, deadline=None, max_examples=120)
@example((1.0, [("wait", (INTERVAL,), True), ("stand_still", (60.0, True), True)]))
@example((1.0, [("wait", (23.9375,), False), ("stand_still", (HELD_UP, True), False)]))
@example((1.0, [("stall", (), True), ("stand_still", (18.0, False), False), ("wait", (0.1,), False),
                ("stand_still", (TIMEOUT, True), False)]))  # fmt: skip
@given(schedule=schedules)
def test_whatever_happens_it_ends_in_time_once_and_with_one_close(codec, way, fast_lane, schedule):
    run(schedule, codec, way, fast_lane)


@pytest.mark.exhaustive
@VARIANTS
@settings(deadline=None, max_examples=5_000)
@given(schedule=schedules)
def test_the_same_of_many_more_schedules(codec, way, fast_lane, schedule):
    run(schedule, codec, way, fast_lane)
