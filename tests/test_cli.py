"""The command: options, exit codes, signals, and what it says on stderr."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio

import echo_service
from echo_service import Config, ConfigError, cli
from tests import wire
from tests.wire import CLOSE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("in_time")


@pytest.fixture
def run(monkeypatch, capsys, logging_kept) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process; returns exit code, stdout and stderr."""
    for name in [name for name in os.environ if name.startswith("ECHO_SERVICE_")]:
        monkeypatch.delenv(name)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["echo-service", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        return exit_.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def chosen(monkeypatch, run) -> Callable[..., Config]:
    """The configuration that ``serve`` would run with."""

    def chosen(*arguments: str) -> Config:
        ran = []
        monkeypatch.setattr(trio, "run", lambda *run: ran.append(run[-1]) or 0)
        assert run("serve", *arguments) == (0, "", "")
        return ran[0]

    return chosen


# Options


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ([], {}),
        (["--bind", "127.0.0.1:0"], {"bind": ("127.0.0.1:0",)}),
        (["--bind", "unix:/a", "--bind=[::1]:0"], {"bind": ("unix:/a", "[::1]:0")}),
        (["--admin-bind", "127.0.0.1:0"], {"admin_bind": "127.0.0.1:0"}),
        (["--workers", "2"], {"workers": 2}),
        (["--workers", "auto"], {"workers": "auto"}),
        (["--tls-cert", "a", "--tls-key", "b"], {"tls_cert": "a", "tls_key": "b"}),
        (["--max-message-size", "1"], {"max_message_size": 1}),
        (["--max-connections", "7"], {"max_connections": 7}),
        (["--handshake-timeout", "0.5"], {"handshake_timeout": 0.5}),
        (["--ping-interval=0", "--ping-timeout=1"], {"ping_interval": 0, "ping_timeout": 1}),
        (["--close-timeout=1", "--stall-timeout=2"], {"close_timeout": 1, "stall_timeout": 2}),
        (["--drain-timeout=1", "--drain-code=1012"], {"drain_timeout": 1, "drain_code": 1012}),
        (["--compression"], {"compression": True}),
        (["--no-compression"], {"compression": False}),
        (["--controls"], {"controls": True}),
        (["--no-controls"], {"controls": False}),
        (["--subprotocol", "a", "--subprotocol", "b"], {"subprotocol": ("a", "b")}),
        (["--allow-origin", "null"], {"allow_origin": ("null",)}),
        (["--log-format=json", "--log-level=debug"], {"log_format": "json", "log_level": "debug"}),
    ],
    ids=str,
)
def test_flags(chosen, arguments: list[str], expected: dict[str, object]):
    assert chosen(*arguments) == dataclasses.replace(Config(), **expected)


def test_flag_wins_over_the_environment(chosen, monkeypatch):
    monkeypatch.setenv("ECHO_SERVICE_BIND", "127.0.0.1:1 127.0.0.1:2")
    monkeypatch.setenv("ECHO_SERVICE_DRAIN_CODE", "1012")
    monkeypatch.setenv("ECHO_SERVICE_COMPRESSION", "off")
    monkeypatch.setenv("ECHO_SERVICE_PORT_8080_TCP", "tcp://10.0.0.7:8080")
    config = chosen("--bind", "127.0.0.1:3", "--compression")
    assert (config.bind, config.drain_code, config.compression) == (("127.0.0.1:3",), 1012, True)
    config = chosen()
    assert config.bind == ("127.0.0.1:1", "127.0.0.1:2")
    assert config.compression is False


@pytest.mark.parametrize(
    "flags, environ, bind",
    [
        ({}, {}, ["fd:3", "fd:4"]),
        ({"bind": ("127.0.0.1:0",)}, {}, ["fd:3", "fd:4", "127.0.0.1:0"]),
        ({}, {"ECHO_SERVICE_BIND": "127.0.0.1:0"}, ["fd:3", "fd:4", "127.0.0.1:0"]),
        ({"bind": ("fd:4",)}, {}, ["fd:3", "fd:4"]),
        ({"admin_bind": "fd:4"}, {}, ["fd:3"]),
    ],
)
def test_passed_sockets_take_the_place_of_the_default(flags: dict, environ: dict, bind: list[str]):
    environ = {"LISTEN_PID": "7", "LISTEN_FDS": "2", **environ}
    assert cli.load(flags, environ, 7).bind == tuple(bind)


