"""Faults of the machine, for real where they can be had: `docs/reliability.md` has the table."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio

from tests import wire
from tests.conftest import eventually, missing, until

pytestmark = pytest.mark.usefixtures("in_time")


@contextmanager
def passed_socket():
    """A socket for the command to listen on, and where it is, which no log has to tell."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as sock:
        yield sock, "ws://127.0.0.1:{1}".format(*sock.getsockname())


# The log


@pytest.fixture
def full_pipe():
    """A pipe that nobody reads and that takes no more; its two ends."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"." * 65536)
    except BlockingIOError:
        os.set_blocking(write, True)
    yield read, write
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_stderr_that_nobody_reads_holds_up_nothing(program, connect, full_pipe, workers):
    with passed_socket() as (sock, url):
        service = await program(
            "serve",
            f"--bind=fd:{sock.fileno()}",
            f"--workers={workers}",
            pass_fds=[sock.fileno()],
            stderr=full_pipe[1],
        )
        client = await connect(url)
        await client.open()
        await client.echo()
        service.process.terminate()
        assert (await client.frame()).opcode == wire.CLOSE
        await client.send(wire.close(1001))
        await client.stream.aclose()
        assert await service.ends() == 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_closed_stderr_is_no_clients_socket(program, connect, workers):
    """The next file that is opened becomes number 2: nothing of the log must get there."""
    with passed_socket() as (sock, url):
        service = await program(
            "serve",
            f"--bind=fd:{sock.fileno()}",
            f"--workers={workers}",
            shell='exec "$@" 2>&-',
            pass_fds=[sock.fileno()],
            stderr=subprocess.DEVNULL,
        )
        clients = [await connect(url) for _ in range(4)]
        for client in clients:
            await client.open()
            await client.echo()
        service.process.terminate()
        for client in clients:
            assert wire.codes(await client.rest()) == [1001]
            await client.stream.aclose()
        assert await service.ends() == 0


async def test_a_full_disk_under_the_log_costs_lines_and_nothing_else(program, connect, tmp_path):
    """A small file system of its own; once there is room again, a line tells how many."""
    own = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if (await trio.run_process([*own, f"mount -t tmpfs none {tmp_path}"], check=False)).returncode:
        pytest.skip("no file system can be mounted here")
    with passed_socket() as (sock, url):
        mount = f"mount -t tmpfs -o size=16k none {tmp_path} && cd {tmp_path} && : >log"
        fill = "head -c 12288 /dev/zero >filler"
        service = await program(
            "serve",
            f"--bind=fd:{sock.fileno()}",
            "--log-format=json",
            shell=f'exec {" ".join(own)} \'{mount} && {fill} && exec "$@" 2>>log\' sh "$@"',
            pass_fds=[sock.fileno()],
            stderr=subprocess.DEVNULL,
        )
        for number in range(40):  # some 350 bytes each, into 4096
            client = await connect(url)
            await client.open(f"/{number}")
            await client.echo()
            await client.stream.aclose()
        there = Path(f"/proc/{service.process.pid}/root{tmp_path}")
        (there / "filler").unlink()
        client = await connect(url)
        await client.open("/after")
        await eventually(lambda: accounted(there / "log") == 40 * 2 + 2)
        assert "log.lost" in (there / "log").read_text()
        service.process.terminate()
        await client.frame()
        await client.stream.aclose()
        assert await service.ends() == 0


def accounted(log: Path) -> int:
    """How many lines are there whole, or are told to be lost."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    return sum(line.get("lines", 1) for line in lines)


# Files and memory


async def test_at_the_file_limit_who_connects_waits_and_who_is_there_is_served(program, connect):
    """EMFILE itself: the limit is lowered to what is open already."""
    service = await program("serve", "--bind=127.0.0.1:0", "--log-format=json")
    url = await service.url()
    there = await connect(url)
    await there.open()
    pid = service.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir(f"/proc/{pid}/fd")))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    waiting = [await connect(url) for _ in range(3)]
    failed = json.loads(await service.line("server.accept_failed"))
    assert (failed["level"], "Too many open files" in failed["error"]) == ("error", True)
    await there.echo()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    for client in waiting:
        await client.open()
        await client.echo()
    service.process.terminate()
    for client in [there, *waiting]:
        await client.frame()
        await client.stream.aclose()
    assert await service.ends() == 0
    assert sum("server.accept_failed" in line for line in service.lines) == 1


async def test_want_of_memory_ends_the_connection_that_asks_for_it(program, connect):
    """The address space is limited to what is there and 24 MiB; a message takes 64."""
    service = await program("serve", "--bind=127.0.0.1:0", f"--max-message-size={64 << 20}")
    url = await service.url()
    there, greedy = await connect(url), await connect(url)
    await there.open()
    await greedy.open()
    pid = service.process.pid
    size = int((await trio.Path(f"/proc/{pid}/statm").read_text()).split()[0])
    size *= resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (size + (24 << 20), -1))
    await greedy.send(wire.header(wire.BINARY, 64 << 20) + wire.KEY)
    with suppress(trio.BrokenResourceError):
        for _ in range(64):
            await greedy.send(bytes(1 << 20))
    assert wire.codes(await greedy.rest()) == [1011]
    await there.echo()
    line = await service.line("connection.failed")
    assert "error" in line
    await there.echo()


# A process that stands still


PINGS = ["--ping-interval=0.5", "--ping-timeout=2.5"]


async def pongs(client: wire.Client) -> None:
    """Answer pings, and fail at anything else."""
    while True:
        assert await client.frame() == wire.Frame(wire.PING, b"")
        await client.send(wire.frame(wire.PONG))


