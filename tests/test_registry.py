"""The registry: who is connected, the cap on them, and the counts."""

from __future__ import annotations

import dataclasses

import pytest

from echo_service.policy import Ending
from echo_service.registry import Outcome, Registry, Statistics

NOTHING = Statistics(
    connections=0,
    connections_total=0,
    texts=0,
    binaries=0,
    octets=0,
    endings={},
    received_codes={},
    sent_codes={},
    refused={},
)


class Member:
    """A connection, as far as the registry can see."""

    def __init__(self, outcome):
        self.present = outcome

    @property
    def carried(self):
        return self.present.texts, self.present.binaries, self.present.octets

    def outcome(self):
        return self.present


def closed(received=1000, sent=1000, **carried):
    return Member(Outcome(Ending.PEER_CLOSED, 101, received, sent, **carried))


def test_a_new_registry_is_empty_and_lets_somebody_in():
    registry = Registry(1)
    assert len(registry) == 0
    assert registry.closed_because is None
    assert registry.statistics() == NOTHING


def test_the_last_place_is_given_away_and_nobody_is_let_in_after_it():
    registry = Registry(2)
    first, second = closed(), closed()
    registry.enter(first)
    assert registry.closed_because is None
    registry.enter(second)
    assert registry.closed_because == "the service is full: it takes 2 at a time"
    registry.leave(first)
    assert registry.closed_because is None


def test_draining_lets_nobody_in_whether_there_is_room_or_not():
    registry = Registry(1)
    registry.draining = True
    assert registry.closed_because == "the service is draining"
    registry.enter(closed())
    assert registry.closed_because == "the service is draining"


def test_leave_returns_the_outcome():
    registry = Registry(1)
    member = closed()
    registry.enter(member)
    assert registry.leave(member) is member.present


def test_what_open_connections_carry_counts_before_they_end():
    registry = Registry(3)
    registry.enter(closed(texts=1, binaries=2, octets=30))
    registry.enter(closed(texts=4, binaries=5, octets=600))
    expected = dataclasses.replace(
        NOTHING, connections=2, connections_total=2, texts=5, binaries=7, octets=630
    )
    assert registry.statistics() == expected
    assert expected.messages == 12


def test_what_ended_connections_carried_stays_counted_once():
    registry = Registry(3)
    members = [
        closed(1000, 1000, texts=1, binaries=2, octets=30),
        closed(1005, 1005, texts=10, octets=5),
        Member(Outcome(Ending.PROTOCOL_ERROR, 101, None, 1002, "RFC 6455 5.1", binaries=1)),
    ]
    for member in members:
        registry.enter(member)
        registry.leave(member)
    assert len(registry) == 0
    assert registry.statistics() == Statistics(
        connections=0,
        connections_total=3,
        texts=11,
        binaries=3,
        octets=35,
        endings={Ending.PEER_CLOSED: 2, Ending.PROTOCOL_ERROR: 1},
        received_codes={1000: 1, 1005: 1, None: 1},
        sent_codes={1000: 1, 1005: 1, 1002: 1},
        refused={},
    )


def test_who_leaves_twice_is_counted_once():
    registry = Registry(1)
    member = closed(texts=1)
    registry.enter(member)
    registry.leave(member)
    once = registry.statistics()
    registry.leave(member)
    assert registry.statistics() == once


@pytest.mark.parametrize(
    "outcome, refused",
    [
        (Outcome(Ending.REFUSED, 400), {400: 1}),
        (Outcome(Ending.REFUSED, 503), {503: 1}),
        (Outcome(Ending.REFUSED), {}),
        (Outcome(Ending.ANSWERED, 200), {}),
        (Outcome(Ending.VANISHED), {}),
    ],
)
def test_who_never_entered_counts_only_if_refused(outcome, refused):
    registry = Registry(1)
    registry.leave(Member(outcome))
    assert registry.statistics() == dataclasses.replace(NOTHING, refused=refused)


def test_a_snapshot_stays_as_it_was_and_cannot_be_written():
    registry = Registry(1)
    before = registry.statistics()
    member = closed()
    registry.enter(member)
    registry.leave(member)
    assert before == NOTHING
    for mapping in (before.endings, before.received_codes, before.sent_codes, before.refused):
        with pytest.raises(TypeError):
            mapping[1000] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.texts = 1


def test_a_snapshot_has_the_few_labels_of_the_codes_and_the_durations():
    registry = Registry(9)
    for received, sent, duration in [
        (1000, 1000, 0.05),
        (0, 1002, 2),
        (65535, 1002, 2),
        (None, 1011, 1e9),
    ]:
        member = Member(Outcome(Ending.PEER_CLOSED, 101, received, sent, duration=duration))
        registry.enter(member)
        registry.leave(member)
    registry.enter(closed(texts=3))
    counts = registry.snapshot()
    assert (counts.connections, counts.connections_total, counts.texts) == (1, 5, 3)
    assert counts.closes == {
        ("peer_closed", "1000", "1000"): 1,
        ("peer_closed", "invalid", "1002"): 2,
        ("peer_closed", "none", "1011"): 1,
    }
    assert counts.durations.buckets == [1, 0, 2, 0, 0, 0, 0, 1]


def test_a_snapshot_is_of_its_moment():
    registry = Registry(1)
    before = registry.snapshot()
    registry.enter(closed())
    assert before.connections_total == 0
