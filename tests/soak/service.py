"""The command under load, and what is seen of it from outside and from within."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from tests.attacks import process
from tests.conftest import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PATIENT = [
    *("--handshake-timeout", "60", "--ping-timeout", "600", "--stall-timeout", "60"),
    *("--close-timeout", "60", "--drain-timeout", "60"),
]
"""Nobody is to be given up because the machine is busy."""


class Service:
    """A running service that is watched (`tests.soak.watched`)."""

    def __init__(self, watched: trio.Process, log: Path) -> None:
        self._process = watched
        self._log = log
        self.pid = watched.pid

    async def starts(self) -> int:
        """The port, once it listens."""
        listens = "server.listening"
        await eventually(lambda: listens in self.log() or self._process.poll() is not None)
        (line,) = (line for line in self.lines() if line["event"] == listens)
        return int(str(line["address"]).rpartition(":")[2])

    async def counts(self) -> dict[str, Any]:
        """What Trio and the service count."""
        return await self._ask(b"counts\n")

    async def objects(self) -> int:
        """How many connections and sessions its memory holds, those that have ended too."""
        return (await self._ask(b"objects\n"))["objects"]

    async def _ask(self, question: bytes) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        await self._process.stdin.send_all(question)
        told = b""
        while not told.endswith(b"\n"):
            piece = await self._process.stdout.receive_some()
            assert piece, self.log()[-2000:]
            told += piece
        return json.loads(told)

    async def ends(self) -> int:
        """Have it end in good order, and return its exit code."""
        self._process.terminate()
        return await self._process.wait()

    def log(self) -> str:
        """What was logged."""
        return self._log.read_text()

    def lines(self) -> list[dict[str, object]]:
        """The whole lines of that; fails on one that is none of ours."""
        return [json.loads(line) for line in self.log().split("\n")[:-1]]

    @property
    def memory(self) -> int:
        """Bytes that are its own, resident or swapped out: no file's pages, which come and go."""
        return process.memory(self.pid, "RssAnon") + process.memory(self.pid, "VmSwap")

    @property
    def files(self) -> int:
        """File descriptors that are open."""
        return process.files(self.pid)

    @property
    def cpu(self) -> float:
        """Seconds of CPU time that it has had."""
        return process.cpu(self.pid)


@asynccontextmanager
async def watched(directory: Path, **environ: str) -> AsyncIterator[Service]:
    """Run the service; at the end of the block it is killed, if it has not ended."""
    command = [sys.executable, "-m", "tests.soak.watched", "serve", "--bind", "127.0.0.1:0"]
    command += ["--log-format", "json", *PATIENT]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ECHO_SERVICE_")}
    log = directory / "log"
    with log.open("wb") as stderr:
        running = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=kept | environ,
        )
    try:
        yield Service(running, log)
    finally:
        with trio.CancelScope(shield=True):
            if running.returncode is None:
                running.kill()
            await running.wait()
            for pipe in (running.stdin, running.stdout):
                assert pipe
                await pipe.aclose()
