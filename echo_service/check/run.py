"""Does the checks, several at a time, and gives the results in the order of the tables."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

from echo_service.check import (
    closing,
    control,
    deflate,
    fragmentation,
    framing,
    handshake,
    order,
    stress,
    utf8,
)
from echo_service.check.client import NotOpenedError, Trial
from echo_service.check.endpoint import UnreachableError
from echo_service.check.judge import Judgement, Verdict
from echo_service.check.quick import greetings
from echo_service.check.row import Check, DecidedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from echo_service.check.endpoint import Endpoint
    from echo_service.check.transcript import Passed

CHECKS: Final = (
    *handshake.CHECKS,
    *framing.CHECKS,
    *fragmentation.CHECKS,
    *order.CHECKS,
    *utf8.CHECKS,
    *control.CHECKS,
    *closing.CHECKS,
    *deflate.CHECKS,
)
STRESS: Final = stress.CHECKS

_TOLD: Final = 1000
"""Characters of what was observed, and why, that are told."""

_AT_ONCE: Final = 8
"""Checks at a time: few enough for any server, and enough for one that keeps them waiting."""


class Result(NamedTuple):
    """What became of a check, in how many seconds, and the bytes of each of its connections."""

    check: Check
    judgement: Judgement
    seconds: float
    transcripts: Sequence[Sequence[Passed]]


def select(patterns: Sequence[str], *, stressful: bool) -> list[Check]:
    """The checks whose name or area one of the patterns matches; all where there is none."""
    checks = [*CHECKS, *(STRESS if stressful else ())]
    names = [(check, (check.name, check.area)) for check in checks]
    return [
        check
        for check, known in names
        if not patterns
        or any(fnmatch.fnmatchcase(name, pattern) for name in known for pattern in patterns)
    ]


async def run(
    endpoint: Endpoint,
    checks: Sequence[Check],
    patience: float,
    done: Callable[[Result], None] = lambda _: None,
) -> list[Result]:
    """The results, in the order of the checks; ``done`` is told each as soon as it is there.

    Each check has ``patience`` seconds.  Those that are ``alone`` come last, one at a time:
    others would be graded by what they do.  Raises `UnreachableError` where there is no connection.
    """
    expected = await _greetings(endpoint, patience)
    results: dict[Check, Result] = {}

    async def grade(check: Check) -> None:
        results[check] = await do(check, Trial(endpoint, patience, expected))
        done(results[check])

    limiter = trio.CapacityLimiter(_AT_ONCE)

    async def do_in_turn(check: Check) -> None:
        async with limiter:
            await grade(check)

    async with trio.open_nursery() as nursery:
        for check in checks:
            if not check.alone:
                nursery.start_soon(do_in_turn, check)
    for check in checks:
        if check.alone:
            await grade(check)
    return [results[check] for check in checks]


async def _greetings(endpoint: Endpoint, patience: float) -> int:
    """How many messages come before the first echo; raises `UnreachableError`."""
    trial = Trial(endpoint, patience)
    try:
        client = await trial.open()
        found = await greetings(client)
        await client.leave()
    except NotOpenedError as error:
        raise UnreachableError(str(error)) from error
    finally:
        await trial.aclose()
    return found or 0


async def do(check: Check, trial: Trial) -> Result:
    """Do one check, and close its connections."""
    began = trio.current_time()
    try:
        judgement = await check.steps(trial)
    except DecidedError as error:
        judgement = error.judgement
    except NotOpenedError as error:
        judgement = Judgement(Verdict.FAIL, str(error), "a valid opening handshake was refused")
    except UnreachableError as error:
        judgement = Judgement(Verdict.FAIL, f"no connection: {error}", "there was one before")
    finally:
        await trial.aclose()
    judgement = Judgement(judgement.verdict, *map(_short, judgement[1:]))
    transcripts = [client.transcript.passed for client in trial.clients]
    return Result(check, judgement, trio.current_time() - began, transcripts)


def _short(text: str) -> str:
    """A text that a peer may have had a part in, or its beginning and its size."""
    return text if len(text) <= _TOLD else f"{text[:_TOLD]}… of {len(text)} characters"
