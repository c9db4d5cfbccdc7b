"""How many CPUs a process may use: by its affinity, and by the quota of its cgroups."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_PROCESS = Path("/proc/self/cgroup")


def available(cgroups: Path = _CGROUPS, process: Path = _PROCESS) -> int:
    """The CPUs for this process, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = min((_quota(folder) for folder in _folders(cgroups, process)), default=math.inf)
    return max(1, min(allowed or 1, math.ceil(quota) if math.isfinite(quota) else 1 << 16))


def _folders(cgroups: Path, process: Path) -> set[Path]:
    """The cgroups that limit this process, of either version, where this machine has them.

    In a container the path may be the host's, and only the root be here: so all above count.
    """
    try:
        lines = process.read_text().splitlines()
    except OSError:
        return set()
    found = set()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for root in (cgroups, cgroups / "unified", cgroups / "cpu"):
            inside = root / path.lstrip("/")
            found |= {each for each in (inside, *inside.parents) if each.is_relative_to(root)}
    return found


def _quota(folder: Path) -> float:
    """The CPUs that a cgroup is allowed (cgroups(7)); infinity where it is not limited."""
    for words in (_version_2, _version_1):
        try:
            limit, period = words(folder)
            return int(limit) / int(period) if int(limit) > 0 else math.inf
        except (OSError, ValueError):
            continue
    return math.inf


def _version_2(folder: Path) -> list[str]:
    return (folder / "cpu.max").read_text().split()


def _version_1(folder: Path) -> list[str]:
    return [(folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")]
