"""What the service manager is told, on a real socket of its kind, and when."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest
import trio

from echo_service import Config, config
from echo_service.systemd import Notifier, attend
from tests import wire

pytestmark = pytest.mark.usefixtures("in_time")


@pytest.fixture
def manager(tmp_path):
    """A service manager's socket, in the file system."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield sock


@pytest.fixture
def notifier(manager):
    return told(manager)


def told(manager: socket.socket, **environ: str) -> Notifier:
    """A notifier that the manager has started with these variables beside its socket."""
    return Notifier({"NOTIFY_SOCKET": manager.getsockname(), **environ}, os.getpid())


def heard(manager: socket.socket) -> list[bytes]:
    """All the messages that wait."""
    messages = []
    while True:
        try:
            messages.append(manager.recv(4096))
        except BlockingIOError:
            return messages


def fill(manager: socket.socket) -> int:
    """Send the manager messages until it has no room; returns how many."""
    count = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        while True:
            try:
                sock.sendto(b"X=1", manager.getsockname())
            except BlockingIOError:
                return count
            count += 1


# The messages, to the byte


def test_ready_comes_with_its_status(manager, notifier):
    notifier.ready("serving ws://127.0.0.1:8080")
    assert heard(manager) == [b"READY=1\nSTATUS=serving ws://127.0.0.1:8080"]


def test_stopping_comes_with_its_status(manager, notifier):
    notifier.stopping("draining")
    assert heard(manager) == [b"STOPPING=1\nSTATUS=draining"]


def test_reloading_tells_the_time_of_its_beginning(manager, notifier):
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    (message,) = heard(manager)
    found = re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=(\d+)", message)
    assert before <= int(found[1]) <= after


def test_a_status_is_sent_once_until_it_changes(manager, notifier):
    for text in ("one", "one", "two", "two", "one"):
        notifier.status(text)
    assert heard(manager) == [b"STATUS=one", b"STATUS=two", b"STATUS=one"]


def test_a_status_that_ready_has_told_is_not_repeated(manager, notifier):
    notifier.ready("serving")
    notifier.status("serving")
    assert heard(manager) == [b"READY=1\nSTATUS=serving"]


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\v"])
def test_a_status_is_one_line_and_so_no_other_assignment(manager, notifier, separator: str):
    notifier.status(f"serving{separator}READY=1")
    assert heard(manager) == [b"STATUS=serving READY=1"]


def test_a_status_that_is_no_unicode_is_told_as_far_as_it_is(manager, notifier):
    notifier.status("serving ws+unix:/\udcff")
    assert heard(manager) == [b"STATUS=serving ws+unix:/?"]


# The watchdog


@pytest.mark.parametrize(
    "environ, interval",
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "ours"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_PID": "ours"}, None),
    ],
    ids=str,
)
def test_a_watchdog_is_fed_twice_in_its_time_where_it_is_ours(manager, environ, interval):
    pid = str(os.getpid())
    notifier = told(manager, **{k: v.replace("ours", pid) for k, v in environ.items()})
    assert notifier.watchdog_interval == interval
    notifier.watchdog()
    assert heard(manager) == ([b"WATCHDOG=1"] if interval else [])


# The manager


def test_an_abstract_socket_is_named_with_an_at_sign():
    name = f"echo-service-{secrets.token_hex(8)}"
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as sock:
        sock.bind(f"\0{name}")
        sock.setblocking(False)
        Notifier({"NOTIFY_SOCKET": f"@{name}"}, os.getpid()).ready("serving")
        assert heard(sock) == [b"READY=1\nSTATUS=serving"]


def test_what_finds_no_room_goes_with_what_is_sent_next(manager, notifier):
    held = fill(manager)
    notifier.ready("serving")
    notifier.status("serving; connections: 1")
    assert heard(manager) == [b"X=1"] * held
    notifier.status("serving; connections: 2")
    notifier.status("serving; connections: 3")
    assert heard(manager) == [
        b"READY=1\nSTATUS=serving; connections: 2",
        b"STATUS=serving; connections: 3",
    ]


def test_a_reload_that_was_not_heard_of_is_not_told_after_its_end(manager, notifier):
    held = fill(manager)
    notifier.reloading()
    notifier.ready("serving")
    assert heard(manager) == [b"X=1"] * held
    notifier.ready("serving")
    assert b"RELOADING" not in b"".join(heard(manager))


@pytest.mark.parametrize(
    "address", ["/nowhere/notify", "@echo-service-nobody", "/" + 200 * "x", "vsock:2:1", "here", ""]
)
def test_a_manager_that_is_not_there_is_no_matter(address: str):
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"}, os.getpid())
    notifier.ready("serving")
    notifier.reloading()
    notifier.status("still serving")
    notifier.watchdog()
    notifier.stopping("draining")


