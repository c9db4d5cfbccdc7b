"""The results as one HTML page that needs nothing else, to be attached to a ticket."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

import echo_service
from echo_service.check.report import observed, printable, summary, transcript

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from echo_service.check.run import Result

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 90em; padding: 0 1em; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #8884; padding: .3em .6em; }
th, td { text-align: left; vertical-align: top; }
td:first-child { font-weight: bold; white-space: nowrap; }
.pass td:first-child { color: #187a2f; }
.non-strict td:first-child { color: #9a6700; }
.fail td:first-child { color: #c4201d; }
.skipped { opacity: .6; }
pre { font-size: 12px; overflow-x: auto; white-space: pre-wrap; }
:root { color-scheme: light dark; }
"""
_HEADINGS: Final = ("verdict", "check", "clause", "Autobahn", "expected", "observed")


def page(url: str, results: Sequence[Result], error: str = "") -> str:
    """The page: a row a check, with the bytes both ways to be unfolded.

    ``error`` is why nothing was checked, if nothing was.
    """
    title = escape(f"echo-service check {url}")
    headings = "".join(f'<th scope="col">{heading}</th>' for heading in _HEADINGS)
    rows = "\n".join(_row(result) for result in results)
    made = f"{error or summary(results)}. Made by echo-service {echo_service.__version__}."
    lines = [
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style>",
        f"<h1>{title}</h1>",
        f"<p>{escape(made)}</p>",
        f"<table>\n<thead><tr>{headings}</tr></thead>\n<tbody>",
        rows,
        "</tbody>\n</table>\n</html>\n",
    ]
    return printable("\n".join(lines))


def _row(result: Result) -> str:
    verdict = result.judgement.verdict.value
    cells = "".join(f"<td>{cell}</td>" for cell in (verdict, *_cells(result)))
    return f'<tr id="{escape(result.check.name)}" class="{verdict}">{cells}</tr>'


def _cells(result: Result) -> Iterator[str]:
    check = result.check
    yield from map(escape, (check.name, check.clause, check.autobahn, check.expected))
    lines = escape("\n".join(transcript(result)))
    yield f"{escape(observed(result))}<details><summary>bytes</summary><pre>{lines}</pre></details>"
