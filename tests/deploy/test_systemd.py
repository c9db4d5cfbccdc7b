"""The units under a real systemd, as `make install` puts them there."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from tests import wire
from tests.conftest import missing
from tests.deploy import machine as machines
from tests.deploy.conftest import ROOT
from tests.wire import CLOSE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.deploy.machine import Machine

pytestmark = [pytest.mark.deploy, pytest.mark.usefixtures("in_time")]

SERVICE, SOCKET = "echo-service.service", "echo-service.socket"
UNITS = "/usr/local/lib/systemd/system"

CACHE = os.environ.get("DEPLOY_CACHE", str(ROOT / ".cache"))
"""Where the small Debian is kept from one run to the next."""

PAGE = (ROOT / "docs/systemd.md").read_text()


def commands(page: str) -> list[str]:
    """The commands that a page tells its reader to give, in their order."""
    blocks = re.findall(r"```console\n(.*?)```", page, re.DOTALL)
    return re.findall(r"^# (.+)$", "\n".join(blocks), re.MULTILINE)


# The machine


@pytest.fixture(scope="session")
def tree(tool, tmp_path_factory) -> Path:
    """A small Debian with the service installed, before it is booted."""
    for name, source in [
        ("mmdebstrap", "Debian's mmdebstrap"),
        ("systemd-nspawn", "Debian's systemd-container"),
        ("/usr/bin/python3", "Debian's python3-venv"),
    ]:
        tool(name, source)
    if os.geteuid() != 0:
        missing("to boot a machine takes root")
    root = tmp_path_factory.mktemp("machine") / "root"
    root.mkdir()
    made = subprocess.run(
        [ROOT / "tests/deploy/tree", CACHE], stdout=subprocess.PIPE, text=True, check=True
    )
    subprocess.run(["tar", "-C", root, "-xf", made.stdout.strip()], check=True)
    make("install", root)
    return root


def make(target: str, destdir: Path, *variables: str) -> None:
    """Run the target with the machine's own Python, which is this one's too."""
    command = ["make", target, f"DESTDIR={destdir}", "PYTHON=/usr/bin/python3", *variables]
    subprocess.run(command, cwd=ROOT, check=True)


@pytest.fixture(scope="session")
def booted(tree) -> Iterator[Machine]:
    with machines.booted(tree) as machine:
        yield machine


@pytest.fixture
def machine(booted) -> Iterator[Machine]:
    """The machine, with its socket listening and nothing of another test's left."""
    booted.run("systemctl", "start", SOCKET)
    yield booted
    print(booted.run("journalctl", "--no-pager", "--lines=50", f"--unit={SERVICE}"))  # noqa: T201 - pytest shows it of a test that failed
    booted.run("systemctl", "stop", SOCKET, SERVICE)
    assert shown(booted, "Result") == "success"
    booted.run("sh", "-c", f"rm -rf {' '.join(CONFIGURED)}")
    booted.run("groupdel", "echo-service-tls", check=False)
    booted.run("systemctl", "daemon-reload")


CONFIGURED = ["/etc/default/echo-service", "/etc/echo-service", "/etc/systemd/system/echo-service*"]
"""Where an operator puts what is not as it was installed."""


def shown(machine: Machine, name: str) -> str:
    """A property of the service."""
    return machine.run("systemctl", "show", SERVICE, f"--property={name}", "--value")


def eventually(machine: Machine, name: str, pattern: str) -> None:
    """Wait until the property matches."""
    machines.eventually(lambda: re.fullmatch(pattern, shown(machine, name)))


def write(machine: Machine, path: str, text: str) -> None:
    file = machine.root / path.removeprefix("/")
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)


async def during(machine: Machine, *command: str) -> None:
    """Run a command on the machine while all else goes on."""
    await trio.to_thread.run_sync(partial(machine.run, *command))


async def connected(machine: Machine, port: int = 8080) -> trio.SocketStream:
    """A connection from the machine to itself."""
    sock = trio.socket.from_stdlib_socket(machine.socket())
    await sock.connect(("127.0.0.1", port))
    return trio.SocketStream(sock)


@asynccontextmanager
async def client(machine: Machine, port: int = 8080) -> AsyncIterator[wire.Client]:
    """A client of the service, with its opening handshake done."""
    async with await connected(machine, port) as stream:
        opened = wire.Client(stream)
        await opened.open()
        yield opened


async def answered(machine: Machine) -> None:
    """Somebody comes, and is answered."""
    async with client(machine) as somebody:
        await somebody.echo()


# The units


def test_the_units_are_in_order(booted):
    """A word of `systemd-analyze verify` is a fault; its exit code is 0 for an unknown key."""
    assert booted.run("systemd-analyze", "verify", SERVICE, SOCKET) == ""


