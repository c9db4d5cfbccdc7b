"""The report: the machine, a table for each case, the targets, and what was left out."""

from __future__ import annotations

import importlib.util
import os
import platform
import statistics
from importlib import machinery, metadata
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.cases import CASES, COLUMNS, PEERS, TARGETS, VERSIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.cases import Target
    from benchmarks.measure import Sample

Results = dict[str, dict[str, list["Sample"]]]
"""Of each case and peer the samples, a round each, in the order of the rounds."""

Skipped = dict[tuple[str, str], str]
"""The case and the peer that could not be measured, and why."""


def machine() -> dict[str, str]:
    """What was measured on, and with which versions."""
    text = Path("/proc/cpuinfo").read_text()
    model = next((line for line in text.splitlines() if line.startswith("model name")), "")
    return {
        "processor": model.partition(":")[2].strip() or platform.machine(),
        "cores": str(os.cpu_count()),
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiled codec": codec(),
        "versions": ", ".join(f"{name} {version(name)}" for name in VERSIONS),
    }


def version(distribution: str) -> str:
    """The installed version."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def codec() -> str:
    """Whether the service has its compiled codec here."""
    spec = importlib.util.find_spec("echo_service._codec")
    suffixes = tuple(machinery.EXTENSION_SUFFIXES)
    return "yes" if spec and spec.origin and spec.origin.endswith(suffixes) else "no"


def median(samples: list[Sample], column: str) -> float:
    """The median over the rounds."""
    return statistics.median(sample[column] for sample in samples)


def ratio(samples: list[Sample], others: list[Sample], column: str) -> float:
    """The median over the rounds of the ratio within a round."""
    pairs = zip(samples, others, strict=False)
    return statistics.median(mine[column] / theirs[column] for mine, theirs in pairs)


def table(case: str, rows: dict[str, list[Sample]]) -> Iterator[str]:
    """A case: its medians, and how each peer's first figure compares with the first peer's."""
    columns = [name for name in CASES[case].columns if any(name in s[0] for s in rows.values())]
    reference = next(iter(rows))
    headings = [COLUMNS[name].heading for name in columns]
    compared = f"ratio to {PEERS[reference].title}" if len(rows) > 1 else ""
    yield row("", *headings[:1], *([compared] if compared else []), *headings[1:])
    yield "|---|" + "---:|" * (len(columns) + bool(compared))
    for peer, samples in rows.items():
        figures = [format(median(samples, name), COLUMNS[name].form) for name in columns]
        if compared:
            figures.insert(1, f"{ratio(samples, rows[reference], columns[0]):.2f}")
        yield row(PEERS[peer].title, *figures)


def idle(case: str, rows: dict[str, list[Sample]]) -> Iterator[str]:
    """A line where a server had not all of its core, or not enough to do: it sleeps more then."""
    load = CASES[case].load
    if CASES[case].kind != "echo" or "rate" in load or load["connections"] == 1:
        return
    for peer, samples in rows.items():
        share = statistics.median(s["server_cpu_ns"] / s["seconds"] / 1e9 for s in samples)
        if share < 0.95:
            yield f"\n{PEERS[peer].title} had {share:.0%} of its core, by the load or for others."


def row(*cells: str) -> str:
    """A line of a table."""
    return "| " + " | ".join(cells) + " |"


def figure(target: Target, results: Results) -> float | None:
    """The figure a target is about, if all that it needs was measured."""
    rows = results.get(target.case, {})
    samples = rows.get(target.peer)
    if target.against is None:
        return median(samples, target.column) if samples else None
    others = rows.get(target.against)
    return ratio(samples, others, target.column) if samples and others else None


def targets(results: Results) -> Iterator[str]:
    """The table of the targets of the cases that were run."""
    yield row("target", "bound", "figure", "")
    yield "|---|---:|---:|---|"
    for target in [each for each in TARGETS if each.case in results]:
        sign, form = ("≥" if target.at_least else "≤"), COLUMNS[target.column].form
        value, limit = figure(target, results), f"{target.limit:g}"
        if target.against:
            form, limit = ".2f", f"{limit} of {PEERS[target.against].title}"
        words = f"{PEERS[target.peer].title}: {target.case}, {COLUMNS[target.column].heading}"
        if value is None:
            yield row(words, f"{sign} {limit}", "", "not measured")
            continue
        met = value >= target.limit if target.at_least else value <= target.limit
        yield row(words, f"{sign} {limit}", format(value, form), "met" if met else "**missed**")


def report(results: Results, skipped: Skipped, how: str) -> str:
    """All of it, in Markdown."""
    lines = [how, ""]
    lines += [f"- {name}: {words}" for name, words in machine().items()]
    for case, rows in results.items():
        if rows:
            lines += ["", f"### {case}: {CASES[case].title}", "", *table(case, rows)]
            lines += idle(case, rows)
    if any(target.case in results for target in TARGETS):
        lines += ["", "### Targets", "", *targets(results)]
    if skipped:
        lines += ["", "### Left out", ""]
        lines += [f"- {case}, {PEERS[peer].title}: {why}" for (case, peer), why in skipped.items()]
    return "\n".join(lines) + "\n"
