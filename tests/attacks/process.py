"""A process and its children as the operating system sees them: memory, CPU time, files."""

from __future__ import annotations

from pathlib import Path


def tree(pid: int) -> list[int]:
    """The process and all below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in tree(int(child)))]


def memory(pid: int, row: str = "VmRSS") -> int:
    """Bytes resident in the tree; with ``VmHWM`` at each one's peak since `forget_peak`.

    What the processes share counts for each of them: it is the growth that is of interest.
    The kernel notes the peak itself, so that no moment is missed between two samples.
    """
    total = 0
    for each in tree(pid):
        (line,) = (
            line
            for line in Path(f"/proc/{each}/status").read_text().splitlines()
            if line.startswith(f"{row}:")
        )
        total += int(line.split()[1]) * 1024
    return total


def forget_peak(pid: int) -> None:
    """Begin a new peak with what is resident now."""
    for each in tree(pid):
        Path(f"/proc/{each}/clear_refs").write_text("5")


def cpu(pid: int) -> float:
    """Seconds of CPU time that the tree's main threads have had."""
    runs = (Path(f"/proc/{each}/schedstat").read_text().split()[0] for each in tree(pid))
    return sum(map(int, runs)) / 1e9


def files(pid: int) -> int:
    """File descriptors that are open in the tree."""
    return sum(len(list(Path(f"/proc/{each}/fd").iterdir())) for each in tree(pid))
