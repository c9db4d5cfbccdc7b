"""The log: events with fields, on the standard library's logger ``echo_service``.

In a program that embeds the service the events go where that program's logging goes;
the command sends them to stderr, with `configure`.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
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


def configure(log_format: str, level: str, worker: int | None = None) -> None:
    """Send the whole program's log to stderr, a line an event, as ``text`` or ``json``.

    A ``worker``, one process of several, says which it is in each line, and leaves out what
    their parent says for all.  A line that can't be written is lost, and nothing else is:
    the service goes on.
    """
    logging.raiseExceptions = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(log_format, {} if worker is None else {"worker": worker}))
    if worker is not None:
        handler.addFilter(_is_not_for_all)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger(readiness.name).setLevel(logging.INFO)


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
