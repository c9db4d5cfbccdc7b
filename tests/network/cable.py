"""Two machines and the cable between them, which loses, delays and damages as it is told.

A machine is a network namespace with a network card, and the card is a TUN device: what
the kernel's TCP sends on it is read here, packet by packet, and given to the other one.
So the faults are the same on every kernel, `tc netem` or not, their chance is seeded, and
how often each has happened is counted.  The namespaces have no names: they, their cards
and the sockets in them go when this process goes, however it ends.
"""

from __future__ import annotations

import ctypes
import fcntl
import math
import os
import random
import socket
import struct
import subprocess
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import trio

CLONE_NEWNET = 0x40000000
TUNSETIFF, TUNSETCARRIER = 0x400454CA, 0x400454E2
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000

CARD = "card"
MTU = 1500


class Machine:
    """A machine at an end of the cable: a thread that lives in a namespace of its own.

    Raises OSError where that may not be had.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._thread = ThreadPoolExecutor(1)
        try:
            self.namespace = self.inside(_leave_for_a_new_namespace)
            self.card = self.inside(_open_card)
        except OSError:
            self._thread.shutdown()
            raise
        self.run("ip", "link", "set", CARD, "addrgenmode", "none", "mtu", str(MTU), "up")
        self.run("ip", "address", "add", f"{address}/24", "dev", CARD)

    def close(self) -> None:
        """Leave the namespace to the processes that are still in it."""
        os.close(self.card)
        self._thread.shutdown()

    def inside(self, call, *arguments):
        """Call something that takes no time, from within the namespace."""
        return self._thread.submit(call, *arguments).result()

    def run(self, *command: str) -> str:
        """Run a program in it that takes no time; its stdout."""
        done = self.inside(lambda: subprocess.run(command, check=True, capture_output=True))
        return done.stdout.decode()

    def set(self, name: str, value: str) -> None:
        """Set one of its kernel's variables, as ``ipv4/tcp_mtu_probing``."""
        self.inside(Path("/proc/sys/net", name).write_text, value)

    def carrier(self, *, on: bool) -> None:
        """Have the card feel the cable, or not."""
        fcntl.ioctl(self.card, TUNSETCARRIER, struct.pack("i", on))

    def socket(self) -> trio.socket.SocketType:
        """A TCP socket of this machine's."""
        return trio.socket.from_stdlib_socket(self.inside(socket.socket))


def _leave_for_a_new_namespace() -> str:
    """Let this thread alone enter a new network namespace; its path."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "a network namespace can't be had: this needs root")
    return f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"


def _open_card() -> int:
    card = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(card, TUNSETIFF, struct.pack("16sH22x", CARD.encode(), IFF_TUN | IFF_NO_PI))
    return card


@dataclass
class Faults:
    """What may happen to a packet: probabilities, seconds, bytes a second, bytes."""

    loss: float = 0.0
    damage: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    """Up to so much more delay, for each packet anew: some overtake others."""
    rate: float = math.inf
    queue: float = 0.5
    """How long a packet may have to wait for those before it, or it is dropped."""
    mtu: int = MTU
    tells: bool = True
    """Whether the sender of a packet that is too big is told so (ICMP)."""


class Way:
    """One of the cable's two directions, and ``counts`` of what has happened on it."""

    def __init__(self, source: int, sink: int, seed: int) -> None:
        self._source = source
        self._sink = sink
        self._random = random.Random(seed)
        self._free = 0.0
        self._latest = 0.0
        self.faults = Faults()
        self.pulled = False
        self.counts: Counter[str] = Counter()

    async def carry(self) -> None:
        """Carry packets, for ever."""
        async with trio.open_nursery() as under_way:
            while True:
                await trio.lowlevel.wait_readable(self._source)
                packet = os.read(self._source, 65536)
                if self._passes(packet):
                    for each in self._copies(packet):
                        under_way.start_soon(self._deliver, each, self._due(len(each)))

    def _happens(self, fault: str, chance: float) -> bool:
        happens = self._random.random() < chance
        self.counts[fault] += happens
        return happens

    def _passes(self, packet: bytes) -> bool:
        faults = self.faults
        if len(packet) > faults.mtu:
            self.counts["too big"] += 1
            if faults.tells:
                os.write(self._source, too_big(packet, faults.mtu))
            return False
        return not self._happens("loss", faults.loss)

    def _copies(self, packet: bytes) -> list[bytes]:
        """What becomes of it: itself or something like it, once or twice."""
        if self._happens("damage", self.faults.damage):
            flipped = 1 << self._random.randrange(8 * len(packet))
            packet = (int.from_bytes(packet) ^ flipped).to_bytes(len(packet))
        return [packet] * (2 if self._happens("duplicate", self.faults.duplicate) else 1)

    def _due(self, size: int) -> float:
        """When a packet of this size arrives; infinity, if it never does."""
        now = trio.current_time()
        if self._free - now > self.faults.queue:
            self.counts["queue"] += 1
            return math.inf
        self._free = max(self._free, now) + size / self.faults.rate
        return self._free + self.faults.delay + self.faults.jitter * self._random.random()

    async def _deliver(self, packet: bytes, due: float) -> None:
        if due == math.inf:
            return
        await trio.sleep_until(due)
        self.counts["overtaken"] += due < self._latest
        self._latest = max(due, self._latest)
        try:
            arrives = not self.pulled and os.write(self._sink, packet)
        except OSError:  # the card is down
            arrives = False
        self.counts["unheard"] += not arrives


def too_big(packet: bytes, mtu: int) -> bytes:
    """The answer to a packet that does not fit: ICMP's 3, 4 and the MTU (RFC 792, RFC 1191 4)."""
    source, destination = packet[12:16], packet[16:20]
    body = _summed(struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + packet[:28], 2)
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 56, 0, 0, 64, 1, 0, destination, source)
    return _summed(head, 10) + body


def _summed(data: bytes, at: int) -> bytes:
    """The data with its checksum (RFC 1071) put in."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return data[:at] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + data[at + 2 :]


class Cable:
    """The cable between a service's machine and a client's.

    ``down`` is the way from the service to the client, ``up`` the one back.
    """

    def __init__(self, service: Machine, client: Machine, seed: int = 6455) -> None:
        self.service = service
        self.client = client
        self.down = Way(service.card, client.card, seed)
        self.up = Way(client.card, service.card, seed + 1)

    def pull(self) -> None:
        """Pull it: what is sent is lost, what was under way too, and the cards feel it."""
        self._plug(on=False)

    def put_back(self) -> None:
        """Undo `pull`."""
        self._plug(on=True)

    def cut(self, *, off: bool = True) -> None:
        """Lose all packets, somewhere in the middle, or no longer: no card feels that."""
        self.down.pulled = self.up.pulled = off

    def _plug(self, *, on: bool) -> None:
        self.cut(off=not on)
        for machine in (self.service, self.client):
            machine.carrier(on=on)
