"""Metrics: the contract's names, with the numbers that were counted."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from echo_service.counts import Counts
from echo_service.metrics import Metrics

CONTRACT = {
    "echo_service_connections": ("gauge", set()),
    "echo_service_connections_total": ("counter", set()),
    "echo_service_handshakes_refused_total": ("counter", {"status"}),
    "echo_service_messages_total": ("counter", {"type"}),
    "echo_service_received_bytes_total": ("counter", set()),
    "echo_service_sent_bytes_total": ("counter", set()),
    "echo_service_closes_total": ("counter", {"ending", "received", "sent"}),
    "echo_service_connection_duration_seconds_bucket": ("histogram", {"le"}),
    "echo_service_stall_seconds_total": ("counter", set()),
    "echo_service_ping_rtt_seconds_bucket": ("histogram", {"le"}),
}


def served(counts: Counts, *pids: int) -> dict[str, object]:
    """What Prometheus reads: the families by the names of their samples."""
    answer = Metrics(lambda: counts, lambda: pids, lambda: 1000.0).answer()
    assert answer.status == 200
    ((name, value),) = answer.headers
    assert (name, value.partition(";")[0]) == ("Content-Type", "text/plain")
    return {
        sample.name: family
        for family in text_string_to_metric_families(answer.body)
        for sample in family.samples
    }


def values(family) -> dict[tuple[str, ...], float]:
    return {tuple(each.labels.values()): each.value for each in family.samples}


@pytest.fixture
def counts() -> Counts:
    counts = Counts(connections=1, connections_total=9, texts=2, binaries=3, octets=77, stalled=0.5)
    counts.closes["peer_closed", "1000", "1000"] = 4
    counts.closes["bad_code", "invalid", "1002"] = 1
    counts.refused[426] = 2
    counts.durations.observe(0.05)
    counts.durations.observe(30)
    counts.round_trips.observe(0.002)
    return counts


def test_every_name_of_the_contract_is_served(counts):
    families = served(counts)
    found = {}
    for name in CONTRACT:
        labels = {label for each in families[name].samples for label in each.labels}
        found[name] = (families[name].type, labels)
    assert found == CONTRACT


def test_every_name_that_is_ours_stands_in_the_readme(counts):
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    samples = [name for name in served(counts) if name.startswith("echo_service_")]
    ours = [re.sub("_(bucket|sum|count|created)$", "", name) for name in samples]
    assert [name for name in ours if f"`{name}" not in readme] == []


def test_a_number_is_the_one_that_was_counted(counts):
    families = served(counts)
    assert values(families["echo_service_connections"]) == {(): 1}
    assert values(families["echo_service_connections_total"]) == {(): 9}
    assert values(families["echo_service_messages_total"]) == {("text",): 2, ("binary",): 3}
    assert values(families["echo_service_received_bytes_total"]) == {(): 77}
    assert values(families["echo_service_sent_bytes_total"]) == {(): 77}
    assert values(families["echo_service_handshakes_refused_total"]) == {("426",): 2}
    assert values(families["echo_service_stall_seconds_total"]) == {(): 0.5}
    assert values(families["echo_service_closes_total"]) == {
        ("peer_closed", "1000", "1000"): 4,
        ("bad_code", "invalid", "1002"): 1,
    }


def test_a_histogram_adds_up_its_buckets(counts):
    family = served(counts)["echo_service_connection_duration_seconds_bucket"]
    buckets = {
        each.labels["le"]: each.value for each in family.samples if each.name.endswith("_bucket")
    }
    assert (buckets["0.1"], buckets["10.0"], buckets["60.0"], buckets["+Inf"]) == (1, 1, 2, 2)
    rest = {each.name: each.value for each in family.samples if "le" not in each.labels}
    assert rest["echo_service_connection_duration_seconds_sum"] == 30.05
    assert rest["echo_service_connection_duration_seconds_count"] == 2


def test_what_is_told_of_processes_is_added_up(counts):
    one = served(counts, os.getpid())
    two = served(counts, os.getpid(), os.getpid())
    name = "process_virtual_memory_bytes"
    assert values(two[name])[()] == pytest.approx(2 * values(one[name])[()], rel=0.1)
    for name in ("process_start_time_seconds", "process_max_fds", "process_open_fds"):
        assert values(two[name])[()] == pytest.approx(values(one[name])[()], abs=5)


def test_what_processes_that_have_ended_took_still_counts(counts):
    assert values(served(counts, os.getpid())["process_cpu_seconds_total"])[()] > 1000


def test_a_process_that_has_ended_is_left_out(counts):
    gone = 2**22 + 1  # above the largest pid there is
    assert served(counts, os.getpid(), gone).keys() == served(counts, os.getpid()).keys()
