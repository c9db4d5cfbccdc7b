"""The command ``check``: options, exit codes, and what it says."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
import trio

from echo_service import cli
from echo_service.check import wire
from echo_service.check.run import CHECKS, STRESS, select
from echo_service.testing import running

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.check.conftest import Peer

pytestmark = pytest.mark.usefixtures("in_time")


@pytest.fixture
def check(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process; returns exit code, stdout and stderr."""

    def check(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["echo-service", "check", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        return exit_.value.code, *capsys.readouterr()

    return check


@pytest.fixture
def echo_1000() -> str:
    """The URL of a server that answers whatever it gets with Close 1000."""

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, client.makefile("rwb") as file:
                lines = iter(file.readline, b"\r\n")
                keys = [line.split()[1] for line in lines if line.startswith(b"Sec-WebSocket-Key")]
                accept = wire.accept(keys[0].decode()).encode()
                head = b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                file.write(head + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n\x88\x02\x03\xe8")
                file.flush()
                client.shutdown(socket.SHUT_WR)
                file.read()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=serve)
        thread.start()
        yield "ws://127.0.0.1:{1}/".format(*listener.getsockname())
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def nobody() -> str:
    """The URL of a port that nobody listens on."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield "ws://127.0.0.1:{1}/".format(*unused.getsockname())


def test_quick_exits_with_0_where_there_is_an_echo(check):
    with running() as server:
        (url,) = server.urls
        assert check("--quick", url) == (0, f"{url}: echoes\n", "")


def test_all_passed_is_exit_code_0_and_plain_text_in_a_pipe(check):
    with running() as server:
        code, out, err = check(server.urls[0])
    assert (code, err) == (0, "")
    *lines, last = out.splitlines()
    assert last == f"{len(CHECKS)} checks: {len(CHECKS)} passed"
    assert [line.split()[1] for line in lines] == [each.name for each in CHECKS]


def test_a_check_is_repeated_alone_with_its_bytes(check):
    with running() as server:
        code, out, err = check(server.urls[0], "--select", "closing.code-0", "-v")
    assert (code, err) == (0, "")
    assert out.startswith("pass        closing.code-0  RFC 6455 7.4.2, Autobahn 7.9.1: expected")
    assert "    > 88 82 37 fa 21 3d 37 fa" in out
    assert "    < 88 2b 03 ea" in out
    assert out.endswith("1 check: 1 passed\n")


@pytest.mark.parametrize(
    "patterns, names",
    [
        (["closing.code-0"], {"closing.code-0"}),
        (["closing.code-101?"], {f"closing.code-{code}" for code in range(1010, 1017)}),
        (["order"], {each.name for each in CHECKS if each.name.startswith("order.")}),
        (["order.messages", "utf8.*-f?"], {"order.messages", "utf8.invalid-fe", "utf8.invalid-ff"}),
        (["stress"], set()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else f"{len(value)} of them",
)
def test_checks_are_selected_by_name_area_or_pattern(patterns: list[str], names: set[str]):
    assert {each.name for each in select(patterns, stressful=False)} == names


def test_stress_is_sent_only_where_it_is_asked_for(check):
    with running() as server:
        code, out, err = check(server.urls[0], "--select=stress.*")
        assert (code, out) == (2, "")
        assert "--select" in err
        assert server.statistics().connections_total == 0
        code, out, err = check(server.urls[0], "--select=stress.*", "--stress", "--timeout=30")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"{len(STRESS)} checks: {len(STRESS)} passed"


def test_json_junit_and_html_come_from_one_run(check, tmp_path):
    junit, html = tmp_path / "a.xml", tmp_path / "a.html"
    with running() as server:
        code, out, err = check(
            server.urls[0], "--select=order", "--json", f"--junit={junit}", f"--html={html}"
        )
    assert (code, err) == (0, "")
    names = [each["id"] for each in json.loads(out)["checks"]]
    assert names == [each.name for each in CHECKS if each.area == "order"]
    assert junit.read_text(encoding="utf-8").count("<testcase ") == len(names)
    assert html.read_text(encoding="utf-8").count("<tr id=") == len(names)


def test_a_failed_check_is_exit_code_1(check, echo_1000):
    code, out, err = check(echo_1000, "--select=closing.code-0", "--select=closing.code-1000")
    assert (code, err) == (1, "")
    assert out.splitlines()[-1] == "2 checks: 1 passed, 1 failed"
    assert "fail        closing.code-0 " in out


def test_what_is_allowed_is_exit_code_0(check, echo_1000):
    code, out, _ = check(echo_1000, "--select=closing.code-1001")
    assert code == 0
    assert out.splitlines()[-1] == "1 check: 1 non-strict"


def test_what_is_skipped_is_exit_code_0(check):
    with running(compression=False) as server:
        code, out, _ = check(server.urls[0], "--select=deflate.empty")
    assert (code, out.splitlines()[-1]) == (0, "1 check: 1 skipped")


def test_no_connection_is_exit_code_2_and_one_line(check, nobody):
    code, out, err = check(nobody)
    assert (code, out) == (2, "")
    assert err.startswith(f"no connection to {nobody}: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("path", ["/nowhere/\x01", "/nowhere/\udcff"], ids=ascii)
def test_without_a_connection_the_reports_say_so(tmp_path, path: str):
    junit, html = tmp_path / "a.xml", tmp_path / "a.html"
    command = [sys.executable, "-m", "echo_service", "check", f"ws+unix:{path}"]
    command += [f"--junit={junit}", f"--html={html}"]
    result = subprocess.run(command, capture_output=True, check=False)
    assert (result.returncode, result.stdout, result.stderr.count(b"\n")) == (2, b"", 1)
    (suite,) = ET.parse(junit).getroot()
    assert suite.attrib | {"name": "", "time": ""} == {
        "name": "",
        "tests": "1",
        "failures": "0",
        "errors": "1",
        "skipped": "0",
        "time": "",
    }
    assert suite[0][0].get("message") == "no connection: No such file or directory"
    assert "no connection: No such file or directory" in html.read_text(encoding="utf-8")


def test_what_stdout_can_not_say_is_escaped():
    with running() as server:
        command = [sys.executable, "-m", "echo_service", "check", server.urls[0]]
        result = subprocess.run(
            [*command, "--select=framing.text-126", "-v"],
            env=os.environ | {"PYTHONIOENCODING": "latin-1"},
            capture_output=True,
            check=False,
        )
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"\\u2026 of 126 bytes" in result.stdout


def test_in_a_terminal_there_is_progress_and_a_table():
    with running() as server:
        command = [sys.executable, "-m", "echo_service", "check", server.urls[0], "--select=order"]
        seen = in_terminal(command)
    assert b"\r\x1b[K1 of 9 checks, 0 failed" in seen
    assert b"\r\x1b[K9 of 9 checks, 0 failed\r\x1b[K" in seen
    assert b"verdict" in seen
    assert b"9 checks: 9 passed" in seen


async def test_an_interrupt_ends_it_with_one_line(program, peer, nursery, tmp_path):
    silent = trio.Event()
    junit = tmp_path / "a.xml"

    async def serve(peer: Peer) -> None:
        await peer.upgrade()
        message = await peer.frame()
        await peer.send(bytes([0x81, len(message.payload)]) + message.payload)
        if (await peer.frame()).payload != b"\x03\xe8":
            silent.set()
            await trio.sleep_forever()
        await peer.send(b"\x88\x02\x03\xe8")

    url = (await peer(serve)).url
    checking = await program(
        "check", url, "--select=order.messages", "--timeout=60", f"--junit={junit}"
    )
    await silent.wait()
    checking.process.send_signal(signal.SIGINT)
    assert await checking.ends() == 1
    assert checking.lines == ["echo-service: interrupted"]
    assert '<error message="interrupted" />' in junit.read_text(encoding="utf-8")


def in_terminal(command: list[str]) -> bytes:
    """What the command writes to a terminal of 200 columns."""
    mine, theirs = pty.openpty()
    environ = os.environ | {"COLUMNS": "200", "TERM": "xterm"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ):
        os.close(theirs)
        seen = b""
        with suppress(OSError):  # a terminal's end is an error
            while data := os.read(mine, 65536):
                seen += data
    os.close(mine)
    return seen


def test_quick_exits_with_2_where_there_is_no_connection(check, nobody):
    code, out, err = check(nobody, "--quick")
    assert (code, out) == (2, "")
    assert err.startswith(f"no connection to {nobody}: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], ["URL"]),
        (["http://a"], ["URL", "'http://a'", "ws://HOST"]),
        (["ws://a..b/"], ["URL", "'ws://a..b/'", "ws://HOST"]),
        (["wss://.:1/", "--quick"], ["URL", "'wss://.:1/'", "ws://HOST"]),
        (["wss://a", "--cacert=nowhere"], ["--cacert", "'nowhere'", "No such file"]),
        (["wss://a", f"--cacert={__file__}"], ["--cacert", "can't be used"]),
        (["ws://a", "--timeout=0"], ["--timeout", "'0'", "seconds over 0"]),
        (["ws://a", "--timeout=x"], ["--timeout", "'x'", "seconds over 0"]),
        (["ws://a", "--timeout=inf"], ["--timeout", "'inf'"]),
        (["ws://a", "--fast"], ["--fast"]),
        (["ws://a", "--select=stress.bomb"], ["'stress.bomb'", "no check but those of --stress"]),
        (["ws://a", "--select=nothing.*"], ["--select", "'nothing.*'", "no check"]),
        (["ws://a", "--select=order", "--select=nothing"], ["--select", "'nothing'", "no check"]),
        (["ws://a", "--cacert=nowhere"], ["--cacert", "TLS", "'ws://a'"]),
        (["ws+unix:a", "--insecure"], ["--insecure", "TLS", "'ws+unix:a'"]),
        *(
            (["ws://a", "--quick", option], [option.split("=")[0], "--quick"])
            for option in ("--json", "--verbose", "--stress", "--select=order")
        ),
        (["ws://a", "--junit=/nowhere/a"], ["--junit", "/nowhere/a", "No such file"]),
        (["ws://a", "--html=/nowhere/a"], ["--html", "/nowhere/a", "No such file"]),
    ],
    ids=str,
)
def test_wrong_option_is_one_line_that_names_it_and_exit_code_2(
    check, arguments: list[str], words: list[str]
):
    code, out, err = check(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert [word for word in words if word not in err] == []


@pytest.mark.parametrize("option", ["--junit", "--html"])
def test_quick_refuses_a_report_and_leaves_its_file_alone(check, tmp_path, option: str):
    (tmp_path / "a").write_text("before", encoding="utf-8")
    code, out, err = check("ws://a", "--quick", f"{option}={tmp_path}/a")
    assert (code, out) == (2, "")
    assert f"{option} can't go with --quick" in err
    assert (tmp_path / "a").read_text(encoding="utf-8") == "before"


@pytest.mark.parametrize("option", ["--junit", "--html"])
def test_a_file_that_can_not_be_written_is_exit_code_2_and_one_line(check, option: str):
    with running() as server:
        code, out, err = check(server.urls[0], "--select=order.messages", f"{option}=/dev/full")
    words = f"echo-service: {option} can't be written: No space left on device. See --help.\n"
    assert (code, out, err) == (2, "", words)


@pytest.mark.parametrize("option", ["--quick", "--select=order.messages", "--json"])
def test_stdout_that_can_not_be_written_is_exit_code_2_and_one_line(option: str):
    with running() as server, open("/dev/full", "w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "echo_service", "check", server.urls[0], option]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    words = b"echo-service: stdout can't be written: No space left on device. See --help.\n"
    assert (result.returncode, result.stderr) == (2, words)


@pytest.mark.parametrize("option", ["--quick", "--select=order.messages", "--json"])
def test_a_closed_stdout_leaves_the_exit_code(option: str):
    with running() as server:
        command = [sys.executable, "-m", "echo_service", "check", server.urls[0], option]
        closed = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
        result = subprocess.run(closed, stderr=subprocess.PIPE, check=False)
    assert (result.returncode, result.stderr) == (0, b"")


def test_quick_imports_nothing_that_it_does_not_need(nobody):
    program = (
        "import sys; from echo_service import cli\n"
        f"sys.argv = ['echo-service', 'check', '--quick', {nobody!r}]\n"
        "try: cli.main()\n"
        "except SystemExit: print(*sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    modules = set(result.stdout.split())
    assert "echo_service.check.quick" in modules
    ours = {module for module in modules if module.startswith("echo_service.check.")}
    needed = {"command", "endpoint", "client", "wire", "quick", "output", "transcript"}
    assert ours == {f"echo_service.check.{name}" for name in needed}
    assert not modules & {"rich", "structlog", "websockets"}