@pytest.mark.parametrize(
    "arguments, environ, words",
    [
        (["--drain-code=1000"], {}, ["--drain-code", "'1000'", "1001 or 1012"]),
        (["--bind=nowhere"], {}, ["--bind", "'nowhere'", "HOST:PORT"]),
        (["--max-message-size=\n1"], {}, ["--max-message-size", "whole number"]),
        (["--log-level=loud"], {}, ["--log-level", "'loud'", "debug, info, warning or error"]),
        (["--tls-key=key.pem"], {}, ["--tls-key", "certificate is given too"]),
        (["--tls-cert=no", "--tls-key=such"], {}, ["--tls-cert", "'no'", "'such'", "PEM"]),
        ([], {"ECHO_SERVICE_BIND": ""}, ["ECHO_SERVICE_BIND", "HOST:PORT"]),
        ([], {"ECHO_SERVICE_DRAIN_CODE": "7"}, ["ECHO_SERVICE_DRAIN_CODE", "'7'", "1012"]),
        ([], {"ECHO_SERVICE_DRIAN_CODE": "7"}, ["ECHO_SERVICE_DRIAN_CODE", "'7'", "--help"]),
        (["--trusted-proxy=10.0.0.1/8"], {}, ["--trusted-proxy", "10.0.0.1/8", "host bits"]),
        (["--drian-code=1001"], {}, ["--drian-code"]),
        (["--drain-code"], {}, ["--drain-code", "argument"]),
        (["extra"], {}, ["extra"]),
        (["--workers=0"], {}, ["--workers", "'0'", "from 1 to 1024, or auto"]),
        ([], {"ECHO_SERVICE_WORKERS": "all"}, ["ECHO_SERVICE_WORKERS", "'all'", "auto"]),
        (["--workers=2", "--tls-cert=no", "--tls-key=such"], {}, ["--tls-cert", "PEM"]),
        (["--admin-bind=9090"], {}, ["--admin-bind", "'9090'", "HOST:PORT"]),
    ],
    ids=str,
)
def test_wrong_option_is_one_line_that_names_it_and_exit_code_2(
    run, monkeypatch, arguments: list[str], environ: dict[str, str], words: list[str]
):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    code, out, err = run("serve", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("echo-service: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert [word for word in words if word not in err] == []


@pytest.mark.parametrize("command", ["chekc", "sevre"])
def test_unknown_command_is_one_line_and_exit_code_2(run, command: str):
    code, out, err = run(command)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert command in err


def test_no_command_is_helped_on_stderr_with_exit_code_2(run):
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "Usage: echo-service" in err


def test_address_that_can_not_be_bound_is_one_line_that_names_it_and_exit_code_1(run):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = "127.0.0.1:{1}".format(*other.getsockname())
        code, out, err = run("serve", "--bind", address)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"can't listen on {address}: " in err


def test_two_failures_at_once_are_not_taken_for_one(monkeypatch, run):
    """Should there ever be two, nothing is hidden."""

    def broken(*_: object) -> None:
        raise ExceptionGroup("both", [ConfigError("a", 1, "x"), RuntimeError("ours")])

    monkeypatch.setattr(trio, "run", broken)
    monkeypatch.setattr(sys, "argv", ["echo-service", "serve"])
    with pytest.raises(ExceptionGroup, match="both"):
        cli.main()


def test_interrupted_before_there_is_a_signal_receiver(monkeypatch, run):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trio, "run", interrupt)
    code, out, err = run("serve")
    assert (code, out) == (1, "")
    assert err.strip() == "echo-service: interrupted"


def test_version(run):
    code, out, err = run("--version")
    assert (code, err) == (0, "")
    assert out.startswith(f"echo-service {echo_service.__version__}, ")
    assert f"Python {platform.python_version()}" in out


def test_help_names_every_option_with_its_default(run):
    code, out, _ = run("serve", "--help")
    assert code == 0
    words = " ".join(out.split())
    for option in echo_service.config.OPTIONS:
        assert echo_service.config.flag(option) in words
    for default in ("[127.0.0.1:8080]", "[16777216]", "[10]", "[not set]", "[on]", "[info]"):
        assert default in words
    assert "less 64]" in words
    assert run("--help")[0] == 0


# The program


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_program_serves_until_a_signal_and_logs_json(
    program, connect, number: signal.Signals
):
    service = await program("serve", "--bind=127.0.0.1:0", "--log-format=json")
    client = await connect(await service.url())
    await client.open("/there")
    await client.echo(b"a secret")
    service.process.send_signal(number)
    await client.frame()
    await client.send(wire.close(1001))
    await client.stream.aclose()
    assert await service.ends() == 0
    assert "a secret" not in "".join(service.lines)
    lines = [json.loads(line) for line in service.lines]
    assert [line["event"] for line in lines] == [
        "server.listening",
        "connection.opened",
        "server.draining",
        "connection.closed",
        "server.stopped",
    ]
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"])
        assert line["level"] == "info"
    assert lines[1]["target"] == "/there"
    assert (lines[3]["ending"], lines[3]["received_code"]) == ("draining", 1001)


async def test_program_ends_at_once_at_the_second_signal(program, connect):
    service = await program("serve", "--bind=127.0.0.1:0")
    client = await connect(await service.url())
    await client.open()
    service.process.terminate()
    await client.frame()
    service.process.terminate()
    assert await service.ends() == 1


async def test_program_is_configured_by_the_environment(program, connect):
    environ = {
        "ECHO_SERVICE_BIND": "127.0.0.1:0 127.0.0.1:0",
        "ECHO_SERVICE_MAX_MESSAGE_SIZE": "4",
        "ECHO_SERVICE_SERVICE_HOST": "10.0.0.7",
        "ECHO_SERVICE_PORT": "tcp://10.0.0.7:8080",
    }
    service = await program("serve", environ=environ)
    first, second = await service.url(), await service.url()
    assert first != second
    client = await connect(second)
    await client.open()
    await client.send(wire.frame(wire.TEXT, b"12345"))
    assert wire.codes(await client.rest()) == [1009]


@pytest.mark.parametrize(
    "arguments, environ, code, word",
    [
        (["serve", "--drain-code=1000"], {}, 2, "--drain-code"),
        (["serve"], {"ECHO_SERVICE_WORKER": "2"}, 2, "ECHO_SERVICE_WORKER"),
        (["serve", "--bind=192.0.2.1:0"], {}, 1, "192.0.2.1:0"),
    ],
)
async def test_program_that_can_not_start_says_why_in_one_line(
    program, arguments: list[str], environ: dict[str, str], code: int, word: str
):
    service = await program(*arguments, environ=environ)
    assert await service.ends() == code
    (line,) = service.lines
    assert word in line


async def test_program_uses_the_sockets_of_the_service_manager(program, connect):
    with socket.create_server(("127.0.0.1", 0)) as passed:
        service = await program(
            "serve",
            shell='export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@" 3<&0 0</dev/null',
            stdin=passed,
        )
        url = await service.url()
        assert url == "ws://127.0.0.1:{1}".format(*passed.getsockname())
        client = await connect(url)
        await client.open()
        await client.echo()
        service.process.terminate()
        await client.stream.aclose()
        assert await service.ends() == 0
    listening = [line for line in service.lines if "server.listening" in line]
    assert len(listening) == 1, "the default address is not used"


def closed_pipe() -> int:
    read, write = os.pipe()
    os.close(read)
    return write


@pytest.mark.parametrize(
    "shell, stderr",
    [
        ('exec "$@" 2>&-', None),
        pytest.param(
            'exec "$@" 2>/dev/full',
            None,
            marks=pytest.mark.skipif(
                not os.path.exists("/dev/full"), reason="this system has no /dev/full"
            ),
        ),
        ('exec "$@"', closed_pipe),
    ],
    ids=["closed", "full", "broken pipe"],
)
async def test_program_goes_on_without_its_log(
    program, connect, shell: str, stderr: Callable[[], int] | None
):
    """It is served, drained, and its exit code is that of a service that went well."""
    with socket.create_server(("127.0.0.1", 0)) as passed:
        broken = stderr() if stderr else subprocess.DEVNULL
        service = await program(
            "serve",
            f"--bind=fd:{passed.fileno()}",
            shell=shell,
            pass_fds=[passed.fileno()],
            stderr=broken,
        )
        if stderr:
            os.close(broken)
        client = await connect("ws://127.0.0.1:{1}".format(*passed.getsockname()))
        await client.open()
        await client.echo()
        service.process.terminate()
        assert (await client.frame()).opcode == CLOSE
        await client.send(wire.close(1001))
        await client.stream.aclose()
        assert await service.ends() == 0


async def test_unix_socket_of_a_killed_program_is_taken_over(program, connect, tmp_path: Path):
    address = f"unix:{tmp_path}/echo"
    first = await program("serve", f"--bind={address}")
    await first.url()
    second = await program("serve", f"--bind={address}")
    assert await second.ends() == 1
    assert address in second.lines[0]
    first.process.kill()
    await first.process.wait()
    third = await program("serve", f"--bind={address}")
    client = await connect(await third.url())
    await client.open()
    await client.echo()
