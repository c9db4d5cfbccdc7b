"""Counts: plain numbers that add up, and travel."""

from __future__ import annotations

import json

import pytest

from echo_service import policy
from echo_service.counts import Counts, Histogram, code_label


@pytest.mark.parametrize(
    "code, label",
    [
        (None, "none"),
        (0, "invalid"),
        (999, "invalid"),
        (1000, "1000"),
        (1003, "1003"),
        (1004, "invalid"),
        (1005, "1005"),  # a Close without a code
        (1006, "1006"),  # no Close
        (1014, "1014"),
        (1015, "invalid"),
        (2999, "invalid"),
        (3000, "3000"),
        (4999, "4999"),
        (5000, "invalid"),
        (65535, "invalid"),
    ],
)
def test_a_code_that_no_close_may_have_is_counted_as_invalid(code, label):
    assert code_label(code) == label


@pytest.mark.parametrize("code", [1005, 1006])
def test_a_code_that_only_stands_for_something_is_invalid_where_it_was_sent(code: int):
    assert code_label(code, policy.closed(code.to_bytes(2, "big")).rule) == "invalid"
    assert code_label(code, policy.violated(policy.Violation.UNMASKED).rule) == str(code)


def test_a_value_at_a_bound_belongs_to_the_bucket_below_it():
    histogram = Histogram((1, 2))
    for value in (0.5, 1, 1.5, 2, 2.5):
        histogram.observe(value)
    assert histogram.buckets == [2, 2, 1]
    assert histogram.total == 7.5


def counted(times):
    counts = Counts(connections=times, connections_total=2 * times, texts=3 * times)
    counts.binaries, counts.octets, counts.stalled = 4 * times, 5 * times, 0.5 * times
    counts.closes["peer-closed", "1000", "1000"] = times
    counts.refused[400] = times
    for _ in range(times):
        counts.durations.observe(1.0)
        counts.round_trips.observe(0.25)
    return counts


def test_counts_add_up():
    assert counted(1).add(counted(2)).to_json() == counted(3).to_json()


def test_counts_travel_as_json():
    there = json.loads(json.dumps(counted(3).to_json()))
    assert Counts.from_json(there).to_json() == counted(3).to_json()
