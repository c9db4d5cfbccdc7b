"""The log: events with fields, on the standard library's logger ``echo_service``.

In a program that embeds the service the events go where that program's logging goes;
the command sends them to stderr, with `configure`.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor

_READINESS: Final = "echo_service.readiness"


def _logger(name: str) -> structlog.stdlib.BoundLogger:
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
    )
    return logger


logger: Final = _logger("echo_service")
"""What the service logs with: ``logger.info("event", field=value)``."""

readiness: Final = _logger(_READINESS)
"""For ``server.listening``, which the command writes whatever its level is."""

_SHARED: Final[list[Processor]] = [
    structlog.stdlib.ExtraAdder(),
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]
_RENDERERS: Final[dict[str, list[Processor]]] = {
    "json": [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
    "text": [
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        )
    ],
}


def configure(log_format: str, level: str) -> None:
    """Send the whole program's log to stderr, a line an event, as ``text`` or ``json``.

    A line that can't be written is lost, and nothing else is: the service goes on.
    """
    logging.raiseExceptions = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_RENDERERS[log_format],
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger(_READINESS).setLevel(logging.INFO)