# In the event loop


async def test_the_watchdog_is_fed_in_time_and_the_status_kept_true(
    manager, nursery, autojump_clock
):
    notifier = told(manager, WATCHDOG_USEC="4000000")
    status = "serving"
    notifier.ready(status)
    nursery.start_soon(attend, notifier, lambda: status)
    await trio.sleep(5)
    status = "serving more"
    await trio.sleep(2)
    assert heard(manager) == [
        b"READY=1\nSTATUS=serving",
        *[b"WATCHDOG=1"] * 4,
        b"STATUS=serving more",
    ]


async def test_without_a_watchdog_the_status_alone_is_kept_true(manager, nursery, autojump_clock):
    turns = iter(range(100))
    nursery.start_soon(attend, told(manager), lambda: f"turn {next(turns)}")
    await trio.sleep(12)
    assert heard(manager) == [b"STATUS=turn 0", b"STATUS=turn 1", b"STATUS=turn 2"]


async def test_a_loop_that_is_stuck_is_not_fed_for(manager, nursery):
    nursery.start_soon(attend, told(manager, WATCHDOG_USEC="20000"), lambda: "serving")
    for _ in range(3):
        assert await message(manager, b"STATUS=serving") == b"WATCHDOG=1"
    time.sleep(0.1)  # noqa: ASYNC251 - stuck: five times what the watchdog allows
    assert heard(manager) == []
    assert await message(manager) == b"WATCHDOG=1"


async def test_where_there_is_no_manager_there_is_nothing_to_attend_to():
    await attend(Notifier({"WATCHDOG_USEC": "4000000"}, os.getpid()), lambda: "serving")


# The example of an environment file


def test_the_example_holds_options_and_their_defaults():
    lines = (Path(__file__).parents[1] / "deploy/systemd/echo-service.env").read_text().split("\n")
    assert all(line.startswith("# ") for line in lines if line), "as it is it changes nothing"
    shown = [line[2:].split("=") for line in lines if line.startswith("# ECHO_SERVICE_")]
    assert len(shown) > 3
    assert Config(**config.from_environment(dict(shown))) == Config()


# The program


@pytest.fixture
def service(program, manager):
    """Start the command as a manager does; what it says, one message at a time, is ``told``."""

    async def start(*arguments: str, **environ: str):
        running = await program(
            "serve",
            "--bind=127.0.0.1:0",
            *arguments,
            shell='export WATCHDOG_PID=$$; exec "$@"',
            environ={"NOTIFY_SOCKET": manager.getsockname(), **environ},
        )
        running.url_ = await running.url()
        return running

    return start


async def message(manager: socket.socket, *but: bytes) -> bytes:
    """The next message that is none of these."""
    while True:
        await trio.lowlevel.wait_readable(manager)
        found = manager.recv(4096)
        if found not in but:
            return found


async def test_program_tells_that_it_serves_reloads_and_drains(manager, service, connect):
    running = await service()
    serving = f"STATUS=serving {running.url_}; connections: ".encode()
    assert await message(manager) == b"READY=1\n" + serving + b"0"
    client = await connect(running.url_)
    await client.open()

    running.process.send_signal(signal.SIGHUP)
    assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=\d+", await message(manager, serving + b"1"))
    assert await message(manager) == b"READY=1\n" + serving + b"1"

    running.process.terminate()
    draining = serving.replace(b"serving", b"draining")
    assert await message(manager) == b"STOPPING=1\n" + draining + b"1"
    await client.frame()
    await client.send(wire.close(1001))
    await client.stream.aclose()
    assert await running.ends() == 0


async def test_program_tells_that_it_keeps_its_old_certificate(manager, service, certificate):
    files = certificate()
    running = await service(f"--tls-cert={files['tls_cert']}", f"--tls-key={files['tls_key']}")
    serving = b"READY=1\nSTATUS=serving wss://"
    kept = b"; the new certificate can't be used, the old one is kept"
    assert (await message(manager)).startswith(serving)
    key = trio.Path(files["tls_key"])
    good = await key.read_bytes()
    for content, keeps in [(b"no key", True), (good, False)]:
        await key.write_bytes(content)
        running.process.send_signal(signal.SIGHUP)
        assert (await message(manager)).startswith(b"RELOADING=1\n")
        status = await message(manager)
        assert status.startswith(serving)
        assert status.endswith(kept) is keeps


async def test_program_feeds_the_watchdog(manager, service):
    await service(WATCHDOG_USEC="100000")
    assert (await message(manager)).startswith(b"READY=1\n")
    for _ in range(3):
        assert await message(manager) == b"WATCHDOG=1"
