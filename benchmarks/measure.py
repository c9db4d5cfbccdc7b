"""A server on one core, the load generator on another, and what the kernel says of the server.

Each function of `KINDS` starts a server, measures it once and returns its figures.  CPU time is
what the kernel keeps for a process in nanoseconds: the run time of all its threads, those that
have ended too.  It is the sum of the first fields of /proc/PID/task/*/schedstat.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import resource
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from benchmarks.cases import Case, Peer

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT = 15.0
"""Seconds until a server has to listen."""

LOAD_TIMEOUT = 120.0
"""Seconds until a window has to be over."""

PING_INTERVAL = 20.0
"""Seconds until the first ping to an idle connection: the default here and in websockets."""

Sample = dict[str, float]


class UnavailableError(Exception):
    """A server does not start, or does not do what is asked; the message is the reason."""


@dataclass(frozen=True)
class Span:
    """How long is measured, in seconds."""

    warmup: float
    seconds: float


# ---- the machine ----


def cores() -> tuple[int, int]:
    """The core of the servers and the core of the load."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        raise UnavailableError("two cores are needed: one for the server, one for the load")
    return available[0], available[-1]


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Start what is started within on this core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_file_limit() -> int:
    """Let this process and its children open as many files as they may; returns how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


# ---- the load generator ----


def cache() -> Path:
    """The directory for what is made once."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = home / "echo-service-benchmarks"
    path.mkdir(parents=True, exist_ok=True)
    return path


@functools.cache
def load_generator() -> str:
    """The path of the load generator, compiled where it is not yet."""
    source = Path(__file__).with_name("load.c")
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise UnavailableError("no C compiler: install one (gcc or clang), or name it in CC")
    version = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    program = cache() / f"load-{version}"
    if not program.exists():
        new = program.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, "-O2", "-o", str(new), str(source)], check=True)
        new.rename(program)
    return str(program)


@functools.cache
def deflated_messages() -> str:
    """The path of a file of 64 different messages of 1 KiB of JSON, deflated each by itself.

    As many as these do not fit the window of a compressor that keeps its context, so that no
    server finds a whole message in what it sent before.
    """
    chance = random.Random(0)
    path = cache() / "messages"
    with path.open("wb") as file:
        for _ in range(64):
            compressor = zlib.compressobj(wbits=-15)
            data = compressor.compress(json_document(chance, 1024).encode())
            data = (data + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")
            file.write(len(data).to_bytes(4) + data)
    return str(path)


def json_document(chance: random.Random, size: int) -> str:
    """A document of this many bytes, such as an API sends."""
    names = ("ada", "grace", "alan", "edsger", "barbara", "donald", "leslie", "radia")
    rows: list[dict[str, object]] = []
    while len(json.dumps(rows)) < size - 160:
        row = {"id": chance.randrange(10**6), "user": chance.choice(names)}
        row |= {"price": round(chance.uniform(1, 1000), 2), "active": chance.random() < 0.5}
        rows.append(row | {"at": f"2025-{chance.randrange(1, 13):02}-{chance.randrange(1, 28):02}"})
    text = json.dumps({"rows": rows, "padding": ""})
    return text[:-2] + f"{chance.getrandbits(1024):0256x}"[: size - len(text)] + text[-2:]


def load_command(server: Server, options: Mapping[str, int | str | float]) -> list[str]:
    """The command line of the load generator."""
    words = [load_generator(), "--port", str(server.port)]
    for name, value in options.items():
        words += [f"--{name}", *([str(value)] if value != "" else [])]
    for pid in server.family():
        words += ["--pid", str(pid)]
    return words


def run_load(server: Server, options: Mapping[str, int | str | float]) -> Sample:
    """One window's figures."""
    command = load_command(server, options)
    try:
        with pinned(cores()[1]):
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=LOAD_TIMEOUT
            )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"the load did not end within {LOAD_TIMEOUT} s") from None
    if done.returncode:
        raise UnavailableError(f"{done.stderr.strip()}{server.complaint()}")
    figures: Sample = json.loads(done.stdout)
    if not figures["count"]:
        raise UnavailableError("nothing came back within the window")
    return figures


@contextmanager
def held(server: Server, options: Mapping[str, int | str]) -> Iterator[None]:
    """Keep connections open and idle."""
    command = load_command(server, {"mode": "idle", **options})
    with pinned(cores()[1]):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    with process:
        ready = process.stdout.readline() if process.stdout else b""
        if not ready and process.stderr:
            raise UnavailableError(process.stderr.read().decode().strip() + server.complaint())
        try:
            yield
        finally:
            process.communicate(timeout=30)


# ---- a server ----


