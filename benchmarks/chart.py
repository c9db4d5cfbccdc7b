"""The chart: what an echo costs at each size, a panel a case, a bar a server."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.cases import CASES, PEERS
from benchmarks.report import median

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.measure import Sample
    from benchmarks.report import Results

PANELS = ("20B", "1KiB", "16KiB", "1MiB", "pipelined", "unicode", "compressed")
INK, OURS, THEIRS = "#010203", "#2f81f7", "#8b949e"
"""INK stands for the reader's text colour; the bars are readable on white and on black."""

STYLE = """<style>
svg { color: #1f2328 }
@media (prefers-color-scheme: dark) { svg { color: #e6edf3 } }
</style>"""


def panel(axes: Axes, case: str, rows: dict[str, list[Sample]]) -> None:
    """Draw a case, the cheapest on top."""
    costs = {peer: median(samples, "cpu_us") for peer, samples in rows.items()}
    order = sorted(costs, key=lambda peer: -costs[peer])
    bars = axes.barh(
        [PEERS[peer].title for peer in order],
        [costs[peer] for peer in order],
        color=[OURS if PEERS[peer].ours else THEIRS for peer in order],
    )
    form = "{:.3g}" if max(costs.values()) < 100 else "{:,.0f}"
    axes.bar_label(bars, fmt=form, padding=3, color=INK)
    axes.set_title(CASES[case].title, loc="left", color=INK, fontsize=10)
    axes.margins(x=0.12)
    axes.set_xticks([])
    axes.tick_params(colors=INK, length=0)
    axes.spines[:].set_visible(b=False)


def draw(results: Results, path: Path) -> None:
    """Write the chart of what was measured, as an SVG that follows the reader's theme."""
    cases = [case for case in PANELS if results.get(case)]
    if not cases:
        return
    bars = [len(results[case]) for case in cases]
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "echo-service", "font.size": 9}):
        figure = Figure(figsize=(8, 0.24 * sum(bars) + 0.5 * len(bars) + 0.3), layout="constrained")
        figure.suptitle("CPU time of the server for an echo, in µs", color=INK, fontsize=12)
        grid = figure.subplots(len(cases), squeeze=False, height_ratios=bars)
        for axes, case in zip(grid[:, 0], cases, strict=True):
            panel(axes, case, results[case])
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue().replace(INK, "currentColor")
    path.write_text(text.replace("<defs>", f"{STYLE}\n <defs>", 1))