def test_the_service_is_as_confined_as_can_be(booted):
    """The threshold is in tenths; what is above it is a failure."""
    unit = f"{UNITS}/{SERVICE}"
    booted.run("systemd-analyze", "security", "--offline=true", "--threshold=8", unit)


PROBE = """
import json, mmap, os, socket
tries = {
    "write to /etc": lambda: open("/etc/probe", "w"),
    "write to /usr": lambda: open("/usr/probe", "w"),
    "look into /home": lambda: os.listdir("/home"),
    "look into /root": lambda: os.listdir("/root"),
    "see others' processes": lambda: os.stat("/proc/1"),
    "be root": lambda: os.setuid(0),
    "make an Internet socket": lambda: socket.socket(socket.AF_INET),
    "make a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "make a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "run what it wrote": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC),
    "be of higher priority": lambda: os.setpriority(os.PRIO_PROCESS, 0, -5),
    "know when it began": lambda: open("/proc/stat").read().index("btime"),
    "know its share": lambda: os.sched_getaffinity(0) and open("/sys/fs/cgroup/cgroup.controllers"),
    "write to its own directory": lambda: open("/run/echo-service/probe", "w"),
}
can = {}
for name, attempt in tries.items():
    try:
        attempt()
        can[name] = True
    except OSError:
        can[name] = False
json.dump(can, open("/run/echo-service/probe", "w"))
"""


async def test_the_service_can_do_what_it_needs_and_nothing_else(machine):
    """Tried by a program that systemd starts as it starts the service, before it."""
    write(machine, "/probe.py", PROBE)
    drop_in = "[Service]\nExecStartPre=/usr/bin/python3 -I /probe.py\n"
    write(machine, f"/etc/systemd/system/{SERVICE}.d/probe.conf", drop_in)
    machine.run("systemctl", "daemon-reload")
    await answered(machine)
    can = json.loads(machine.run("cat", "/run/echo-service/probe"))
    needed = {"know when it began", "know its share", "write to its own directory"}
    assert {name for name, may in can.items() if may} == needed
    assert "codec in C" in machine.run("echo-service", "--version")


async def test_addresses_of_its_own_take_a_drop_in(machine):
    for each in commands(PAGE.partition("An address of the service's own")[2].partition("##")[0]):
        machine.run("sh", "-c", each)
    for port in (8080, 8081):
        async with client(machine, port) as somebody:
            await somebody.echo()


async def test_the_metrics_take_a_drop_in(machine):
    """Without it the service is started again and again; with it, enabled, it awaits no client."""
    journal = ("journalctl", "--no-pager", f"--unit={SERVICE}")
    write(machine, "/etc/default/echo-service", "ECHO_SERVICE_ADMIN_BIND=127.0.0.1:9092\n")
    machine.run("systemctl", "restart", SERVICE, check=False)
    machines.eventually(lambda: machine.run(*journal).count("can't listen on 127.0.0.1:9092") > 2)

    *prepare, ask = commands(PAGE.partition("## Metrics")[2].partition("\n## ")[0])
    for each in prepare:
        machine.run("sh", "-c", each)
    assert ask.startswith("curl ")
    with pytest.raises(AssertionError, match="9091"):
        machine.run("sh", "-c", ask)
    assert "echo_service_connections 0" in machine.run("sh", "-c", ask.replace("9091", "9092"))
    machine.run("rm", "/etc/default/echo-service")
    machine.run("systemctl", "restart", SERVICE)
    assert "echo_service_connections 0" in machine.run("sh", "-c", ask)
    assert machine.run("systemctl", "is-enabled", SERVICE) == "enabled"
    machine.run("systemctl", "disable", SERVICE)
    await answered(machine)


# Its life


async def test_the_first_connection_starts_it_and_it_tells_that_it_serves(machine):
    assert shown(machine, "MainPID") == "0"
    async with client(machine) as first:
        await first.echo()
        assert shown(machine, "ActiveState") == "active"
        eventually(machine, "StatusText", r"serving ws://\[::\]:8080; connections: 1")


async def test_a_stop_closes_who_is_there_and_succeeds(machine):
    async with client(machine) as held:
        await held.echo()
        machine.run("systemctl", "stop", "--no-block", SOCKET, SERVICE)
        await closes(held, 1001)
    eventually(machine, "ActiveState", "inactive")
    assert (shown(machine, "Result"), shown(machine, "ExecMainStatus")) == ("success", "0")


async def closes(held: wire.Client, code: int) -> None:
    """The client is told to go, and goes."""
    got = await held.frame()
    assert (got.opcode, got.payload[:2]) == (CLOSE, code.to_bytes(2, "big"))
    await held.send(wire.close(code))
    assert await held.rest() == b""