class Server:
    """A server process and its children."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def family(self) -> list[int]:
        """The process and all that descend from it."""
        found = [self.process.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, children.read_text().split())
        return found

    def cpu_ns(self) -> int:
        """The CPU time so far."""
        # The clock of a process, as clock_getcpuclockid(3) makes it from a pid.
        return sum(time.clock_gettime_ns(~pid << 3 | 2) for pid in self.family())

    def rss(self) -> int:
        """The resident memory, in bytes."""
        pages = sum(int(Path(f"/proc/{p}/statm").read_text().split()[1]) for p in self.family())
        return pages * resource.getpagesize()

    def complaint(self) -> str:
        """The last line that the server wrote, to be added to a reason."""
        lines = self.log.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f" ({last})" if last else ""

    def wait_until_it_serves(self) -> None:
        """Return as soon as a connection can be made, and, of ours, its workers are there.

        No peer is asked for an echo meanwhile: aiohttp and uvicorn were seen to take twice as long
        for each ever after, for what reason is not known.
        """
        ours = any("echo_service" in each for each in cast("list[str]", self.process.args))
        limit = time.monotonic() + START_TIMEOUT
        while time.monotonic() < limit:
            if self.process.poll() is not None:
                raise UnavailableError(f"it does not start{self.complaint()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                if not ours or "server.listening" in self.log.read_text(errors="replace"):
                    return
            except OSError:
                pass
            time.sleep(0.002)
        raise UnavailableError(f"it does not listen within {START_TIMEOUT} s{self.complaint()}")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def serving(peer: Peer, *, compress: bool = False) -> Iterator[Server]:
    """Run a server, on a core of its own, until the end of the block."""
    raise_file_limit()
    port = free_port()
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        with pinned(cores()[0]):
            process = subprocess.Popen(
                peer.start(port, compress=compress), cwd=ROOT, stdout=log, stderr=log
            )
        try:
            server = Server(process, port, Path(log.name))
            server.wait_until_it_serves()
            if compress:
                check_deflated(server)
            yield server
        finally:
            process.kill()
            process.wait()


def check_deflated(server: Server) -> None:
    """See that a deflated message comes back, which the load generator can't: it inflates none."""
    text = json_document(random.Random(1), 1024)
    with connect(f"ws://127.0.0.1:{server.port}", compression="deflate", max_size=None) as client:
        client.send(text)
        if client.recv() != text:
            raise UnavailableError("the echo of a deflated message is not what was sent")


# ---- what is measured ----


def options_of(case: Case) -> dict[str, int | str]:
    """The load generator's options for this case."""
    compressed = {"compressed": deflated_messages()} if case.compress else {}
    return {**case.load, **compressed}


def echo(case: Case, peer: Peer, span: Span) -> Sample:
    """What an echo costs, how many there are in a second, and how long they take."""
    with serving(peer, compress=case.compress) as server:
        times = {"warmup": span.warmup, "seconds": span.seconds}
        figures = run_load(server, {**options_of(case), **times})
        rss = server.rss()
    return {
        **figures,
        "cpu_us": figures["server_cpu_ns"] / figures["count"] / 1e3,
        "per_second": figures["count"] / figures["seconds"],
        "rss_mib": rss / 2**20,
    }


def handshakes(case: Case, peer: Peer, span: Span) -> Sample:
    """What a connection costs that opens and closes."""
    figures = echo(case, peer, span)
    return {**figures, "per_cpu_second": 1e6 / figures["cpu_us"]}


def memory(case: Case, peer: Peer, _span: Span) -> Sample:
    """What an idle connection takes of memory: the growth over many."""
    with serving(peer, compress=case.compress) as server:
        warm = {"connections": 5, "warmup": 0, "seconds": 0.2}
        run_load(server, {**options_of(case), **warm})
        before = server.rss()
        with held(server, options_of(case)):
            after = server.rss()
    connections = int(case.load["connections"])
    return {"connection_kib": (after - before) / connections / 2**10, "rss_mib": after / 2**20}


def share(server: Server, seconds: float) -> float:
    """How much of a core the server takes, in percent, while this sleeps."""
    then, began = server.cpu_ns(), time.monotonic_ns()
    time.sleep(seconds)
    return 100 * (server.cpu_ns() - then) / (time.monotonic_ns() - began)


def idle(case: Case, peer: Peer, _span: Span) -> Sample:
    """What idle connections cost, over one ping interval after the first."""
    with serving(peer) as server, held(server, case.load):
        time.sleep(PING_INTERVAL + 1)
        return {"idle_percent": share(server, PING_INTERVAL), "rss_mib": server.rss() / 2**20}


def idle_beside(case: Case, peer: Peer, span: Span) -> Sample:
    """What idle connections cost, and what they add to the cost of an echo beside them."""
    some = {"connections": 10, "size": 20, "warmup": span.warmup, "seconds": span.seconds}

    def cost() -> float:
        samples = [run_load(server, some) for _ in range(3)]
        return statistics.median(each["server_cpu_ns"] / each["count"] / 1e3 for each in samples)

    with serving(peer) as server:
        alone = cost()
        with held(server, case.load):
            time.sleep(1)
            percent = share(server, 10)
            beside = cost()
            rss = server.rss()
    return {
        "idle_percent": percent,
        "alone_us": alone,
        "beside_us": beside,
        "beside_ratio": beside / alone,
        "rss_mib": rss / 2**20,
    }


def start(_case: Case, peer: Peer, _span: Span) -> Sample:
    """How long it takes to listen, and the memory then."""
    began = time.monotonic()
    with serving(peer) as server:
        return {"start_s": time.monotonic() - began, "rss_mib": server.rss() / 2**20}


KINDS: dict[str, Callable[[Case, Peer, Span], Sample]] = {
    "echo": echo,
    "handshakes": handshakes,
    "memory": memory,
    "idle": idle,
    "idle_beside": idle_beside,
    "start": start,
}
