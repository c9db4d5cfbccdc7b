"""What the service manager is told: sd_notify(3) and sd_watchdog_enabled(3), in Python.

Where there is no manager nothing is sent.  A message never blocks and never raises: a manager
that is busy or gone does not end the service.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

STATUS_INTERVAL: Final = 5.0
"""Seconds between two looks at whether the status has changed."""


class Notifier:
    """The way to the service manager that ``environ`` names, for the process ``pid``.

    What the manager's socket has no room for goes with what is sent next.
    """

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._unsent: dict[str, str] = {}
        self._status = ""
        self.watchdog_interval = _watchdog_interval(environ, pid)
        """Half of the seconds that may pass from one `watchdog` to the next; None: any may."""

    @property
    def listens(self) -> bool:
        """Whether there is a manager."""
        return self._address.startswith(("/", "\0"))

    def ready(self, status: str) -> None:
        """The start is done, or the reload."""
        self._unsent.pop("RELOADING", None)
        self._send({"READY": "1"}, status)

    def status(self, text: str) -> None:
        """What is going on, in a line; sent where it is not what was said last."""
        if self._status != text:
            self._send({}, text)

    def stopping(self, status: str) -> None:
        """The drain has begun."""
        self._send({"STOPPING": "1"}, status)

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        self._send({"RELOADING": "1", "MONOTONIC_USEC": str(time.monotonic_ns() // 1000)})

    def watchdog(self) -> None:
        """A sign of life, where one is asked for."""
        if self.watchdog_interval is not None:
            self._send({"WATCHDOG": "1"})

    def _send(self, assignments: dict[str, str], status: str | None = None) -> None:
        if not self.listens:
            return
        self._unsent |= assignments
        if status is not None:
            self._status = status
            self._unsent["STATUS"] = " ".join(status.splitlines())  # a line is an assignment
        message = "\n".join(f"{name}={value}" for name, value in self._unsent.items())
        # A socket a message, as sd_notify(3) has it: one that is kept might lose its other end.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(message.encode(errors="replace"), self._address)
            self._unsent.clear()


def _watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    allowed = environ.get("WATCHDOG_USEC", "")
    meant = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
    if not meant or not allowed.isdecimal() or int(allowed) == 0:
        return None
    return int(allowed) / 2_000_000


async def attend(
    notifier: Notifier, describe: Callable[[], str], lives: Callable[[], bool] = lambda: True
) -> None:
    """Feed the watchdog as long as the service ``lives``, and keep the status true.

    This has to run in the event loop that serves: one that is stuck must not be fed for.
    Returns at once where there is no manager, else never.
    """
    interval = min(notifier.watchdog_interval or STATUS_INTERVAL, STATUS_INTERVAL)
    while notifier.listens:
        if lives():
            notifier.watchdog()
        notifier.status(describe())
        await trio.sleep(interval)
