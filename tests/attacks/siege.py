"""An attack, what it must not do, and what it was seen to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio

from tests.attacks import process
from tests.attacks.service import LANE, LIMIT, MIB, Service, Way
from tests.conftest import PATIENCE, eventually

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Awaitable, Callable, Iterable

    from _pytest.mark import ParameterSet

GROWTH = 2 * LIMIT + 2 * MIB
"""Bytes by which one attacking connection may make the service grow."""

KEPT = 4 * MIB
"""Bytes that may be kept: above so much glibc gives free memory back (`echo_service.process`)."""

DELAY = 0.1
"""Seconds within which the witness has its echo, meanwhile."""

TRIES = 3
"""Times that an attack is made where more is kept or the echo comes later.  What a thousand
connections took may stay with the allocators, to be used again, but what lasts grows each time;
and on a busy machine both of the times by which the witness judges may be too long at once, but
not each time."""


class Attack(NamedTuple):
    """A row: ``name`` is its identifier in docs/security.md, ``seen`` who has suffered it.

    ``act`` attacks a service and asserts what comes back, in each of the ``ways``.
    """

    name: str
    seen: str
    act: Callable[[Service], Awaitable[None]]
    ways: tuple[Way, ...] = (LANE,)
    growth: int = GROWTH

    @property
    def kept(self) -> int:
        """Bytes that may be kept: many connections leave more gaps between what is in use."""
        return max(KEPT, self.growth // 16)


def ways(attacks: Iterable[Attack]) -> list[ParameterSet]:
    """Each attack in each of its ways, for parametrizing."""
    return [
        pytest.param(attack, way, id=", ".join(filter(None, (attack.name, way.name))))
        for attack in attacks
        for way in attack.ways
    ]


class Figures(NamedTuple):
    """What was measured while an attack went on."""

    name: str
    seen: str
    way: str
    growth: int
    kept: int
    cpu: float
    delay: float
    echoes: int


class Siege:
    """A service that is attacked again and again, and a witness who is connected throughout."""

    def __init__(self, service: Service, witness: subprocess.Popen[str]) -> None:
        self.service = service
        self._witness = witness
        self.ask()

    def ask(self) -> tuple[float, int]:
        """The witness' longest delay since it was last asked, and of how many echoes."""
        assert self._witness.stdin
        assert self._witness.stdout
        self._witness.stdin.write("\n")
        delay, echoes = self._witness.stdout.readline().split()
        return float(delay), int(echoes)

    def ends(self) -> int:
        """The witness goes, and then the service; returns its exit code."""
        self._witness.communicate()
        return self.service.ends()

    async def stand(self, attack: Attack) -> Figures:
        """Attack the service, and see it stand."""
        for _ in range(TRIES):
            figures = await self._once(attack)
            if figures.delay <= DELAY and figures.kept <= attack.kept:
                break
        assert figures.delay <= DELAY, f"the witness' echo took {1000 * figures.delay:.0f} ms"
        assert figures.kept <= attack.kept, f"{figures.kept / MIB:.1f} MiB kept"
        return figures

    async def _once(self, attack: Attack) -> Figures:
        service, pid = self.service, self.service.pid
        files, logged = service.files, len(service.log())
        before, used = process.memory(pid), process.cpu(pid)
        process.forget_peak(pid)
        self.ask()
        with trio.fail_after(PATIENCE):
            await attack.act(service)
            await eventually(lambda: service.files == files)
        delay, echoes = self.ask()
        growth = process.memory(pid, "VmHWM") - before
        kept = process.memory(pid) - before
        used = process.cpu(pid) - used
        assert growth <= attack.growth, f"{growth / MIB:.1f} MiB more at the peak"
        assert service.process.poll() is None
        assert_logged_well(service, logged)
        names = attack.name, attack.seen, service.way.name
        return Figures(*names, growth, kept, used, delay, echoes)


def assert_logged_well(service: Service, since: int = 0) -> None:
    """Nothing of ours has failed, by the log from so many bytes on, and each line is ours."""
    lines = service.lines(since)
    assert not [line for line in lines if line["event"] == "connection.failed"], lines
    assert "Traceback" not in service.log(since)
