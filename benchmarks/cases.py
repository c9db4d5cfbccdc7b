"""What is measured, on what, and what is to come of it: tables, and nothing else."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Peer:
    """A server, and how it is started."""

    title: str
    command: tuple[str, ...]
    """Without the port, which comes last."""
    ours: bool = False

    def start(self, port: int, *, compress: bool) -> list[str]:
        """The command that listens on this port of 127.0.0.1.

        Ours accepts compression from whoever offers it; the others only where they are told to,
        and then it is offered.
        """
        if self.ours:
            return [*self.command, "--bind", f"127.0.0.1:{port}"]
        return [*self.command, str(port), *(["--compress"] if compress else [])]


def ours(variant: str, *options: str, quiet: bool = True, codec: bool = True) -> Peer:
    """The service in a variant."""
    block = "" if codec else "sys.modules['echo_service._codec'] = None; "
    program = f"import sys; {block}from echo_service.cli import main; main()"
    level = ("--log-level", "warning") if quiet else ()
    return Peer(
        f"echo-service{variant}",
        (sys.executable, "-c", program, "serve", *level, *options),
        ours=True,
    )


def peer(title: str, module: str) -> Peer:
    """A program in peers/."""
    return Peer(title, (sys.executable, "-m", f"benchmarks.peers.{module}"))


PEERS = {
    "default": ours(""),
    "no-lane": ours(", no fast lane", "--no-fast-lane"),
    "python-codec": ours(", Python codec", codec=False),
    "workers": ours(", two workers", "--workers", "2"),
    "logs": ours(", with its log", quiet=False),
    "no-pings": ours(", no pings", "--ping-interval", "0"),
    "trio": peer("Trio alone, and the codec", "trio_alone"),
    "picows": peer("picows", "picows_asyncio"),
    "aiohttp": peer("aiohttp", "aiohttp_asyncio"),
    "websockets": peer("websockets on asyncio", "websockets_asyncio"),
    "websockets-trio": peer("websockets on Trio", "websockets_trio"),
    "trio-websocket": peer("trio-websocket", "trio_websocket_trio"),
    "hypercorn": peer("Hypercorn on Trio", "hypercorn_trio"),
    "uvicorn": peer("uvicorn with wsproto", "uvicorn_wsproto"),
}

VERSIONS = (
    *("echo-service", "trio", "h11", "wsproto", "picows", "aiofastnet", "aiohttp", "websockets"),
    *("trio-websocket", "hypercorn", "uvicorn"),
)
"""The distributions whose versions a report names."""

FOREIGN = tuple(name for name, peer in PEERS.items() if not peer.ours)
ALL = ("default", "no-lane", "python-codec", *FOREIGN)
SOME = ("default", "python-codec", "picows", "aiohttp", "websockets", "websockets-trio")
DEFLATING = ("default", "python-codec", "aiohttp", "websockets", "websockets-trio")


@dataclass(frozen=True)
class Case:
    """A table of the report.  The first column is what peers are compared by."""

    title: str
    kind: str
    """A function of measure.py."""
    peers: tuple[str, ...]
    columns: tuple[str, ...]
    load: Mapping[str, int | str] = field(default_factory=dict)
    """Options of the load generator."""
    compress: bool = False
    once: bool = False
    """Whether one round is enough, for what varies little and takes long."""
    more: int = 1
    """How many times as many rounds are needed, for what varies much."""
    quick: bool = True
    """Whether it is part of a quick run."""


ECHO = ("cpu_us", "per_second", "p50_us", "p99_us")

CASES = {
    "20B": Case(
        "20 bytes of text, 100 connections",
        "echo",
        (*ALL, "workers"),
        ECHO,
        {"connections": 100, "size": 20},
    ),
    "1KiB": Case(
        "1 KiB of text, 100 connections",
        "echo",
        ALL,
        ECHO,
        {"connections": 100, "size": 1024},
    ),
    "16KiB": Case(
        "16 KiB, binary, 100 connections",
        "echo",
        SOME,
        ECHO,
        {"connections": 100, "size": 16384, "payload": "binary"},
    ),
    "1MiB": Case(
        "1 MiB, binary, 8 connections",
        "echo",
        SOME,
        ECHO,
        {"connections": 8, "size": 1048576, "payload": "binary"},
    ),
    "pipelined": Case(
        "20 bytes of text, 100 connections with 16 messages under way on each",
        "echo",
        SOME,
        ECHO,
        {"connections": 100, "size": 20, "depth": 16},
    ),
    "unicode": Case(
        "1 KiB of text that is not ASCII, 100 connections",
        "echo",
        SOME,
        ECHO,
        {"connections": 100, "size": 1024, "payload": "unicode"},
        quick=False,
    ),
    "compressed": Case(
        "1 KiB of JSON, deflated, 100 connections",
        "echo",
        DEFLATING,
        ECHO,
        {"connections": 100},
        compress=True,
    ),
    "ping-pong": Case(
        "20 bytes of text, one connection",
        "echo",
        SOME,
        ("p50_us", "cpu_us", "per_second", "p99_us"),
        {"connections": 1, "size": 20},
    ),
    "paced": Case(
        "20 bytes of text, 10,000 messages a second over 1,000 connections",
        "echo",
        ("default", "picows", "aiohttp", "websockets"),
        ("p99_us", "p50_us", "p999_us", "cpu_us"),
        {"mode": "open", "rate": 10000, "connections": 1000, "size": 20},
        more=3,
    ),
    "handshakes": Case(
        "connect, upgrade, Close, end of stream; 32 at a time",
        "handshakes",
        ("default", "logs", "no-lane", *FOREIGN),
        ("per_cpu_second", "cpu_us", "per_second", "p50_us", "p99_us"),
        {"mode": "handshake", "connections": 32},
    ),
    "memory": Case(
        "resident memory of an idle connection, of 2,000, after a message of 20 bytes",
        "memory",
        ALL,
        ("connection_kib", "rss_mib"),
        {"connections": 2000, "size": 20},
        once=True,
    ),
    "memory-compressed": Case(
        "the same with compression, after 1 KiB of JSON, deflated",
        "memory",
        DEFLATING,
        ("connection_kib", "rss_mib"),
        {"connections": 2000},
        compress=True,
        once=True,
    ),
    "idle": Case(
        "10,000 idle connections",
        "idle",
        ("default", "no-pings"),
        ("idle_percent", "rss_mib"),
        {"connections": 10000},
        once=True,
        quick=False,
    ),
    "idle-15000": Case(
        "15,000 idle connections, without pings, and 10 that echo 20 bytes",
        "idle_beside",
        ("no-pings",),
        ("idle_percent", "alone_us", "beside_us", "beside_ratio", "rss_mib"),
        {"connections": 15000},
        once=True,
        quick=False,
    ),
    "start": Case(
        "from start to listening",
        "start",
        ("default",),
        ("start_s", "rss_mib"),
    ),
}


@dataclass(frozen=True)
class Column:
    """A figure: its heading and its form."""

    heading: str
    form: str = ",.1f"


COLUMNS = {
    "cpu_us": Column("CPU µs each", ".2f"),
    "per_second": Column("a second", ",.0f"),
    "per_cpu_second": Column("a CPU second", ",.0f"),
    "p50_us": Column("median µs"),
    "p99_us": Column("p99 µs"),
    "p999_us": Column("p99.9 µs"),
    "connection_kib": Column("KiB each"),
    "rss_mib": Column("MiB in all"),
    "idle_percent": Column("% of a core", ".2f"),
    "alone_us": Column("CPU µs an echo, alone", ".2f"),
    "beside_us": Column("beside the idle", ".2f"),
    "beside_ratio": Column("ratio", ".2f"),
    "start_s": Column("seconds", ".2f"),
}


@dataclass(frozen=True)
class Target:
    """What is promised: a figure, or its ratio to another server's, and its bound."""

    case: str
    column: str
    limit: float
    against: str | None = None
    peer: str = "default"
    at_least: bool = False


TARGETS = (
    *(
        Target(case, "cpu_us", 1.0, "picows")
        for case in ("20B", "1KiB", "16KiB", "1MiB", "pipelined")
    ),
    Target("20B", "cpu_us", 0.4, "websockets", peer="python-codec"),
    Target("20B", "cpu_us", 0.4, "trio-websocket", peer="no-lane"),
    Target("20B", "cpu_us", 1.05, "default", peer="workers"),
    Target("compressed", "cpu_us", 1.0, "websockets"),
    Target("ping-pong", "p50_us", 1.0, "websockets"),
    Target("paced", "p99_us", 1.0, "aiohttp"),
    Target("handshakes", "per_cpu_second", 1.0, "websockets", at_least=True),
    Target("memory", "connection_kib", 8),
    Target("memory-compressed", "connection_kib", 64),
    Target("idle-15000", "idle_percent", 1, peer="no-pings"),
    Target("start", "start_s", 0.5),
    Target("start", "rss_mib", 45),
)