async def stand_still(pids: list[int], seconds: float, clients: list[wire.Client]) -> None:
    """Stop the processes while pings are due an answer, which comes meanwhile; go on after it."""
    for client in clients:
        assert await client.frame() == wire.Frame(wire.PING, b"")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    async with trio.open_nursery() as nursery:
        for client in clients:
            await client.send(wire.frame(wire.PONG))
            nursery.start_soon(pongs, client)
        await trio.sleep(seconds)  # it is time itself that must do no harm
        nursery.cancel_scope.cancel()
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    for client in clients:
        await client.send(wire.frame(wire.TEXT, b"still there"))
        while (frame := await client.frame()).opcode == wire.PING:
            await client.send(wire.frame(wire.PONG))
        assert frame.payload == b"still there"


@pytest.fixture
def eight(program, connect):
    """Start the command, and connect to it eight times; with the processes to be stopped."""

    async def start(stopped: str, *options: str):
        many = [] if stopped == "one process" else ["--workers=2"]
        words = ["serve", "--bind=127.0.0.1:0", "--log-format=json", *many, *options]
        service = await program(*words)
        begun = [await service.line("worker.started") for _ in range(2 * len(many))]
        pids = [json.loads(line)["pid"] for line in begun]
        url = await service.url()
        clients = [await connect(url) for _ in range(8)]
        for client in clients:
            await client.open()
        return service, [service.process.pid, *(pids if stopped == "all" else [])], clients

    return start


@pytest.mark.parametrize("stopped", ["one process", "all"])
async def test_nobody_is_dropped_because_we_stood_still(eight, stopped):
    service, pids, clients = await eight(stopped, *PINGS)
    await stand_still(pids, 3.5, clients)
    assert not [line for line in service.lines if "worker.exited" in line]


@pytest.mark.exhaustive
@pytest.mark.parametrize("stopped", ["one process", "parent", "all"])
async def test_nobody_is_dropped_because_we_stood_still_for_a_minute(eight, stopped):
    """By the keepalive as it comes, and by the parent, which waits for signs of life as long."""
    signal.alarm(0)  # it takes longer than a test that hangs
    service, pids, clients = await eight(stopped)
    await stand_still(pids, 60, clients)
    assert not [line for line in service.lines if "worker.exited" in line]


# The clock


FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)


@pytest.mark.exhaustive  # it needs a library that few have
async def test_a_clock_that_jumps_ends_no_connection(program, connect, tmp_path):
    """Years ahead and back: deadlines go by the clock that can't be set (CLOCK_MONOTONIC)."""
    if FAKETIME is None:
        missing("libfaketime is not here; it comes from Debian's package of this name")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environ = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    service = await program("serve", "--bind=127.0.0.1:0", *PINGS, environ=environ)
    url = await service.url()
    client = await connect(url)
    await client.open()
    years = set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pongs, client)
        for offset in ("+10y", "-10y", "+0"):
            clock.write_text(offset)
            await trio.sleep(1.2)  # two pings, at least
            other = await connect(url)
            await other.open()
            await other.echo()
            years.add((await service.line("connection.opened"))[:4])
            await other.stream.aclose()
        nursery.cancel_scope.cancel()
    assert len(years) == 3, "the clock did jump"


# A peer that is gone, and nobody has said so


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs CAP_NET_ADMIN")
async def test_a_half_open_connection_ends_at_the_next_ping(program, connect):
    """The peer's kernel has forgotten it, as after a loss of power (RFC 9293 3.5.1)."""
    service = await program("serve", "--bind=127.0.0.1:0", *PINGS, "--log-format=json")
    url = await service.url()
    client, other = await connect(url), await connect(url)
    await client.open()
    await other.open()
    client.stream.setsockopt(socket.IPPROTO_TCP, 19, 1)  # TCP_REPAIR: close says nothing
    client.stream.socket.close()
    closed = json.loads(await service.line("connection.closed"))
    assert (closed["ending"], closed["received_code"]) in (("vanished", 1006), ("idle", 1006))
    assert closed["duration_s"] < 5
    assert (await other.frame()).opcode == wire.PING


# Resets


RESET = b"\1\0\0\0\0\0\0\0"
"""SO_LINGER for no time at all: to close is to reset."""


async def reset(client: wire.Client) -> None:
    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    await client.stream.aclose()


async def stalls(client: wire.Client) -> None:
    """Have more echoed than it takes."""
    await client.open()
    await client.send(wire.frame(wire.BINARY, bytes(12 << 20)))
    await client.stream.receive_some(1)


async def lingers(client: wire.Client) -> None:
    """Have closed, and leave it at that."""
    await client.open()
    await client.send(wire.close(1000))
    assert wire.codes(await client.rest()) == [1000]


async def violates(client: wire.Client) -> None:
    """Have been failed, and go on sending."""
    await client.open()
    await client.send(b"\x81\x05hello", wire.frame(wire.TEXT, b"more"))


async def waits(client: wire.Client) -> None:
    """Be in the backlog, or just accepted."""


@pytest.mark.parametrize("phase", [waits, stalls, lingers, violates])
async def test_a_reset_in_any_phase_touches_no_other(echo_server, connect, logged, phase):
    """`tests/test_server.py` has the phases before and within a message."""
    other = await connect(echo_server)
    await other.open()
    for _ in range(3):
        client = await connect(echo_server)
        await phase(client)
        await reset(client)
    await until(lambda: len(echo_server._acceptor.connections) == 1)
    await other.echo()
    assert not [line for line in logged() if line.level == "ERROR"]
    assert echo_server.statistics().connections == 1
