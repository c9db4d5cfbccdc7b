"""Signals to a process: what they ask of the service that runs in it."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import trio

from echo_service import systemd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator

    from echo_service.systemd import Notifier

Signals: TypeAlias = "AsyncIterator[int]"

_INIT: Final = 1

_REST: Final = 1.0
"""Seconds that ended children are left alone: one that was just started is not known yet."""


class Service(Protocol):
    """Whom signals are for."""

    @property
    def urls(self) -> list[str]:
        """The addresses as bound."""

    @property
    def connections(self) -> int:
        """How many WebSocket connections are open."""

    @property
    def lives(self) -> bool:
        """Whether somebody is served, as far as this process can't tell by itself."""

    def pids(self) -> Collection[int]:
        """The processes that the service consists of."""

    async def serves(self) -> None:
        """Wait until it is ready for the first time."""

    async def drain(self) -> None:
        """Stop gracefully; returns when that is done."""

    async def reload(self) -> str | None:
        """Read the certificates again; returns why the old ones are kept, if they are."""


@contextmanager
def received() -> Iterator[Signals]:
    """The signals that `obey` wants; to be entered before the service starts.

    Afterwards they are ignored: the exit code is known, and no signal changes it any more.
    """
    wanted = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    if os.getpid() == _INIT:
        wanted.append(signal.SIGCHLD)
    for number in wanted:
        signal.signal(number, signal.SIG_IGN)  # what Trio returns to in the end
    with trio.open_signal_receiver(*wanted) as signals:
        yield signals


async def obey(
    signals: Signals, service: Service, manager: Notifier, leave: trio.Event | None = None
) -> int:
    """Do what the signals ask, and tell the service manager; returns the exit code at the end.

    The first SIGTERM or SIGINT drains, as ``leave`` does: 0 when that is done.  A second
    one: 1, at once.  SIGHUP reloads.  The first process of a container inherits the orphans
    of the others; SIGCHLD buries them.
    """
    ruler = _Ruler(service, manager, trio.Event() if leave is None else leave)
    code = 0
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ruler.attend)
            nursery.start_soon(ruler.drain, scope)
            signalled = False
            async for number in signals:
                if number == signal.SIGHUP:
                    nursery.start_soon(ruler.reload)
                elif number == signal.SIGCHLD:
                    nursery.start_soon(_bury, service)
                elif signalled:
                    code = 1
                    scope.cancel()
                else:
                    signalled = True
                    ruler.leave.set()
    return code


class _Ruler:
    """What is asked of the service, and what the service manager is told of it."""

    def __init__(self, service: Service, manager: Notifier, leave: trio.Event) -> None:
        self.leave = leave
        self._service = service
        self._manager = manager
        self._note = ""

    async def attend(self) -> None:
        await self._service.serves()
        self._manager.ready(self._describe())
        await systemd.attend(self._manager, self._describe, lambda: self._service.lives)

    async def drain(self, scope: trio.CancelScope) -> None:
        await self.leave.wait()
        self._manager.stopping(self._describe())
        await self._service.drain()
        scope.cancel()

    async def reload(self) -> None:
        if self.leave.is_set():
            return
        self._manager.reloading()
        kept = await self._service.reload()
        self._note = "; the new certificate can't be used, the old one is kept" if kept else ""
        self._manager.ready(self._describe())

    def _describe(self) -> str:
        doing = "draining" if self.leave.is_set() else "serving"
        urls, many = " ".join(self._service.urls), self._service.connections
        return f"{doing} {urls}; connections: {many}{self._note}"


async def _bury(service: Service) -> None:
    await trio.sleep(_REST)
    bury(service.pids())


def bury(ours: Collection[int]) -> None:
    """Take leave of the children that have ended, but for those that somebody waits for."""
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            for child in map(int, (task / "children").read_text().split()):
                if child not in ours:
                    os.waitpid(child, os.WNOHANG)
