"""A machine of its own, with a real systemd: a small Debian booted in systemd-nspawn.

It has a network with nothing but a loopback, so that its ports are its own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE = 60
"""Seconds after which what is waited for will not come, on however busy a machine."""

CLONE_NEWNET = 0x40000000


class Machine:
    """A booted machine; ``root`` is its file system."""

    def __init__(self, root: Path, leader: int) -> None:
        self.root = root
        self._leader = leader
        self._network = ThreadPoolExecutor(1, initializer=self._enter_network)

    def run(self, *command: str, check: bool = True) -> str:
        """What a command says on the machine, on stdout and stderr."""
        spaces = ["-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]
        done = subprocess.run(
            ["nsenter", "-t", str(self._leader), *spaces, "env", "-i", *_PATH, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}"
        return done.stdout.strip()

    def socket(self) -> socket.socket:
        """A TCP socket of the machine's network, for whoever has it."""
        return self._network.submit(socket.socket).result()

    def close(self) -> None:
        """Leave its network."""
        self._network.shutdown()

    def _enter_network(self) -> None:
        """Move this thread, and no other, into the machine's network: setns(2)."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/proc/{self._leader}/ns/net") as network:
            assert libc.setns(network.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


_PATH = ["PATH=/usr/local/bin:/usr/sbin:/usr/bin", "LC_ALL=C.UTF-8"]


@contextmanager
def booted(root: Path) -> Iterator[Machine]:
    """Boot the tree, and shut it down in the end."""
    name = f"echo-service-{os.getpid()}"
    with _cgroup(name) as cgroup, (root.parent / "console").open("wb") as console:
        enter = f'echo $$ > "{cgroup}/cgroup.procs"; exec "$@"'
        command = ["systemd-nspawn", "--quiet", f"--directory={root}", f"--machine={name}"]
        options = ["--register=no", "--keep-unit", "--private-network", "--console=pipe", "--boot"]
        process = subprocess.Popen(
            ["sh", "-c", enter, "sh", *command, *options],
            env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
        )
        leader = None
        try:
            leader = eventually(lambda: _leader(process))
            machine = Machine(root, leader)
            eventually(lambda: _is_up(machine))
            yield machine
            machine.close()
        finally:
            if leader is None:
                process.terminate()
            else:
                os.kill(leader, signal.SIGRTMIN + 4)  # poweroff.target: systemd(1)
            _end(process)


def eventually(fact: Callable[[], object]) -> object:
    """What is asked for, once it is something; of a process of another's no event tells."""
    end = time.monotonic() + PATIENCE
    while not (found := fact()):
        assert time.monotonic() < end, "it has not come"
        time.sleep(0.05)
    return found


def _leader(process: subprocess.Popen) -> int | None:
    """The machine's own first process: systemd."""
    assert process.poll() is None, "systemd-nspawn has ended"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
            return int(child)
    return None


def _is_up(machine: Machine) -> bool:
    state = machine.run("systemctl", "is-system-running", check=False)
    assert state != "degraded", machine.run("systemctl", "--failed", check=False)
    return state == "running"


def _end(process: subprocess.Popen) -> None:
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()  # and with it, as it is set up to be, the machine
        process.wait()


@contextmanager
def _cgroup(name: str) -> Iterator[Path]:
    """A cgroup (v2) for the machine's own tree of them, which goes with it."""
    mounted = Path("/sys/fs/cgroup")
    top = mounted / "unified" if (mounted / "unified").exists() else mounted
    (top / name).mkdir()
    try:
        yield top / name
    finally:
        eventually(lambda: _is_removed(top / name))


def _is_removed(cgroup: Path) -> bool:
    """Remove what has no process in it any more."""
    for directory, _, _ in os.walk(cgroup, topdown=False):
        with suppress(OSError):
            Path(directory).rmdir()
    return not cgroup.exists()
