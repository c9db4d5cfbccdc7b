"""Addresses, and the sockets that are listened on for them."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
import trio

from echo_service import listeners
from echo_service.listeners import BindError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("in_time")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:8080",
        "127.0.0.1:0",
        "0.0.0.0:65535",
        "localhost:80",
        "echo.example:8080",
        "[::1]:8080",
        "[::]:0",
        "[fe80::1%eth0]:80",
        "unix:/run/echo.sock",
        "unix:echo.sock",
        "unix:/a path:80",
        "fd:0",
        "fd:3",
    ],
)
def test_is_an_address(address: str):
    assert listeners.is_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "8080",
        ":8080",
        "localhost",
        "localhost:",
        "localhost:http",
        "localhost:65536",
        "localhost:-1",
        "localhost:+1",
        "localhost: 80",
        "localhost:80 ",
        "localhost:٣",
        "local host:80",
        "::1:80",
        "::1",
        "[::1]",
        "[::1]:",
        "[localhost]:80",
        "[]:80",
        "ws://localhost:80",
        "localhost:80/",
        "unix:",
        "unix:/a\0b",
        "fd:",
        "fd:-1",
        "fd:x",
        "fd:1234567890",
        "UNIX:/run/echo",
    ],
)
def test_is_no_address(address: str):
    assert not listeners.is_address(address)


@pytest.mark.parametrize(
    "sockname, name",
    [
        (("127.0.0.1", 80), "127.0.0.1:80"),
        (("::1", 80, 0, 0), "[::1]:80"),
        ("/run/echo", "unix:/run/echo"),
        ("", "unix:"),
        (b"\0abstract", "unix:@abstract"),
        (b"\0\xff", "unix:@\ufffd"),
    ],
)
def test_name_of_an_address(sockname: object, name: str):
    assert listeners.name(sockname) == name


@pytest.mark.parametrize(
    "environ, passed",
    [
        ({}, []),
        ({"LISTEN_FDS": "1"}, []),
        ({"LISTEN_PID": "7"}, []),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "1"}, ["fd:3"]),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "3"}, ["fd:3", "fd:4", "fd:5"]),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "0"}, []),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "-1"}, []),
        ({"LISTEN_PID": "7", "LISTEN_FDS": "many"}, []),
        ({"LISTEN_PID": "8", "LISTEN_FDS": "1"}, []),
        ({"LISTEN_PID": "", "LISTEN_FDS": "1"}, []),
    ],
)
def test_sockets_passed_by_the_service_manager(environ: dict[str, str], passed: list[str]):
    assert listeners.passed_by_manager(environ, 7) == passed


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    "address, scheme, url",
    [
        ("127.0.0.1:0", "ws", "ws://127.0.0.1:{port}"),
        ("127.0.0.1:0", "wss", "wss://127.0.0.1:{port}"),
        pytest.param(
            "[::1]:0",
            "ws",
            "ws://[::1]:{port}",
            marks=pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6"),
        ),
    ],
)
async def test_url_has_the_port_that_was_bound(address: str, scheme: str, url: str):
    async with listeners.opened([address]) as (listening,):
        port = listening.share().getsockname()[1]
        assert port != 0
        assert listening.url(scheme) == url.format(port=port)
        assert not listening.passed
        stream = await trio.open_tcp_stream(address.rpartition(":")[0].strip("[]"), port)
        await stream.aclose()


async def cannot_be_opened(address: str) -> str:
    """The one line of the error; it names the address."""
    with pytest.raises(BindError) as caught:
        async with listeners.opened(["127.0.0.1:0", address]):
            pytest.fail("it is listened on")
    words = str(caught.value)
    assert words.startswith(f"can't listen on {address}: ")
    assert "\n" not in words
    return words


@pytest.mark.parametrize(
    "address, why",
    [
        ("no address", "not an address"),
        ("192.0.2.1:0", "assign requested address"),
        (f"{'a' * 64}.example:80", "label"),
        (f"unix:/{'a' * 200}", "too long"),
        ("unix:/no/such/directory", "No such file"),
        ("fd:999999", "Bad file descriptor"),
    ],
)
async def test_address_that_can_not_be_listened_on_is_named(address: str, why: str):
    assert why in await cannot_be_opened(address)


async def test_address_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert "in use" in await cannot_be_opened("127.0.0.1:{1}".format(*other.getsockname()))


# Unix sockets


def unix_socket(path: Path, kind: int = socket.SOCK_STREAM) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(str(path))
    return sock


async def test_unix_socket_is_made_and_its_file_removed(tmp_path: Path):
    path = tmp_path / "echo"
    async with listeners.opened([f"unix:{path}"]) as (listening,):
        assert listening.url("ws") == f"ws+unix:{path}"
        assert stat.S_ISSOCK(path.stat().st_mode)
        await (await trio.open_unix_socket(path)).aclose()
    assert not path.exists()


async def test_unix_socket_of_a_dead_service_is_replaced(tmp_path: Path):
    path = tmp_path / "echo"
    unix_socket(path).close()
    async with listeners.opened([f"unix:{path}"]):
        await (await trio.open_unix_socket(path)).aclose()


def live(path: Path, stack: ExitStack) -> None:
    stack.enter_context(unix_socket(path)).listen()


def full(path: Path, stack: ExitStack) -> None:
    """A service whose backlog has no room."""
    stack.enter_context(unix_socket(path)).listen(0)
    while True:
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        client.setblocking(False)
        try:
            client.connect(str(path))
        except BlockingIOError:
            return


def datagrams(path: Path, stack: ExitStack) -> None:
    stack.enter_context(unix_socket(path, socket.SOCK_DGRAM))


def plain_file(path: Path, _: ExitStack) -> None:
    path.write_text("precious")


@pytest.mark.parametrize("occupy", [live, full, datagrams, plain_file])
async def test_file_that_is_in_use_is_left_alone(
    tmp_path: Path, occupy: Callable[[Path, ExitStack], None]
):
    path = tmp_path / "echo"
    with ExitStack() as stack:
        occupy(path, stack)
        before = path.stat()
        assert "in use" in await cannot_be_opened(f"unix:{path}")
        assert os.path.samestat(path.stat(), before)


async def test_file_that_another_service_has_put_there_is_left_to_it(tmp_path: Path):
    path = tmp_path / "echo"
    async with listeners.opened([f"unix:{path}"]):
        path.unlink()
        other = unix_socket(path)
    with other:
        assert path.exists()


async def test_file_that_is_gone_is_no_error_in_the_end(tmp_path: Path):
    path = tmp_path / "echo"
    async with listeners.opened([f"unix:{path}"]):
        path.unlink()


# Passed sockets


async def test_passed_socket_is_used_and_stays_open():
    with socket.create_server(("127.0.0.1", 0)) as passed:
        async with listeners.opened([f"fd:{passed.fileno()}"]) as (listening,):
            assert listening.passed
            assert listening.url("ws") == "ws://127.0.0.1:{1}".format(*passed.getsockname())
            stream = await trio.open_tcp_stream(*passed.getsockname())
            await stream.aclose()
            await trio.lowlevel.wait_readable(listening.share())
            listening.share().accept()[0].close()
        await (await trio.open_tcp_stream(*passed.getsockname())).aclose()


def not_listening() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def of_datagrams() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def of_packets() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.bind(b"")  # Linux chooses an abstract name
    sock.listen()
    return sock


@pytest.mark.parametrize("make", [not_listening, of_datagrams, of_packets])
async def test_passed_socket_that_can_not_be_accepted_on_is_refused(
    make: Callable[[], socket.socket],
):
    with make() as sock:
        await cannot_be_opened(f"fd:{sock.fileno()}")
        sock.getsockname()


def open_files() -> list[str]:
    """The open descriptors; the one that lists them is gone by the time it is read."""
    return sorted(os.listdir("/dev/fd"))


@pytest.fixture
def no_socket():
    with open(os.devnull) as file:
        yield file.fileno()


async def test_passed_file_that_is_no_socket_is_refused_and_nothing_is_left_open(no_socket: int):
    before = open_files()
    await cannot_be_opened(f"fd:{no_socket}")
    assert open_files() == before