@pytest.mark.parametrize("code", [1001, 1012])
async def test_restarts_close_who_is_there_and_refuse_nobody(machine, code: int):
    """50 connections are held through each of three restarts, and others come all the time."""
    write(machine, "/etc/default/echo-service", f"ECHO_SERVICE_DRAIN_CODE={code}\n")
    over = trio.Event()
    came = []

    async def hold(task_status) -> None:
        async with client(machine) as held:
            await held.echo()
            task_status.started()
            await closes(held, code)

    async def come() -> None:
        while not over.is_set():
            async with client(machine) as somebody:
                await somebody.send(wire.frame(wire.TEXT, b"hello"))
                got = await somebody.frame()
                came.append(got.payload[:2])

    async with trio.open_nursery() as comers:
        for _ in range(4):
            comers.start_soon(come)
        pids = [shown(machine, "MainPID")]
        for _ in range(3):
            async with trio.open_nursery() as held:
                for _ in range(50):
                    await held.start(hold)
                held.start_soon(during, machine, "systemctl", "restart", SERVICE)
            before = len(came)
            while len(came) < before + 20:
                await answered(machine)
            pids.append(shown(machine, "MainPID"))
        over.set()
    assert len(set(pids) - {"0"}) >= 3
    assert set(came) <= {b"he", code.to_bytes(2, "big")}, "echoed, or let in and sent away"


async def test_it_serves_again_however_often_it_is_killed(machine):
    await answered(machine)
    before = int(shown(machine, "NRestarts"))
    for count in range(1, 8):  # systemd's own limit is 5 in 10 s
        machine.run("systemctl", "kill", "--signal=SIGKILL", SERVICE)
        eventually(machine, "NRestarts", str(before + count))
        await answered(machine)


async def test_it_serves_again_after_it_was_stuck(machine):
    """Who comes in the meantime is answered too; where it was stuck is in the journal."""
    await answered(machine)
    pid = shown(machine, "MainPID")
    machine.run("systemctl", "kill", "--signal=SIGSTOP", SERVICE)
    await answered(machine)
    assert shown(machine, "MainPID") != pid
    journal = machine.run("journalctl", "--no-pager", f"_PID={pid}", "+", f"UNIT={SERVICE}")
    assert "Watchdog timeout" in journal
    assert "Fatal Python error: Aborted" in journal


# Certificates


def issue(machine: Machine) -> ssl.SSLContext:
    """Give the machine a new certificate; returns who trusts that one alone."""
    authority, trusting = trustme.CA(), ssl.create_default_context()
    issued = authority.issue_cert("localhost")
    write(machine, "/cert.pem", "".join(pem.bytes().decode() for pem in issued.cert_chain_pems))
    write(machine, "/key.pem", issued.private_key_pem.bytes().decode())
    authority.configure_trust(trusting)
    return trusting


async def test_a_reload_reads_the_certificate_again_and_tells(machine):
    @asynccontextmanager
    async def speaking(trusting: ssl.SSLContext) -> AsyncIterator[trio.SSLStream]:
        async with await connected(machine) as plain:
            stream = trio.SSLStream(plain, trusting, server_hostname="localhost")
            await stream.do_handshake()
            yield stream

    def reload(status: str) -> None:
        for each in (each for each in tls if each.startswith("install ")):
            machine.run("sh", "-c", each)
        machine.run("systemctl", "reload", SERVICE)
        eventually(machine, "StatusText", status)

    tls = commands(PAGE.partition("## TLS")[2].partition("After a renewal")[0])
    first = issue(machine)
    for each in tls:
        machine.run("sh", "-c", each)
    async with speaking(first) as stream:
        held = wire.Client(stream)
        await held.open()

        write(machine, "/cert.pem", "no certificate")
        reload("serving wss://.*; connections: 1; the new certificate can't be used, .* is kept")
        async with speaking(first):
            pass

        second = issue(machine)
        reload(r"serving wss://\S*; connections: 1")
        async with speaking(second):
            pass
        with pytest.raises(trio.BrokenResourceError):
            async with speaking(first):
                pass
        await held.echo()
        await held.send(wire.close(1000))
        await held.frame()


# What is on the page


def test_the_page_is_true(booted, tree):
    """Every command, in the page's order; at the end nothing is left that was installed."""
    issue(booted)
    for each in commands(PAGE):
        if each.startswith("make "):
            make(each.removeprefix("make "), tree)
        else:
            booted.run("sh", "-c", each)
    left = list((tree / "usr/local").rglob("*echo*service*"))
    assert left == []
    assert (tree / "etc/default/echo-service").exists()
