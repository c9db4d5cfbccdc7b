"""What the machine has to allow, and the table at the end."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import missing
from tests.soak.soak import Figures, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

SEEN: list[Figures] = []
REPORT = Path(__file__).parents[2] / "reports" / "soak.md"

FILES = 16_000
"""Descriptors that the service needs, and so do its clients."""

MEMORY = 3 << 30
"""Bytes that both need, and what the kernel holds for them."""


@pytest.fixture(scope="session")
def seconds() -> int:
    """How long the load is to last."""
    return int(os.environ.get("SOAK_SECONDS", "600"))


@pytest.fixture
def room() -> Iterator[None]:
    """As many files as are needed, for this process and those that it starts; and memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        missing(f"15,000 connections need a hard file limit of {FILES} (ulimit -Hn); it is {hard}")
    lines = Path("/proc/meminfo").read_text().splitlines()
    (free,) = (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    if free < MEMORY:
        words = f"{free >> 20} MiB of {MEMORY >> 20} are available"
        missing(f"15,000 connections and their clients need more memory: {words}")
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def seen() -> list[Figures]:
    """Where the figures go that are to be in the table."""
    return SEEN


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured, and leave it in a file."""
    if SEEN:
        table = "\n".join(f"| {name} | {value} |" for each in SEEN for name, value in rows(each))
        table = f"| what | how much |\n| --- | --- |\n{table}"
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text(table + "\n")
        terminalreporter.write_sep("=", "under load")
        terminalreporter.write_line(table)
