"""The parent of several processes that serve together; it serves nobody itself.

It opens the addresses, starts the workers and hands each its sockets, starts one anew where
one ends, adds up what they count, and passes on what signals ask.  It keeps the sockets open
itself: while a worker is started again, its clients wait in the kernel.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

import trio

from echo_service import admin, listeners, policy, signals, tls
from echo_service.channel import Channel
from echo_service.counts import Counts, code_label
from echo_service.logs import lifecycle, logger, readiness
from echo_service.policy import Ending
from echo_service.systemd import Notifier
from echo_service.worker import EVERY, instructions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from echo_service.config import Config
    from echo_service.listeners import Listening

SILENCE: Final = 10.0
"""Seconds without a report from a worker, which has one each second; after twice as long it is
killed.  Once may be no fault of its own: the whole machine may have stood still."""

LATELY: Final = 5 * EVERY
"""Seconds without a report after which a worker is not taken for one that serves."""

SHORTEST, LONGEST = 0.1, 10.0
"""Seconds until a worker that has ended is started again: at first, and doubled each time up to
the other, which is also how long one must live for the first to be due again."""

GRACE: Final = 5.0
"""Seconds that a worker has to end, beyond what it has to drain."""

_IN_ORDER: Final = (0, -signal.SIGTERM, -signal.SIGINT)
"""How a process ends that was told to; by the signal, where that was for all and came before the
process had learnt to obey it."""

_CUT_OFF: Final = (Ending.CANCELLED.value, code_label(policy.ABNORMAL), code_label(None))
"""What is counted of a connection whose worker has ended."""

_PROGRAM: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]);"
    "from echo_service.worker import main; main()"
)

_ENVIRON: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID")
"""What the service manager has told the parent, and not the workers."""


class Worker:
    """One place, and the process that has it now."""

    def __init__(self, number: int, options: Config, listening: Sequence[Listening]) -> None:
        self.pid: int | None = None
        self.counts = Counts()
        """What the processes that had this place have counted."""
        self.ready = False
        self.heard = -math.inf
        """When it last reported, by Trio's clock."""
        self.begun = trio.Event()
        """Set once a first process serves."""
        self.failed = False
        """Whether it did not end in good order when it was to."""
        self._past = Counts()
        self._number = number
        self._options = options
        self._listening = listening
        self._channel: Channel | None = None
        self._reloaded = trio.Event()
        self._kept: str | None = None

    @property
    def lives(self) -> bool:
        """Whether it has reported lately."""
        return self.heard > trio.current_time() - LATELY

    @property
    def answers(self) -> bool:
        """Whether it accepts connections."""
        return self.ready and self.lives

    async def keep(self, leaving: trio.Event) -> None:
        """Run one process after the other, until one has ended after ``leaving``."""
        pause = SHORTEST
        while not leaving.is_set():
            begun = trio.current_time()
            status = await self._run(leaving)
            as_asked = leaving.is_set()
            in_order = as_asked and status in _IN_ORDER
            log = logger.info if in_order else logger.error
            log("worker.exited", worker=self._number, status=_in_words(status))
            self.failed = as_asked and not in_order
            if trio.current_time() - begun > LONGEST:
                pause = SHORTEST
            with trio.move_on_after(pause):
                await leaving.wait()
            pause = min(2 * pause, LONGEST)
        self.begun.set()
        self._stop_listening()

    def _stop_listening(self) -> None:
        """Leave its sockets to the process: those that it closes listen no more."""
        for each in self._listening:
            if len(each.sockets) > 1:
                each.share(self._number).close()

    async def leave(self) -> None:
        """Have the process drain."""
        if self._channel is not None:
            await self._channel.tell(drain=True)
            self._stop_listening()

    async def reload(self) -> str | None:
        """Have the process read its certificate again; returns why it keeps the old one."""
        if self._channel is None:
            return None
        self._reloaded, self._kept = trio.Event(), None
        await self._channel.tell(reload=True)
        with trio.move_on_after(GRACE):
            await self._reloaded.wait()
        return self._kept

    async def _run(self, leaving: trio.Event) -> int:
        """Run one process to its end; returns its exit status."""
        process: trio.Process | None = None
        channel: Channel | None = None
        try:
            ours, theirs = socket.socketpair()
            channel = Channel(ours)
            told = instructions(self._number, self._options, self._listening)
            with theirs:
                sockets = [each[0] for each in told["listening"]]
                process = await _start(self._number, theirs, sockets)
            self.pid = process.pid
            logger.info("worker.started", worker=self._number, pid=self.pid)
            with trio.move_on_after(GRACE):  # it may be more than the sockets hold
                await channel.tell(**told)
            self._channel = channel
            if leaving.is_set():
                await self.leave()
            await self._listen(channel, process)
            with trio.move_on_after(GRACE):
                return await process.wait()
            process.kill()
            return await process.wait()
        except OSError as error:
            logger.error("worker.failed", worker=self._number, error=str(error))
            return 1
        finally:
            self._forget()
            if channel is not None:
                channel.close()
            if process is not None and process.returncode is None:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()

    def _forget(self) -> None:
        """Keep what the process has counted; whoever was still connected has been cut off."""
        self._channel = self.pid = None
        self.ready = False
        self._reloaded.set()
        if self.counts.connections:
            self.counts.closes[_CUT_OFF] += self.counts.connections
        self.counts.connections = 0
        self._past = self.counts

    async def _listen(self, channel: Channel, process: trio.Process) -> None:
        """Hear the reports, until there are no more; a worker without any is killed."""
        silent = False
        while True:
            with trio.move_on_after(SILENCE) as waiting:
                told = await channel.hear()
                if told is None:
                    return
                silent = False
                self._take(told)
            if waiting.cancelled_caught and silent:
                logger.error("worker.hung", worker=self._number, pid=process.pid)
                process.kill()
            elif waiting.cancelled_caught:
                silent = True

    def _take(self, told: dict[str, Any]) -> None:
        self.heard = trio.current_time()
        if "counts" in told:
            self.counts = Counts.from_json(told["counts"]).add(self._past)
            self.ready = told["ready"]
            self.begun.set()
        if "reloaded" in told:
            self._kept = told["reloaded"]
            self._reloaded.set()


