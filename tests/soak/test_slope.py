"""The slope by which the memory is judged: it sees a leak, and no noise."""

from __future__ import annotations

import random

import pytest

from tests.soak.slope import Sample, second_half, slope
from tests.soak.soak import BOUND

KIB = 1024
MIB = 1024 * KIB
LEVEL = 600 * MIB


def samples(grown, seconds=300, noise=16 * KIB):
    """A sample a second of a process that has grown by so much, and of which parts come and go."""
    chance = random.Random(6455)
    return [Sample(at, LEVEL + grown(at) + chance.gauss(0, noise)) for at in range(seconds)]


def test_what_does_not_grow_has_no_slope():
    assert slope([Sample(at, 5.0) for at in range(9)]) == 0
    assert abs(slope(samples(lambda _: 0))) < BOUND / 8


@pytest.mark.parametrize("seconds", [60, 300])
@pytest.mark.parametrize("leak", [12 * KIB, 20 * KIB, 200 * KIB])
def test_what_leaks_is_seen_above_the_noise(leak, seconds):
    seen = slope(samples(lambda at: leak * at, seconds))
    assert seen == pytest.approx(leak, abs=BOUND / 8)
    assert seen > BOUND


def test_a_leak_is_seen_where_memory_is_taken_a_piece_at_a_time():
    piece = 256 * KIB
    assert slope(samples(lambda at: 20 * KIB * at // piece * piece)) > BOUND


def test_a_leak_is_seen_where_samples_are_missing():
    """As where the machine is busy: no two seconds are alike."""
    some = [each for each in samples(lambda at: 20 * KIB * at) if each.at % 7 in {0, 1, 4}]
    assert slope(some) > BOUND


def test_jumps_that_are_not_repeated_all_the_time_are_no_slope():
    """What stands still for seconds has a burst to serve, for which memory is taken."""
    assert abs(slope(samples(lambda at: 5 * MIB * (at // 80)))) < BOUND / 2


def test_a_peak_of_which_nothing_stays_is_no_slope():
    assert abs(slope(samples(lambda at: 50 * MIB * (200 <= at < 250)))) < BOUND / 2


def test_memory_that_is_given_back_has_a_negative_slope():
    assert slope(samples(lambda at: -20 * KIB * at)) < -BOUND


@pytest.mark.parametrize("few", [[], [Sample(0, 1)], [Sample(0, 1), Sample(1, 1)]])
def test_too_few_samples_have_no_slope(few):
    with pytest.raises(ValueError, match="two"):
        slope(few)


def test_the_second_half_is_that_of_the_time():
    uneven = [Sample(at, 0) for at in (0, 1, 2, 3, 4, 9, 10, 20)]
    assert [each.at for each in second_half(uneven)] == [10, 20]
