"""Addresses, and the listening sockets made of them: TCP, IPv6, unix, and passed ones."""

from __future__ import annotations

import os
import re
import socket
import stat
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

BACKLOG: Final = 4096
"""Connections that the kernel holds for us; it takes less where its own limit is lower."""

_FIRST_PASSED: Final = 3
"""The first file descriptor of those that a service manager passes (sd_listen_fds(3))."""

_ADDRESS: Final = re.compile(
    r"unix:(?P<path>[^\0]+)"
    r"|fd:(?P<fd>[0-9]{1,9})"
    r"|(?P<host>[^\s:\[\]/]+|\[[0-9A-Fa-f:.]+(%[^\s\]]+)?\]):(?P<port>[0-9]{1,5})"
)


class BindError(OSError):
    """An address that can't be listened on; the text names it."""


@dataclass(frozen=True, slots=True)
class Listening:
    """Listening sockets, which are non-blocking, and the address as bound.

    There is one; or one for each of several processes, among which the kernel spreads the
    connections (SO_REUSEPORT), where the address is TCP's.  ``passed`` sockets belong to
    somebody who may go on using them.
    """

    sockets: tuple[socket.socket, ...]
    address: str
    passed: bool = False

    def share(self, process: int = 0) -> socket.socket:
        """The socket of one of the processes, which are numbered from 0."""
        return self.sockets[process % len(self.sockets)]

    def url(self, scheme: str) -> str:
        """The address as a URL; of a unix socket ``ws+unix:PATH``."""
        if self.address.startswith("unix:"):
            return f"{scheme}+{self.address}"
        return f"{scheme}://{self.address}"


def is_address(text: str) -> bool:
    """Whether ``text`` is one that `--bind` takes."""
    match = _ADDRESS.fullmatch(text)
    return match is not None and int(match["port"] or 0) <= 65535


def passed_by_manager(environ: Mapping[str, str], pid: int) -> list[str]:
    """The addresses, ``fd:3`` and on, of the sockets that the service manager passed to ``pid``."""
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") != str(pid) or not count.isdecimal():
        return []
    return [f"fd:{_FIRST_PASSED + index}" for index in range(int(count))]


@asynccontextmanager
async def opened(addresses: Sequence[str], processes: int = 1) -> AsyncIterator[list[Listening]]:
    """Listen on all of the addresses, or raise `BindError`; closes them in the end.

    A unix socket's file is removed in the end.  Of a passed socket only a duplicate is
    used and closed: connections that wait in it are left to whoever holds it, who finds
    it non-blocking from now on.
    """
    async with AsyncExitStack() as stack:
        listening = []
        for address in addresses:
            try:
                opened = await _open(address, processes, stack)
            except (OSError, ValueError, OverflowError) as error:
                words = error.strerror if isinstance(error, OSError) and error.strerror else error
                raise BindError(f"can't listen on {address}: {words}") from error
            for sockets in opened:
                for sock in sockets:
                    stack.enter_context(sock)
                    sock.setblocking(False)
                passed = address.startswith("fd:")
                listening.append(Listening(tuple(sockets), name(sockets[0].getsockname()), passed))
        yield listening


async def _open(address: str, processes: int, stack: AsyncExitStack) -> list[list[socket.socket]]:
    """The sockets of each address that this one stands for."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise ValueError("not an address")
    if match["path"]:
        return [[_open_unix(match["path"], stack)]]
    if match["fd"]:
        return [[_open_passed(int(match["fd"]))]]
    host = match["host"].strip("[]")
    listeners = await trio.open_tcp_listeners(int(match["port"]), host=host, backlog=BACKLOG)
    sockets = [socket.socket(fileno=listener.socket.detach()) for listener in listeners]
    return [_open_shared(sock, processes) if processes > 1 else [sock] for sock in sockets]


def _open_shared(first: socket.socket, processes: int) -> list[socket.socket]:
    """Beside a socket that listens, open others at its address, for the other processes.

    That it could be bound alone has shown that nobody else is there; only then is the address
    shared, which the kernel allows to processes of this user.
    """
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    with ExitStack() as stack:
        stack.enter_context(first)
        sockets = [first]
        for _ in range(1, processes):
            sock = stack.enter_context(socket.socket(first.family, socket.SOCK_STREAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if first.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(first.getsockname())
            sock.listen(BACKLOG)
            sockets.append(sock)
        stack.pop_all()
    return sockets


def _open_unix(path: str, stack: AsyncExitStack) -> socket.socket:
    """Bind a unix socket; a file that a dead service left is removed, a live one's is not."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode) and not _answers(path):
                os.unlink(path)
        sock.bind(path)
        stack.callback(_unlink, path, os.stat(path))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return True


def _unlink(path: str, made: os.stat_result) -> None:
    """Remove the socket's file, unless somebody has put another in its place."""
    with suppress(OSError):
        if os.path.samestat(os.stat(path), made):
            os.unlink(path)


def _open_passed(fd: int) -> socket.socket:
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        raise ValueError("it is not a socket")
    sock = socket.socket(fileno=os.dup(fd))
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.type != socket.SOCK_STREAM or not listens:
        sock.close()
        raise ValueError("it is not a listening stream socket")
    return sock


def name(sockname: object) -> str:
    """A socket's address or a peer's, as `--bind` would have it; ``unix:`` of an unnamed one."""
    if isinstance(sockname, tuple):
        host, port = sockname[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if isinstance(sockname, bytes):
        sockname = "@" + sockname.removeprefix(b"\0").decode(errors="replace")
    return f"unix:{sockname}"
