"""Measure the service and its peers: `python -m benchmarks.run --help`."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import click

from benchmarks.cases import CASES, PEERS, Case
from benchmarks.measure import KINDS, Sample, Span, UnavailableError, cores, load_generator
from benchmarks.report import Results, Skipped, machine, report

MARKS = re.compile(r"(<!-- report -->\n).*(<!-- /report -->)", re.DOTALL)
"""What a page has around the report."""


def one_round(case: str, rows: dict[str, list[Sample]], span: Span, skipped: Skipped) -> None:
    """Measure each peer once, one after another; who fails is left out from then on."""
    for peer in list(rows):
        if sys.stderr.isatty():
            click.echo(f"\r{case}: {PEERS[peer].title}".ljust(78), err=True, nl=False)
        try:
            rows[peer].append(KINDS[CASES[case].kind](CASES[case], PEERS[peer], span))
        except UnavailableError as reason:
            del rows[peer]
            skipped[case, peer] = str(reason)
            click.echo(f"{case}: {PEERS[peer].title} is left out: {reason}", err=True)


def chosen(case: Case, peers: tuple[str, ...]) -> list[str]:
    """The peers of a case that were asked for."""
    return [peer for peer in case.peers if not peers or peer in peers]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--case", "cases", type=click.Choice(list(CASES)), multiple=True, help="Only these.")
@click.option("--peer", "peers", type=click.Choice(list(PEERS)), multiple=True, help="Only these.")
@click.option("--rounds", type=click.IntRange(1), help="Windows for each; default 5.")
@click.option("--seconds", type=click.FloatRange(0.05), help="Length of a window; default 1.")
@click.option("--quick", is_flag=True, help="In two minutes: fewer cases, two short windows each.")
@click.option("--chart", type=click.Path(path_type=Path), help="Draw an SVG.")
@click.option("--page", type=click.Path(path_type=Path), help="Put the report between its marks.")
@click.option("--json", "raw", type=click.Path(path_type=Path), help="Write every sample.")
def main(
    *,
    cases: tuple[str, ...],
    peers: tuple[str, ...],
    rounds: int | None,
    seconds: float | None,
    quick: bool,
    chart: Path | None,
    page: Path | None,
    raw: Path | None,
) -> None:
    """Measure the CPU time of an echo, here and in other servers."""
    began = time.monotonic()
    rounds = rounds or (2 if quick else 5)
    span = Span(warmup=0.1 if quick else 0.3, seconds=seconds or (0.25 if quick else 1))
    try:
        where = f"the servers on core {cores()[0]}, the load on core {cores()[1]}"
        load_generator()
    except UnavailableError as reason:
        sys.exit(str(reason))
    results: Results = {}
    skipped: Skipped = {}
    for name in cases or [name for name, case in CASES.items() if case.quick or not quick]:
        results[name] = {peer: [] for peer in chosen(CASES[name], peers)}
        for _ in range(1 if CASES[name].once else rounds * CASES[name].more):
            one_round(name, results[name], span, skipped)
    if sys.stderr.isatty():
        click.echo("\r".ljust(78) + "\r", err=True, nl=False)
    tail = rounds * CASES["paced"].more
    how = f"Medians of {rounds} windows of {span.seconds:g} s, paced {tail}, idle one; {where}."
    text = report(results, skipped, how)
    click.echo(text)
    click.echo(f"{time.monotonic() - began:.0f} s", err=True)
    if page:
        page.write_text(MARKS.sub(lambda match: match[1] + text + match[2], page.read_text()))
    if raw:
        left = {f"{case} {peer}": why for (case, peer), why in skipped.items()}
        document = {"machine": machine(), "results": results, "skipped": left}
        raw.write_text(json.dumps(document, indent=1) + "\n")
    if chart:
        from benchmarks.chart import draw  # noqa: PLC0415 (matplotlib is wanted for this only)

        draw(results, chart)


if __name__ == "__main__":
    main()
