"""The results as text, as a table in a terminal, and as JSON."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from echo_service.check.annotate import annotated
from echo_service.check.judge import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from echo_service.check.run import Result

WORDS: Final = {
    Verdict.PASS: "passed",
    Verdict.NON_STRICT: "non-strict",
    Verdict.FAIL: "failed",
    Verdict.SKIPPED: "skipped",
}
_COLOURS: Final = {
    Verdict.PASS: "green",
    Verdict.NON_STRICT: "yellow",
    Verdict.FAIL: "bold red",
    Verdict.SKIPPED: "dim",
}


_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""The characters that XML 1.0 does not have (2.2): controls, and what is no UTF-8 in a path."""


def counts(results: Sequence[Result]) -> dict[Verdict, int]:
    """How many there are of each verdict."""
    found = Counter(result.judgement.verdict for result in results)
    return {verdict: found[verdict] for verdict in Verdict}


def summary(results: Sequence[Result]) -> str:
    """All in a line."""
    told = (f"{number} {WORDS[verdict]}" for verdict, number in counts(results).items() if number)
    checks = "check" if len(results) == 1 else "checks"
    return f"{len(results)} {checks}: {', '.join(told)}"


def observed(result: Result) -> str:
    """What was observed, and why it is not a pass."""
    judgement = result.judgement
    return f"{judgement.observed} ({judgement.why})" if judgement.why else judgement.observed


def printable(text: str) -> str:
    """The text of a report, where a URL or a peer may have put in what XML and HTML do not have."""
    return _NOT_XML.sub("\ufffd", text)


def text(results: Sequence[Result], *, verbose: bool) -> Iterator[str]:
    """A line a check and a line for all, and with ``verbose`` the bytes both ways."""
    width = max((len(result.check.name) for result in results), default=0)
    for result in results:
        check, verdict = result.check, result.judgement.verdict
        case = f", Autobahn {check.autobahn}" if check.autobahn else ""
        yield (
            f"{verdict:<10}  {check.name:<{width}}  {check.clause}{case}:"
            f" expected {check.expected}; observed {observed(result)}"
        )
        if verbose:
            yield from (f"    {line}" for line in transcript(result))
    yield summary(results)


def transcript(result: Result) -> Iterator[str]:
    """The bytes of the check's connections, with an empty line between two."""
    for number, passed in enumerate(result.transcripts):
        if number:
            yield ""
        yield from annotated(passed)


def table(results: Sequence[Result], *, verbose: bool) -> None:
    """Print a table to the terminal, and with ``verbose`` the bytes both ways."""
    from rich.console import Console  # noqa: PLC0415 - only where a table is drawn
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console()
    drawn = Table(box=None)
    drawn.add_column("verdict", no_wrap=True)
    drawn.add_column("check", no_wrap=True)  # it is for --select
    for heading in ("clause", "Autobahn", "expected", "observed"):
        drawn.add_column(heading)
    for result in results:
        check, verdict = result.check, result.judgement.verdict
        cells = [check.name, check.clause, check.autobahn, check.expected, observed(result)]
        drawn.add_row(Text(verdict, _COLOURS[verdict]), *map(Text, cells))
    console.print(drawn)
    if verbose:
        for result in results:
            console.print(Text(f"\n{result.check.name}", "bold"))
            console.print(Text("\n".join(transcript(result))), soft_wrap=True)
    console.print(Text(summary(results)))


def as_json(url: str, results: Sequence[Result], *, verbose: bool) -> str:
    """An object: the URL, the numbers, and a list of the checks."""
    document = {
        "url": url,
        "counts": {verdict.value: number for verdict, number in counts(results).items()},
        "checks": [row(result, verbose=verbose) for result in results],
    }
    return json.dumps(document, indent=2)


def row(result: Result, *, verbose: bool) -> dict[str, Any]:
    """A check, as JSON has it; ``autobahn`` and ``why`` are null where there is none."""
    check, judgement = result.check, result.judgement
    found: dict[str, Any] = {
        "id": check.name,
        "clause": check.clause,
        "autobahn": check.autobahn or None,
        "expected": check.expected,
        "observed": judgement.observed,
        "verdict": judgement.verdict.value,
        "why": judgement.why or None,
        "seconds": round(result.seconds, 3),
    }
    if verbose:
        found["transcript"] = list(transcript(result))
    return found
