"""Does the chosen checks, says how it goes, and gives the reports."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, TextIO

import click
import trio

from echo_service.check import report
from echo_service.check.judge import Verdict
from echo_service.check.junit import junit
from echo_service.check.page import page
from echo_service.check.run import run, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from echo_service.check.endpoint import Endpoint
    from echo_service.check.run import Result

_BACK: Final = "\r\x1b[K"
"""To the beginning of the line, and the line erased (ECMA-48)."""


class _Progress:
    """A line on a terminal, while checks are done; nothing elsewhere."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._done = 0
        self._failed = 0
        self._shown = sys.stderr.isatty()

    def done(self, result: Result) -> None:
        """Count one more."""
        self._done += 1
        self._failed += result.judgement.verdict is Verdict.FAIL
        self._show(f"{self._done} of {self._count} checks, {self._failed} failed")

    def end(self) -> None:
        """Leave the line empty."""
        self._show("")

    def _show(self, words: str) -> None:
        if self._shown:
            click.echo(_BACK + words, err=True, nl=False)


def grade(
    target: Endpoint,
    *,
    patterns: Sequence[str],
    stress: bool,
    timeout: float,
    is_json: bool,
    junit_file: TextIO | None,
    html_file: TextIO | None,
    verbose: bool,
) -> int:
    """Grade, report, and return the exit code: 1 where a check failed.

    Raises `UnreachableError`, and `click.BadParameter` where no check is chosen.
    """
    checks = select(patterns, stressful=stress)
    if not checks:
        words = f"{' '.join(patterns)!r} matches no check"
        raise click.BadParameter(words, param_hint="--select")
    progress = _Progress(len(checks))
    try:
        results = trio.run(run, target, checks, timeout, progress.done)
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt):
            raise click.Abort from None
        raise
    finally:
        progress.end()
    if junit_file:
        junit_file.write(junit(target.url, results))
    if html_file:
        html_file.write(page(target.url, results))
    _show(target, results, is_json=is_json, verbose=verbose)
    return 1 if report.counts(results)[Verdict.FAIL] else 0


def _show(target: Endpoint, results: Sequence[Result], *, is_json: bool, verbose: bool) -> None:
    """On stdout: JSON, a table in a terminal, or plain lines."""
    if is_json:
        click.echo(report.as_json(target.url, results, verbose=verbose))
    elif sys.stdout.isatty():
        report.table(results, verbose=verbose)
    else:
        click.echo("\n".join(report.text(results, verbose=verbose)))
