"""A client that has done nothing wrong: ``python -m tests.attacks.witness PORT PID [CA]``.

It echoes all the while, in a process of its own, so that no work of the attackers' delays it.
Each line on its stdin is answered with one on its stdout: the longest delay of an echo since
the line before, in seconds, and how many echoes there were.

A delay is the smaller of two times, so that a busy machine is no delay of the service's: the CPU
time that the service had from before the message was sent until its echo was seen, and the
time by the clock until the kernel received the echo.  The first is too long only if the witness
was kept from running, the second only if the service was.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import sys
import time

from tests import wire
from tests.attacks import process

PAUSE = 0.002
"""Seconds between two echoes: by so much a delay may be seen too short."""

SO_TIMESTAMPNS = 35
MESSAGE, ECHO = wire.frame(wire.TEXT, b"still here"), b"\x81\x0astill here"


class Witness:
    """One connection that echoes, and the longest delay that it has seen."""

    def __init__(self, port: int, pid: int, trusted: str | None) -> None:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, True)
        self._raw = sock.dup()
        if trusted is not None:
            context = ssl.create_default_context(cafile=trusted)
            sock = context.wrap_socket(sock, server_hostname="localhost")
        self._socket = sock
        self._pid = pid
        self._worst, self._echoes = 0.0, 0
        self._socket.sendall(wire.request())
        self._receive(b"\r\n\r\n")

    def echo(self) -> None:
        """Send a message and time its echo."""
        before, begun = process.cpu(self._pid), time.time_ns()
        self._socket.sendall(MESSAGE)
        received = self._await()
        used = process.cpu(self._pid) - before
        assert self._receive(ECHO) == ECHO
        self._worst = max(self._worst, min(used, (received - begun) / 1e9))
        self._echoes += 1

    def told(self) -> str:
        """The longest delay, and of how many echoes, since this was last asked."""
        told = f"{self._worst} {self._echoes}"
        self._worst, self._echoes = 0.0, 0
        return told

    def _await(self) -> int:
        """When the kernel received what comes next; now, where it does not tell."""
        _, notes, _, _ = self._raw.recvmsg(1, 64, socket.MSG_PEEK)
        for _, _, stamp in notes:
            seconds, nanoseconds = struct.unpack("qq", stamp)
            return int(seconds * 10**9 + nanoseconds)
        return time.time_ns()

    def _receive(self, end: bytes) -> bytes:
        received = b""
        while not received.endswith(end):
            piece = self._socket.recv(65536)
            assert piece, "the service has ended the connection"
            received += piece
        return received


def main(port: str, pid: str, trusted: str | None = None) -> None:
    """Echo, and answer each line on stdin, until that ends."""
    witness = Witness(int(port), int(pid), trusted)
    while True:
        witness.echo()
        if select.select([sys.stdin], [], [], PAUSE)[0]:
            if not sys.stdin.readline():
                return
            print(witness.told(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
