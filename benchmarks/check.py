"""Grade other servers with `echo-service check`: `python -m benchmarks.check [--write]`.

Each is in its library's ordinary use, as in peers/, with compression where it has it.  With
``--write`` the tables in docs/check.md are made anew, the list of checks too.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from benchmarks.cases import ours, peer
from benchmarks.measure import serving
from echo_service.check import endpoint
from echo_service.check.judge import Verdict
from echo_service.check.report import counts
from echo_service.check.run import CHECKS, STRESS, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.cases import Peer
    from echo_service.check.run import Result

PAGE = Path(__file__).resolve().parent.parent / "docs" / "check.md"
PATIENCE = 5.0
"""Seconds for a check: the default of the command."""

PEERS = {
    "echo-service": (ours(""), "echo-service"),
    "websockets": (peer("websockets on asyncio", "websockets_asyncio"), "websockets"),
    "aiohttp": (peer("aiohttp", "aiohttp_asyncio"), "aiohttp"),
    "tornado": (peer("tornado", "tornado_asyncio"), "tornado"),
    "picows": (peer("picows", "picows_asyncio"), "picows"),
    "trio-websocket": (peer("trio-websocket", "trio_websocket_trio"), "trio-websocket"),
    "hypercorn": (peer("Hypercorn on Trio", "hypercorn_trio"), "hypercorn"),
    "uvicorn": (peer("uvicorn with wsproto", "uvicorn_wsproto"), "uvicorn"),
}
"""The servers, and the distribution whose version is named."""

AREAS = tuple(dict.fromkeys(check.area for check in CHECKS))


def grade(server: Peer) -> list[Result]:
    """What becomes of each check, but for those of stress."""
    with serving(server, compress=True) as running:
        url = f"ws://127.0.0.1:{running.port}/"
        target = endpoint.parse(url, lambda: endpoint.trusting(None, insecure=False))
        return trio.run(run, target, CHECKS, PATIENCE)


def report(graded: dict[str, list[Result]]) -> Iterator[str]:
    """A table, and of each server what it fails."""
    titles = {name: f"{PEERS[name][0].title} {metadata.version(PEERS[name][1])}" for name in graded}
    yield f"| server | {' | '.join(AREAS)} |"
    yield "|---|" + "---|" * len(AREAS)
    for name, results in graded.items():
        cells = (_cell([each for each in results if each.check.area == area]) for area in AREAS)
        yield f"| {titles[name]} | {' | '.join(cells)} |"
    yield ""
    for name, results in graded.items():
        failed = [each.check.name for each in results if each.judgement.verdict is Verdict.FAIL]
        if failed:
            yield f"- {titles[name]} fails {', '.join(f'`{check}`' for check in failed)}."


def _cell(results: Sequence[Result]) -> str:
    """How many there are of each verdict."""
    numbers = counts(results).items()
    return ", ".join(f"{number} {verdict.value}" for verdict, number in numbers if number)


def listing() -> Iterator[str]:
    """Every check: what it is called, what it goes by, and what is expected."""
    yield "| check | clause | Autobahn | expected |"
    yield "|---|---|---|---|"
    for check in (*CHECKS, *STRESS):
        yield f"| `{check.name}` | {check.clause} | {check.autobahn} | {check.expected} |"


def written(page: str, part: str, lines: Iterator[str]) -> str:
    """The page with these lines between the marks of that part."""
    begin, end = f"<!-- {part} -->\n", f"<!-- /{part} -->\n"
    before, _, rest = page.partition(begin)
    return before + begin + "".join(f"{line}\n" for line in lines) + end + rest.partition(end)[2]


def main() -> None:
    """Grade them all; print the table, or write it."""
    lines = list(report({name: grade(server) for name, (server, _) in PEERS.items()}))
    if "--write" in sys.argv[1:]:
        page = written(PAGE.read_text(), "peers", iter(lines))
        PAGE.write_text(written(page, "checks", listing()))
    else:
        sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
