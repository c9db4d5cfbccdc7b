"""What connections cost in memory, read off the operating system for the running command."""

from __future__ import annotations

import random
import socket
import sys
import zlib
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path

import pytest
import trio

from . import wire

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

MIB = 1 << 20
OFFER = ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")


def resident(pid: int, row: str = "VmRSS") -> int:
    """Bytes resident now, or with ``VmHWM`` at their peak since `forget_peak`."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith(f"{row}:"))
    return int(line.split()[1]) * 1024


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def open_socket(port: int, *extra: tuple[str, str]) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    client.sendall(wire.request("/", *extra))
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(1)
    return client


def open_and_exchange(port: int, many: int, opening: list, message: bytes, stack: ExitStack):
    """Open connections and exchange one message on each; they stay open."""
    for _ in range(many):
        client = stack.enter_context(open_socket(port, *opening))
        client.sendall(message)
        assert client.recv(65536)


@pytest.mark.parametrize(
    "opening, rsv, most", [([OFFER], 4, 64 * 1024), ([], 0, 32 * 1024)], ids=["deflate", "plain"]
)
async def test_an_idle_connection_after_one_message(opening, rsv, most, program):
    service = await program("serve", "--bind", "127.0.0.1:0", "--log-level", "info")
    port = int((await service.url()).rpartition(":")[2])
    text = b'{"name": "echo", "value": [1, 2, 3], "text": "some JSON"}' * 18
    payload = wire.deflate(text) if rsv else text
    message = wire.frame(wire.TEXT, payload, rsv=rsv)
    with ExitStack() as stack:
        enter = partial(open_and_exchange, port, opening=opening, message=message, stack=stack)
        await trio.to_thread.run_sync(partial(enter, 50))
        before = resident(service.process.pid)
        await trio.to_thread.run_sync(partial(enter, 300))
        cost = (resident(service.process.pid) - before) / 300
    assert cost <= most, f"{cost / 1024:.1f} KiB a connection"


def exchange(port: int, opening: list, sent: list[bytes], expected: int) -> bytes:
    """Send the pieces while reading; returns what came until ``expected`` bytes or the end."""
    with open_socket(port, *opening) as client:
        received = bytearray()
        client.sendall(b"".join(sent))
        while len(received) < expected and (piece := client.recv(1 << 18)):
            received += piece
        return bytes(received)


@cache
def deflated_zeros(size: int) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -12)
    pieces = [compressor.compress(bytes(MIB)) for _ in range(size // MIB)]
    pieces.append(compressor.compress(bytes(size % MIB)))
    pieces.append(compressor.flush(zlib.Z_SYNC_FLUSH)[:-4])
    return b"".join(pieces)


LIMIT = 4 * MIB


@pytest.mark.parametrize(
    "opening, sent, expected, code",
    [
        pytest.param([], [wire.frame(2, bytes(LIMIT))], LIMIT + 10, None, id="the limit, echoed"),
        pytest.param([], [wire.frame(1, b"a" * (LIMIT - 4) + "😀".encode())], LIMIT + 10, None,
                     id="text with one wide character, echoed"),
        pytest.param([OFFER], [wire.frame(2, deflated_zeros(LIMIT), rsv=4)], 1, None,
                     id="the limit, deflated, echoed"),
        pytest.param([OFFER], [wire.frame(2, deflated_zeros(256 * MIB), rsv=4)], 1 << 20, 1009,
                     id="a bomb in one frame"),
        pytest.param([OFFER],
                     [wire.frame(2, deflated_zeros(256 * MIB)[:40000], rsv=4, fin=False),
                      wire.frame(0, deflated_zeros(256 * MIB)[40000:])], 1 << 20, 1009,
                     id="a bomb in fragments"),
        pytest.param([], [wire.header(2, LIMIT) + wire.KEY, bytes(1000)], 0, None,
                     id="the limit announced, little sent"),
        pytest.param([], [wire.header(2, 1 << 62) + wire.KEY], 1 << 20, 1009,
                     id="two to the 62nd announced"),
    ],
)  # fmt: skip
async def test_one_connection_grows_the_process_by_twice_the_limit_at_most(
    opening, sent, expected, code, program
):
    service = await program("serve", "--bind", "127.0.0.1:0", "--max-message-size", str(LIMIT))
    pid = service.process.pid
    port = int((await service.url()).rpartition(":")[2])
    warm = [wire.frame(2, b"warm", rsv=0)]
    await trio.to_thread.run_sync(exchange, port, opening, warm, 6)
    before = resident(pid)
    forget_peak(pid)
    received = await trio.to_thread.run_sync(exchange, port, opening, sent, expected)
    growth = resident(pid, "VmHWM") - before
    assert growth <= 2 * LIMIT + 2 * MIB, f"{growth / MIB:.1f} MiB"
    if code is not None:
        assert wire.codes(received) == [code]


async def test_what_large_messages_took_is_given_back(program):
    """Deflated and plain, so that buffers of several sizes come and go."""
    service = await program("serve", "--bind", "127.0.0.1:0")
    port = int((await service.url()).rpartition(":")[2])
    noise = random.Random(7692).randbytes(16 * MIB)
    compressor = zlib.compressobj(1, zlib.DEFLATED, -12)
    deflated = wire.frame(2, wire.deflate(noise, compressor), rsv=4)
    before = resident(service.process.pid)
    for opening, sent in 2 * [([OFFER], deflated), ([], wire.frame(2, noise))]:
        await trio.to_thread.run_sync(exchange, port, opening, [sent], 16 * MIB)
    kept = resident(service.process.pid) - before
    assert kept <= 8 * MIB, f"{kept / MIB:.1f} MiB"
