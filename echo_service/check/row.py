"""A check: a row of a table, and the kinds of rows that most of the tables are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from echo_service.check import judge, wire
from echo_service.check.client import NotOpenedError
from echo_service.check.endpoint import UnreachableError
from echo_service.check.judge import NO_CODE, Item, Judgement, Verdict
from echo_service.check.wire import TEXT, frame

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from echo_service.check.client import Client, Trial

    Steps = Callable[[Trial], Awaitable[Judgement]]


class DecidedError(Exception):
    """The check is decided before its last step: the peer does not offer what it needs, say."""

    def __init__(self, verdict: Verdict, observed: str, why: str = "") -> None:
        super().__init__(observed)
        self.judgement = Judgement(verdict, observed, why)


@dataclass(frozen=True, slots=True)
class Check:
    """A check: ``name`` is AREA.WHAT, ``autobahn`` the case it corresponds to, if any.

    ``steps`` do it, and may raise `NotOpenedError`, `UnreachableError` or `DecidedError`.
    One that is ``alone`` comes after the others: it has brought down servers.
    """

    name: str
    clause: str
    autobahn: str
    expected: str
    steps: Steps
    alone: bool = False

    @property
    def area(self) -> str:
        """What it is about."""
        return self.name.partition(".")[0]


def echoes(
    name: str,
    clause: str,
    sent: Sequence[bytes],
    back: Sequence[Item],
    autobahn: str = "",
    *,
    expected: str = "",
) -> Check:
    """What is sent in these parts is valid, and these messages and pongs come back."""

    async def steps(trial: Trial) -> Judgement:
        client = await trial.open()
        await client.send(*sent)
        judgement = judge.echoed(await client.come(len(back)), back)
        if judgement.verdict is not Verdict.FAIL:
            await client.leave()
        return judgement

    words = expected or ", ".join(map(judge.tell_item, back))
    return Check(name, clause, autobahn, words, steps)


def fails(
    name: str,
    clause: str,
    sent: Sequence[bytes],
    autobahn: str = "",
    *,
    codes: Collection[int] = (1002,),
    before: Sequence[Item] = (),
) -> Check:
    """What is sent is a violation: the connection is failed, after what came ``before``."""

    async def steps(trial: Trial) -> Judgement:
        client = await trial.open()
        await client.send(*sent)
        # One more than is expected is enough to know that it went on.
        return judge.failed(await client.come(len(before) + 1), codes, before)

    close = f"Close {' or '.join(map(str, codes))}"
    words = ", ".join([*map(judge.tell_item, before), close])
    return Check(name, clause, autobahn, words, steps)


def closes(
    name: str,
    clause: str,
    code: int | None,
    autobahn: str = "",
    *,
    reason: bytes = b"",
    before: bytes = b"",
) -> Check:
    """A valid Close is answered with a Close of the same code."""

    async def steps(trial: Trial) -> Judgement:
        client = await trial.open()
        await client.send(before + wire.close(code, reason))
        return judge.closed(await client.come(), NO_CODE if code is None else code)

    words = "a Close" if code is None else f"Close {code}"
    return Check(name, clause, autobahn, words, steps)


_ALIVE: Final = Item(TEXT, b"alive")


def survives(name: str, clause: str, expected: str, steps: Steps, autobahn: str = "") -> Check:
    """Beside these steps another connection goes on, and after them new ones are taken."""

    async def all_steps(trial: Trial) -> Judgement:
        neighbour = await trial.open()
        judgement = await steps(trial)
        if judgement.verdict is Verdict.FAIL:
            return judgement
        try:
            alive = await lives(neighbour) and await lives(await trial.open())
        except (NotOpenedError, UnreachableError):
            alive = False
        if not alive:
            why = "another connection was broken, or no new one is taken"
            return Judgement(Verdict.FAIL, judgement.observed, why)
        return judgement

    return Check(name, clause, autobahn, f"{expected}; others go on", all_steps, alone=True)


async def lives(client: Client) -> bool:
    """Whether an open connection echoes."""
    await client.send(frame(*_ALIVE))
    came = await client.come(1)
    await client.leave()
    return judge.items(came.frames) == [_ALIVE]