async def _start(number: int, stdin: socket.socket, sockets: list[int]) -> trio.Process:
    """Start a process with this one's modules, in a group of its own: Ctrl-C is for the parent."""
    words = ["echo-service-worker", json.dumps(sys.path), str(number)]
    return await trio.lowlevel.open_process(
        [sys.executable, "-P", "-c", _PROGRAM, *words],
        stdin=stdin,
        pass_fds=sockets,
        process_group=0,
        env={name: value for name, value in os.environ.items() if name not in _ENVIRON},
    )


def _in_words(status: int) -> int | str:
    """How a process ended: 0, ``SIGKILL``, or ``signal 40``."""
    if status >= 0:
        return status
    known = {each.value for each in signal.Signals}
    return signal.Signals(-status).name if -status in known else f"signal {-status}"


class Workers:
    """All of them, as their parent, signals and the operator see them."""

    def __init__(self, many: int, options: Config, listening: Sequence[Listening]) -> None:
        self._options = options
        self._listening = listening
        self._workers = [Worker(number, options, listening) for number in range(many)]
        self._leaving = trio.Event()
        self._ended = trio.Event()
        self._begun = trio.Event()
        self._late = False

    async def run(self, admin_listening: Sequence[Listening]) -> None:
        """Keep the workers until they have drained."""
        async with trio.open_nursery() as beside:
            async with trio.open_nursery() as keeping:
                for each in self._workers:
                    keeping.start_soon(each.keep, self._leaving)
                for each in self._workers:
                    await each.begun.wait()
                if not self._leaving.is_set():
                    self._announce()
                    beside.start_soon(admin.answer, self._options, admin_listening, self)
                    self._begun.set()
            self._ended.set()
            beside.cancel_scope.cancel()

    def _announce(self) -> None:
        for each, url in zip(self._listening, self.urls, strict=True):
            readiness.info("server.listening", address=each.address, url=url)

    @property
    def ready(self) -> bool:
        """Whether connections are accepted: each worker has its share of them."""
        return not self._leaving.is_set() and all(each.answers for each in self._workers)

    @property
    def failed(self) -> bool:
        """Whether one has not drained in good order."""
        return self._late or any(each.failed for each in self._workers)

    @property
    def lives(self) -> bool:
        """Whether one of them has reported lately."""
        return any(each.lives for each in self._workers)

    @property
    def urls(self) -> list[str]:
        """The addresses as bound."""
        return [each.url(self._options.scheme) for each in self._listening]

    @property
    def connections(self) -> int:
        """How many WebSocket connections are open in all of them."""
        return sum(each.counts.connections for each in self._workers)

    async def serves(self) -> None:
        """Wait until all of them serve."""
        await self._begun.wait()

    def counts(self) -> Counts:
        """What all have counted, those too that have ended."""
        total = Counts()
        for each in self._workers:
            total.add(each.counts)
        return total

    def cpu_of_the_dead(self) -> float:
        """Seconds of CPU time that workers have taken which have ended."""
        dead = resource.getrusage(resource.RUSAGE_CHILDREN)
        return dead.ru_utime + dead.ru_stime

    def pids(self) -> list[int]:
        """The parent, and the workers that run."""
        return [os.getpid(), *(each.pid for each in self._workers if each.pid)]

    async def drain(self) -> None:
        """Have all drain; returns when they have ended.  Who takes too long is killed."""
        lifecycle.info("server.draining", connections=self.connections)
        self._leaving.set()
        with trio.move_on_after(self._options.drain_timeout + GRACE) as waiting:
            async with trio.open_nursery() as telling:
                for each in self._workers:
                    telling.start_soon(each.leave)
                await self._ended.wait()
                telling.cancel_scope.cancel()
        self._late = waiting.cancelled_caught
        lifecycle.info("server.stopped")

    async def reload(self) -> str | None:
        """Have all read their certificates again; returns why one keeps the old one."""
        kept: list[str] = []

        async def reload(worker: Worker) -> None:
            if why := await worker.reload():
                kept.append(why)

        async with trio.open_nursery() as nursery:
            for each in self._workers:
                nursery.start_soon(reload, each)
        return kept[0] if kept else None


async def run(many: int, options: Config) -> int:
    """Serve with so many processes until a signal says otherwise; returns the exit code.

    It is 0 if all have drained in good order.
    """
    if options.tls_cert is not None and options.tls_key is not None:
        tls.Certificate(options.tls_cert, options.tls_key)  # what is wrong with it is said once
    with signals.received() as received:
        async with (
            listeners.opened(options.bind, many) as listening,
            listeners.opened(options.admin_addresses) as admin_listening,
            trio.open_nursery() as nursery,
        ):
            workers = Workers(many, options, listening)
            nursery.start_soon(workers.run, admin_listening)
            code = await signals.obey(received, workers, Notifier(os.environ, os.getpid()))
            nursery.cancel_scope.cancel()
    return code or int(workers.failed)
