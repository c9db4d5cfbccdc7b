"""What the log looks like on stderr, and that nothing depends on it."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import sys
import threading

import pytest

from echo_service import logs
from echo_service.logs import logger

pytestmark = pytest.mark.usefixtures("logging_kept")


@pytest.fixture
def written(capfd):
    """Set up logging; returns what gives the lines that were written by then, and ends it."""
    made = []

    def configure(log_format: str, level: str):
        made.append(logs.configure(log_format, level))

        def lines() -> list[str]:
            made[-1].close()
            out, err = capfd.readouterr()
            assert out == ""
            return err.splitlines()

        return lines

    yield configure
    for each in made:
        each.close()


RFC_3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z"


def fail() -> None:
    try:
        int("ours")
    except ValueError:
        logger.exception("connection.failed", connection_id=7)


def test_json_is_an_object_a_line_with_timestamp_level_and_event(written):
    lines = written("json", "info")
    logger.info("connection.opened", connection_id=7, target="/\u00e9\n", extensions=None)
    logger.error("server.accept_failed", error="why")
    fail()
    opened, failed, raised = [json.loads(line) for line in lines()]
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


def test_text_is_for_reading(written):
    lines = written("text", "info")
    logger.info("connection.opened", connection_id=7, target="/\n")
    fail()
    line, *failed = lines()
    assert re.match(RFC_3339 + r" \[info *\] connection\.opened ", line)
    assert "connection_id=7" in line
    assert "\x1b" not in line
    assert "ValueError: invalid literal" in failed[-1]


@pytest.mark.parametrize(
    "level, logged",
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_level_is_the_least_that_is_logged(written, level: str, logged: list[str]):
    lines = written("json", level)
    for each in ("debug", "info", "warning", "error"):
        getattr(logger, each)("event")
    assert [json.loads(line)["level"] for line in lines()] == logged


def test_the_line_that_tells_readiness_is_written_whatever_the_level(written):
    lines = written("json", "error")
    logs.readiness.info("server.listening")
    assert [json.loads(line)["event"] for line in lines()] == ["server.listening"]


def test_other_loggers_of_the_program_are_on_the_same_stderr(written):
    lines = written("json", "info")
    logging.getLogger("asyncio").warning("slow: %s", "callback")
    (line,) = map(json.loads, lines())
    assert (line["level"], line["event"]) == ("warning", "slow: callback")


def test_without_a_stderr_there_is_no_log(monkeypatch):
    monkeypatch.setattr(sys, "__stderr__", None)
    logs.configure("json", "info").close()
    logger.info("connection.opened")
    fail()


# A reader that is slow, and one that is none


def record(event: str) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": event})


@pytest.fixture
def pipe():
    """A pipe for a log, and the writer to it; what still writes in the end loses its reader."""
    read, write = os.pipe()
    writer = logs.Writer(write)
    with open(read, "rb", buffering=0) as reader:
        yield reader, writer
    writer.close()
    writer._thread.join()
    os.close(write)


def fill(writer: logs.Writer) -> list[str]:
    """Log until no more is taken; returns all that was logged."""
    events = []
    while writer._lost < 3:
        events.append(f"{len(events):06}" + "." * 994)
        writer.emit(record(events[-1]))
    return events


def read_until(reader, words: bytes) -> list[bytes]:
    """What is read to the end of the line that holds these words."""
    got = b""
    while words not in got or not got.endswith(b"\n"):
        got += reader.read(65536)
    return got.splitlines()


def test_a_log_that_nobody_reads_holds_up_nobody_and_what_is_lost_is_counted(pipe):
    reader, writer = pipe
    events = fill(writer)
    *kept, notice = read_until(reader, b"log.lost")
    kept = [line.decode() for line in kept]
    assert kept == events[:-3]
    assert len(kept) * 1001 > logs.ROOM - 1001
    assert notice == b"log.lost"
    writer.emit(record("after"))
    assert read_until(reader, b"after") == [b"after"]


def test_the_line_that_tells_how_many_were_lost_has_a_number(written, monkeypatch):
    monkeypatch.setattr(logs, "ROOM", 0)
    lines = written("json", "info")
    for _ in range(7):
        logger.info("connection.opened")
    lost = [json.loads(line) for line in lines()]
    assert {(line["level"], line["event"]) for line in lost} == {("warning", "log.lost")}
    assert sum(line["lines"] for line in lost) == 7


def test_the_end_of_the_program_does_not_wait_for_a_reader(pipe, monkeypatch):
    monkeypatch.setattr(logs, "LAST", 0.01)
    reader, writer = pipe
    fill(writer)
    writer.close()
    os.write(writer._file.fileno(), b"." * 1000000)  # last words, to nobody
    assert b"000000" in reader.read(6)


def test_a_pipe_that_somebody_has_made_non_blocking_is_waited_for(pipe):
    reader, writer = pipe
    os.set_blocking(writer._file.fileno(), False)
    for number in range(500):
        writer.emit(record(f"{number:06}" + "." * 994))
    got = read_until(reader, b"000499")
    assert [line[:6] for line in got] == [b"%06d" % number for number in range(500)]


def test_lines_of_several_processes_do_not_mix_in_a_pipe():
    lines = [b"." * size for size in (4000, 96, 1, 5000, 4096, 2048, 2048, 10)]
    pieces = list(logs._pieces(lines))
    assert [line for piece in pieces for line in piece] == lines
    assert [sum(map(len, piece)) for piece in pieces] == [4096, 1, 5000, 4096, 4096, 10]


@pytest.fixture
def file_limit():
    """Set the size that files of this process may have; what is beyond it can't be written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_lines_that_find_no_room_on_the_disk_are_counted_and_the_next_begins_a_line(
    tmp_path, file_limit
):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    with open(tmp_path / "log", "ab", buffering=0) as file:
        writer = logs.Writer(file.fileno())
        writer.close()  # from here on this thread writes
        assert writer._write([b"first\n"]) == 0
        file_limit(6 + 5 + 3)
        assert writer._write([b"2222\n", b"3333\n", b"4444\n"]) == 2
        assert writer._write([b"5555\n"]) == 1
        file_limit(before)
        assert writer._write([b"last\n"]) == 0
    assert (tmp_path / "log").read_bytes() == b"first\n2222\n333\nlast\n"


def test_a_log_that_can_not_be_written_is_tried_again_and_again():
    """As on a full disk; how many lines were lost is told once there is room."""
    read, write = os.pipe()
    writer = logs.Writer(write)
    os.close(read)
    for _ in range(3):
        writer.emit(record("lost"))
    writer.close()
    assert writer._lost == 3
    os.close(write)


def test_the_thread_ends_with_the_log(written):
    lines = written("json", "info")
    assert "log" in [each.name for each in threading.enumerate()]
    lines()
    assert "log" not in [each.name for each in threading.enumerate()]


def test_embedding_program_gets_events_with_fields_by_its_own_logging(logged):
    logger.info("connection.opened", connection_id=7)
    logger.debug("request.answered")
    assert logged() == [("INFO", "connection.opened", {"connection_id": 7})]
