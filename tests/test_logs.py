"""What the log looks like on stderr, and that nothing depends on it."""

from __future__ import annotations

import io
import json
import logging
import re
import sys

import pytest

from echo_service import logs
from echo_service.logs import logger

pytestmark = pytest.mark.usefixtures("logging_kept")

RFC_3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z"


def fail() -> None:
    try:
        int("ours")
    except ValueError:
        logger.exception("connection.failed", connection_id=7)


def test_json_is_an_object_a_line_with_timestamp_level_and_event(capsys):
    logs.configure("json", "info")
    logger.info("connection.opened", connection_id=7, target="/\u00e9\n", extensions=None)
    logger.error("server.accept_failed", error="why")
    fail()
    out, err = capsys.readouterr()
    assert out == ""
    opened, failed, raised = [json.loads(line) for line in err.splitlines()]
    assert re.fullmatch(RFC_3339, opened.pop("timestamp"))
    assert opened == {
        "level": "info",
        "event": "connection.opened",
        "connection_id": 7,
        "target": "/\u00e9\n",
        "extensions": None,
    }
    assert (failed["level"], failed["event"], failed["error"]) == (
        "error",
        "server.accept_failed",
        "why",
    )
    assert "ValueError: invalid literal" in raised["exception"]


def test_text_is_for_reading(capsys):
    logs.configure("text", "info")
    logger.info("connection.opened", connection_id=7, target="/\n")
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert re.match(RFC_3339 + r" \[info *\] connection\.opened ", line)
    assert "connection_id=7" in line
    assert "\x1b" not in line
    fail()
    assert "ValueError: invalid literal" in capsys.readouterr().err


@pytest.mark.parametrize(
    "level, logged",
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_level_is_the_least_that_is_logged(capsys, level: str, logged: list[str]):
    logs.configure("json", level)
    for each in ("debug", "info", "warning", "error"):
        getattr(logger, each)("event")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["level"] for line in lines] == logged


def test_the_line_that_tells_readiness_is_written_whatever_the_level(capsys):
    logs.configure("json", "error")
    logs.readiness.info("server.listening")
    assert json.loads(capsys.readouterr().err)["event"] == "server.listening"


def test_other_loggers_of_the_program_are_on_the_same_stderr(capsys):
    logs.configure("json", "info")
    logging.getLogger("asyncio").warning("slow: %s", "callback")
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["event"]) == ("warning", "slow: callback")


class Full(io.StringIO):
    """A disk without room."""

    def write(self, _: str) -> int:
        raise OSError("No space left on device")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stderr", [Full(), closed(), None], ids=["full", "closed", "none"])
def test_line_that_can_not_be_written_is_lost_and_nothing_else(monkeypatch, stderr: object):
    monkeypatch.setattr(sys, "stderr", stderr)
    logs.configure("json", "info")
    logger.info("connection.opened")
    fail()


def test_embedding_program_gets_events_with_fields_by_its_own_logging(logged):
    logger.info("connection.opened", connection_id=7)
    logger.debug("request.answered")
    assert logged() == [("INFO", "connection.opened", {"connection_id": 7})]
