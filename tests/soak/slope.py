"""Whether a quantity grows: the slope of its samples, which a noisy machine can't tilt."""

from __future__ import annotations

from itertools import combinations
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

NEAR = 1 / 6
"""Of the whole time, how far two samples may be apart that are compared."""


class Sample(NamedTuple):
    """What was measured, and when, in seconds."""

    at: float
    value: float


def slope(samples: Sequence[Sample]) -> float:
    """What is added in a second: the median of the slopes between any two that are near.

    It is the estimate of Theil and Sen, by which one sample in four may be anything, but for
    the pairs far apart: these span what has jumped in between, as the allocators' memory does
    when a machine that stood still makes up for it, and never goes back.  So only a few pairs
    see a jump, and all see what grows all the time, as a leak does.  Raises `ValueError` where
    no two samples are near.
    """
    far = NEAR * (samples[-1].at - samples[0].at) if samples else 0.0
    pairs = [(a, b) for a, b in combinations(samples, 2) if b.at - a.at <= far]
    if not pairs:
        raise ValueError("a slope needs two samples that are near")
    return median((b.value - a.value) / (b.at - a.at) for a, b in pairs)


def second_half(samples: Sequence[Sample]) -> list[Sample]:
    """The samples of the second half of the time that they span."""
    middle = (samples[0].at + samples[-1].at) / 2
    return [each for each in samples if each.at >= middle]
