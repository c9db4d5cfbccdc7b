"""Fifteen thousand connections at once, ten of them new each second, for minutes."""

from __future__ import annotations

import pytest
import trio

from tests.soak.crowd import HANGS
from tests.soak.soak import A_SECOND, BOUND_WARMING_UP, Figures, bound, soak

pytestmark = pytest.mark.soak

HELD = 15_000

LEAK = 64 * 1024
"""Bytes that a service loses with each connection, where one is made to."""


async def test_it_carries_fifteen_thousand_and_nothing_is_left_of_them(
    room, seconds, tmp_path, seen
):
    """Every byte of every echo is compared by the clients (`tests.soak.crowd`)."""
    with trio.fail_after(HANGS * 6 + 2 * seconds):
        figures = await soak(tmp_path, seconds=seconds, held=HELD)
    seen.append(figures)
    assert figures.tally.opened == HELD + A_SECOND * seconds
    assert_counted_alike(figures)
    assert_nothing_is_left(figures)
    assert figures.slope <= bound(seconds), f"{figures.slope:.0f} B/s more"


def assert_counted_alike(figures: Figures) -> None:
    """What the clients saw is what the service counted, and nobody was refused or failed."""
    tally, counts = figures.tally, figures.counts
    assert tally.sent == tally.echoes
    assert min(tally.deflated, tally.fragmented, tally.pings, tally.texts, tally.binaries) > 0
    for name in ("opened", "texts", "binaries", "octets", "endings"):
        assert counts[name] == getattr(tally, name), name
    assert counts["refused"] == {}
    assert {line["level"] for line in figures.log} == {"info"}


def assert_nothing_is_left(figures: Figures) -> None:
    """A connection has one task and one file, and afterwards there is what there was before."""
    before, full, after = figures.before, figures.full, figures.after
    assert (full.tasks, full.files) == (before.tasks + HELD, before.files + HELD)
    assert (after.tasks, after.files) == (before.tasks, before.files)
    assert full.objects >= 2 * HELD
    assert after.objects <= before.objects + 2  # the lane still names the last one it served


async def test_a_service_that_leaks_is_noticed(tmp_path):
    """That the bound on the slope can be missed."""
    with trio.fail_after(HANGS):
        figures = await soak(tmp_path, seconds=30, held=100, leak=LEAK)
    assert figures.slope > max(BOUND_WARMING_UP, LEAK * A_SECOND / 2)
