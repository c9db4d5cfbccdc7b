"""A run under load, and what comes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from tests.conftest import eventually
from tests.soak.crowd import HANGS, Crowd
from tests.soak.service import Service, watched
from tests.soak.slope import Sample, second_half, slope

if TYPE_CHECKING:
    from pathlib import Path

    from tests.soak.crowd import Tally

BOUND = 10 * 1024
"""Bytes a second that the memory may grow in the second half: a KiB with each that goes."""

BOUND_WARMING_UP = 100 * 1024
"""The same where the second half is part of the warm-up: half of what a connection takes."""

WARM_UP = 300
"""Seconds after which the allocators have, even on a busy machine, what they have in the end."""

A_SECOND = 10
"""Connections that go each second, and as many that come."""


class State(NamedTuple):
    """What a service has of each."""

    tasks: int
    files: int
    objects: int
    memory: int

    @classmethod
    async def of(cls, service: Service) -> State:
        """What it has now."""
        tasks, memory = (await service.counts())["tasks"], service.memory
        return cls(tasks, service.files, await service.objects(), memory)


class Figures(NamedTuple):
    """What was seen: before the first connection, with all of them, and after the last."""

    seconds: int
    held: int
    tally: Tally
    counts: dict[str, Any]
    before: State
    full: State
    after: State
    slope: float
    """Bytes a second that the memory grew in the second half of the seconds."""
    cpu: float
    log: list[dict[str, object]]


def bound(seconds: int) -> int:
    """What the slope may be after so many seconds."""
    return BOUND if seconds / 2 >= WARM_UP else BOUND_WARMING_UP


async def soak(directory: Path, *, seconds: int, held: int, leak: int = 0) -> Figures:
    """Load a service for so many seconds with so many connections; all of them have gone then."""
    samples: list[Sample] = []
    async with watched(directory, SOAK_LEAK=str(leak)) as service:
        port = await service.starts()
        before = await State.of(service)
        async with trio.open_nursery() as clients:
            crowd = Crowd(port, clients)
            crowd.come(held)
            await eventually(lambda: len(crowd) == held)
            crowd.begun.set()
            async with trio.open_nursery() as sampling:
                sampling.start_soon(sample, service, samples)
                await exchange(crowd, seconds)
                sampling.cancel_scope.cancel()
            await eventually(lambda: len(crowd) == held)
            await quiet(service, held, before.tasks + held)
            full = await State.of(service)
            crowd.go()
        counts = await quiet(service, 0, before.tasks)
        after, cpu = await State.of(service), service.cpu
        assert await service.ends() == 0
        log = service.lines()
    growth = slope(second_half(samples))
    return Figures(seconds, held, crowd.tally, counts, before, full, after, growth, cpu, log)


async def sample(service: Service, samples: list[Sample]) -> None:
    """Measure the memory, each second."""
    while True:
        samples.append(Sample(trio.current_time(), service.memory))
        await trio.sleep(1)


async def exchange(crowd: Crowd, seconds: int) -> None:
    """Have some clients go, and as many come, each second."""
    begun = trio.current_time()
    for number in range(A_SECOND * seconds):
        await trio.sleep_until(begun + number / A_SECOND)
        crowd.exchange()


async def quiet(service: Service, connections: int, tasks: int) -> dict[str, Any]:
    """The service's counts, once it has so many connections and tasks and nobody is on the way.

    The last ones, if that does not come to pass.
    """
    counts: dict[str, Any] = {}
    with trio.move_on_after(HANGS):
        while (counts.get("connections"), counts.get("tasks")) != (connections, tasks):
            await trio.sleep(0.1)
            counts = await service.counts()
    return counts


def rows(figures: Figures) -> list[tuple[str, str]]:
    """The figures in words, as a table has them."""
    tally, before, full, after = figures.tally, figures.before, figures.full, figures.after
    states = before, full, after
    return [
        ("seconds under load", f"{figures.seconds}"),
        ("connections held", f"{figures.held:,}"),
        ("connections opened in all", f"{tally.opened:,}"),
        ("echoes compared", f"{tally.echoes:,}"),
        (
            "of messages that were deflated, in fragments",
            f"{tally.deflated:,}, {tally.fragmented:,}",
        ),
        ("bytes in these, inflated", f"{tally.octets:,}"),
        ("echoes lost", f"{tally.sent - tally.echoes:,}"),
        ("pings answered", f"{tally.pings:,}"),
        ("slope of the memory in the second half", f"{figures.slope:.0f} B/s"),
        ("tasks before, full, after", ", ".join(f"{each.tasks:,}" for each in states)),
        ("files before, full, after", ", ".join(f"{each.files:,}" for each in states)),
        ("memory before, full, after", ", ".join(f"{each.memory >> 20} MiB" for each in states)),
        ("CPU time of the service", f"{figures.cpu:.0f} s"),
    ]
