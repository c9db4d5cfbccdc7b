"""The log: events with fields, on the standard library's logger ``echo_service``.

In a program that embeds the service the events go where that program's logging goes;
the command sends them to stderr, with `configure`.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
from contextlib import suppress
from itertools import accumulate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structlog.typing import Processor

_LIFECYCLE: Final = "echo_service.lifecycle"


class EventLogger:
    """A logger of the standard library's, by events and fields.

    ``info("connection.opened", connection_id=7)`` is a record whose message is the event
    and whose attributes are the fields.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: object) -> None:
        """What is of interest to whoever looks for a fault."""
        if self._logger.isEnabledFor(logging.DEBUG):
            self._logger.debug(event, extra=fields)

    def info(self, event: str, **fields: object) -> None:
        """What happens in good order."""
        if self._logger.isEnabledFor(logging.INFO):
            self._logger.info(event, extra=fields)

    def warning(self, event: str, **fields: object) -> None:
        """What is not as it was asked to be."""
        self._logger.warning(event, extra=fields)

    def error(self, event: str, **fields: object) -> None:
        """What went wrong."""
        self._logger.error(event, extra=fields)

    def exception(self, event: str, **fields: object) -> None:
        """What went wrong, with the exception that is being handled."""
        self._logger.exception(event, extra=fields)  # noqa: LOG004 - the caller is in one


logger: Final = EventLogger("echo_service")
"""What the service logs with."""

lifecycle: Final = EventLogger(_LIFECYCLE)
"""For what a service of several processes says once."""

readiness: Final = EventLogger(f"{_LIFECYCLE}.readiness")
"""For ``server.listening``, which the command writes whatever its level is."""


ROOM: Final = 4194304
"""Bytes of lines that may wait to be written, some 16,000 of them; what comes then is lost."""

PIECE: Final = 4096
"""Bytes that are written at once, if no line is longer: as many as don't mix with what other
workers write to the same pipe (PIPE_BUF, pipe(7))."""

BREATH: Final = 0.02
"""Seconds between two turns of the writer: under load, a line is not worth a thread switch."""

LAST: Final = 1.0
"""Seconds that the end of the program waits for whoever reads the log."""


class Writer(logging.Handler):
    """Writes lines to a file from a thread of its own, so that no reader holds up the loop.

    What finds no room, or can't be written, is lost and counted; a line tells how many were,
    once one can be written.  The file is used unbuffered: Python's own buffer has a lock, for
    which the end of the program would wait.
    """

    def __init__(self, fd: int) -> None:
        """Begin to write to ``fd``, which stays open."""
        super().__init__()
        self._file = open(fd, "wb", buffering=0, closefd=False)  # noqa: SIM115 - for the thread
        self._changing = threading.Lock()
        self._waiting: list[bytes] = []
        self._size = 0
        self._lost = 0
        self._torn = False
        self._more = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Leave a line to the thread, if there is room."""
        try:
            line = self._line(record)
        except Exception:  # noqa: BLE001 - as in the handlers of the standard library
            self.handleError(record)
            return
        with self._changing:
            if self._lost or self._size + len(line) > ROOM:
                self._lost += 1
            else:
                self._waiting.append(line)
                self._size += len(line)
        if not self._more.is_set():
            self._more.set()

    def close(self) -> None:
        """Write what waits, for a second at most; `logging` does this at the program's end.

        Where nobody reads, stderr leads nowhere from then on: the last words of a program
        that fails would wait for a reader, too.
        """
        super().close()
        if self._closing.is_set():
            return
        self._closing.set()
        self._more.set()
        self._thread.join(LAST)
        if self._thread.is_alive():
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._file.fileno())

    def _line(self, record: logging.LogRecord) -> bytes:
        return self.format(record).encode(errors="backslashreplace") + b"\n"

    def _run(self) -> None:
        while self._more.is_set() or not self._closing.is_set():
            self._more.wait()
            self._more.clear()
            self._turn()
            self._closing.wait(BREATH)

    def _turn(self) -> None:
        """Write all that waits, and after it how many lines were lost."""
        with self._changing:
            lines, self._waiting, self._size = self._waiting, [], 0
            lost, self._lost = self._lost, 0
        lost += sum(self._write(piece) for piece in _pieces(lines))
        if lost and self._write([self._notice(lost)]):
            with self._changing:
                self._lost += lost

    def _notice(self, lost: int) -> bytes:
        level = {"levelno": logging.WARNING, "levelname": "WARNING"}
        return self._line(logging.makeLogRecord({"msg": "log.lost", "lines": lost, **level}))

    def _write(self, lines: list[bytes]) -> int:
        """Write them at once; returns how many were lost, and so one that is there in part."""
        data = memoryview(b"\n" * self._torn + b"".join(lines))
        done = 0
        with suppress(OSError):
            while done < len(data):
                written = self._file.write(data[done:])
                if written is None:  # who shares the file has made it non-blocking
                    select.select([], [self._file], [])
                else:
                    done += written
        if done:
            self._torn = data[done - 1] != 0x0A
        behind = accumulate(map(len, reversed(lines[1:])), initial=0)
        return sum(size < len(data) - done for size in behind)


def _pieces(lines: list[bytes]) -> Iterator[list[bytes]]:
    """The lines in order, as many at once as are written at once."""
    piece: list[bytes] = []
    room = PIECE
    for line in lines:
        if len(line) > room and piece:
            yield piece
            piece, room = [], PIECE
        piece.append(line)
        room -= len(line)
    if piece:
        yield piece


def configure(log_format: str, level: str, worker: int | None = None) -> logging.Handler:
    """Send the whole program's log to stderr, a line an event, as ``text`` or ``json``.

    A ``worker``, one process of several, says which it is in each line, and leaves out what
    their parent says for all.  A line that can't be written is lost, and nothing else is:
    the service goes on.  To close the handler that is returned writes what waits; the end of
    the program does so too.
    """
    logging.raiseExceptions = False
    # None where stderr was closed at the start: another file may be number 2 by now.
    stderr = sys.__stderr__
    handler = logging.NullHandler() if stderr is None else Writer(stderr.fileno())
    handler.setFormatter(_formatter(log_format, {} if worker is None else {"worker": worker}))
    if worker is not None:
        handler.addFilter(_is_not_for_all)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger(readiness.name).setLevel(logging.INFO)
    return handler


def _is_not_for_all(record: logging.LogRecord) -> bool:
    return not record.name.startswith(_LIFECYCLE)


def _formatter(log_format: str, always: dict[str, object]) -> logging.Formatter:
    # It imports rich where that is installed, which takes longer than a health check has to.
    import structlog  # noqa: PLC0415

    shared: list[Processor] = [
        structlog.stdlib.ExtraAdder(),
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        lambda _, __, fields: {**always, **fields},
    ]
    renderers: dict[str, list[Processor]] = {
        "json": [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
        "text": [
            structlog.dev.ConsoleRenderer(
                colors=False, exception_formatter=structlog.dev.plain_traceback
            )
        ],
    }
    meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processors=[meta, *renderers[log_format]]
    )
