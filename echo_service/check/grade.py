"""Does the chosen checks, says how it goes, and gives the reports."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import click
import trio

from echo_service.check import report
from echo_service.check.endpoint import UnreachableError
from echo_service.check.judge import Verdict
from echo_service.check.junit import junit as as_junit
from echo_service.check.output import opened, writing
from echo_service.check.page import page
from echo_service.check.run import run, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from echo_service.check.endpoint import Endpoint
    from echo_service.check.row import Check
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
    junit: str | None,
    html: str | None,
    verbose: bool,
) -> int:
    """Grade, report, and return the exit code: 1 where a check failed.

    The files are opened before anything is sent: one that can't be is known at once.
    Where there are no results, they say why.  Raises `UnreachableError`, `click.Abort`, and
    `click.ClickException` where a pattern matches no check, or a report can't be written.
    """
    checks = _chosen(patterns, stress=stress)
    reports = (("--junit", junit, as_junit), ("--html", html, page))
    with ExitStack() as stack:
        files = [
            (option, make, stack.enter_context(opened(option, path)))
            for option, path, make in reports
            if path is not None
        ]

        def write(results: Sequence[Result], error: str = "") -> None:
            for option, make, file in files:
                with writing(option, file):
                    file.write(make(target.url, results, error))
                    file.flush()

        try:
            results = _run(target, checks, timeout)
        except (UnreachableError, click.Abort) as error:
            write((), f"no connection: {error}" if str(error) else "interrupted")
            raise
        write(results)
    with writing("stdout", sys.stdout):
        _show(target, results, is_json=is_json, verbose=verbose)
    return 1 if report.counts(results)[Verdict.FAIL] else 0


def _chosen(patterns: Sequence[str], *, stress: bool) -> Sequence[Check]:
    """The checks; raises `click.BadParameter` for a pattern that matches none."""
    for pattern in patterns:
        if not select([pattern], stressful=stress):
            stressful = " but those of --stress" if select([pattern], stressful=True) else ""
            words = f"{pattern!r} matches no check{stressful}"
            raise click.BadParameter(words, param_hint="--select")
    return select(patterns, stressful=stress)


def _run(target: Endpoint, checks: Sequence[Check], timeout: float) -> Sequence[Result]:
    """Do the checks, with a line of progress; raises `UnreachableError`, and `click.Abort`."""
    progress = _Progress(len(checks))
    try:
        return trio.run(run, target, checks, timeout, progress.done)
    except KeyboardInterrupt:
        raise click.Abort from None
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt):
            raise click.Abort from None
        raise
    finally:
        progress.end()


def _show(target: Endpoint, results: Sequence[Result], *, is_json: bool, verbose: bool) -> None:
    """On stdout: JSON, a table in a terminal, or plain lines."""
    if is_json:
        click.echo(report.as_json(target.url, results, verbose=verbose))
    elif sys.stdout and sys.stdout.isatty():  # None where it is closed
        report.table(results, verbose=verbose)
    else:
        click.echo("\n".join(report.text(results, verbose=verbose)))
