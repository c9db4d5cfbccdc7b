"""The open connections of one server: the cap on them, and what they counted.

Pure book-keeping: it knows no clock, no socket and no trio.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from echo_service.counts import Counts, code_label
from echo_service.policy import Ending

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one connection ended, and what it carried.

    ``status`` is that of the HTTP answer: 101 for a WebSocket connection, None where
    none was given.  ``received_code`` and ``sent_code`` are those of the two Closes:
    1005 for a Close without a code, 1006 where TCP ended without one, None where none
    was sent or looked for.  ``rule`` is the clause that the peer broke.  ``texts`` and
    ``binaries`` count the messages echoed, ``octets`` their payload bytes, inflated:
    as many were received as were sent.
    """

    ending: Ending
    status: int | None = None
    received_code: int | None = None
    sent_code: int | None = None
    rule: str | None = None
    texts: int = 0
    binaries: int = 0
    octets: int = 0
    duration: float = field(default=0.0, compare=False)
    """Seconds from accept to the end."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """A snapshot of a server's counts since it began; its mappings are read-only."""

    connections: int
    """WebSocket connections open now."""
    connections_total: int
    """WebSocket connections opened, those open now included."""
    texts: int
    """Text messages echoed, those of the open connections included."""
    binaries: int
    """Binary messages, the same."""
    octets: int
    """Payload bytes of all these, inflated, counted once."""
    endings: Mapping[Ending, int]
    received_codes: Mapping[int | None, int]
    sent_codes: Mapping[int | None, int]
    refused: Mapping[int, int]
    """Handshakes and other requests refused, by status."""

    @property
    def messages(self) -> int:
        """Messages echoed, of both types."""
        return self.texts + self.binaries


class Member(Protocol):
    """What the registry asks of an open connection."""

    @property
    def carried(self) -> tuple[int, int, int]:
        """Text messages, binary messages and their payload bytes that were echoed so far."""

    def outcome(self) -> Outcome:
        """How it has ended."""


class Registry:
    """Who is connected; ``draining`` is set once and lets nobody in any more.

    ``counts`` are those of the connections that have ended; what their tasks count beside
    that, they add themselves.
    """

    def __init__(self, max_connections: int) -> None:
        self.max_connections = max_connections
        self.draining = False
        self.counts = Counts()
        self._open: set[Member] = set()
        self._endings: Counter[Ending] = Counter()
        self._received: Counter[int | None] = Counter()
        self._sent: Counter[int | None] = Counter()

    def __len__(self) -> int:
        """How many WebSocket connections are open."""
        return len(self._open)

    @property
    def closed_because(self) -> str | None:
        """Why nobody is let in now; None where somebody would be."""
        if self.draining:
            return "the service is draining"
        if len(self._open) >= self.max_connections:
            return f"the service is full: it takes {self.max_connections} at a time"
        return None

    def enter(self, member: Member) -> None:
        """Count a connection whose opening handshake is accepted."""
        self._open.add(member)
        self.counts.connections_total += 1

    def leave(self, member: Member) -> Outcome:
        """Count a connection that has ended, whether it had entered or not."""
        outcome = member.outcome()
        if member in self._open:
            self._open.remove(member)
            self._count(outcome)
        elif outcome.ending is Ending.REFUSED and outcome.status is not None:
            self.counts.refused[outcome.status] += 1
        return outcome

    def _count(self, outcome: Outcome) -> None:
        self._endings[outcome.ending] += 1
        self._received[outcome.received_code] += 1
        self._sent[outcome.sent_code] += 1
        received = code_label(outcome.received_code, outcome.rule)
        sent = code_label(outcome.sent_code)
        self.counts.closes[outcome.ending.value, received, sent] += 1
        self.counts.durations.observe(outcome.duration)
        self.counts.texts += outcome.texts
        self.counts.binaries += outcome.binaries
        self.counts.octets += outcome.octets

    def snapshot(self) -> Counts:
        """The counts as they are now, with those of the open connections."""
        counts = Counts().add(self.counts)
        counts.connections = len(self._open)
        for member in self._open:
            texts, binaries, octets = member.carried
            counts.texts += texts
            counts.binaries += binaries
            counts.octets += octets
        return counts

    def statistics(self) -> Statistics:
        """The same for an embedding program."""
        counts = self.snapshot()
        return Statistics(
            connections=counts.connections,
            connections_total=counts.connections_total,
            texts=counts.texts,
            binaries=counts.binaries,
            octets=counts.octets,
            endings=MappingProxyType(dict(self._endings)),
            received_codes=MappingProxyType(dict(self._received)),
            sent_codes=MappingProxyType(dict(self._sent)),
            refused=MappingProxyType(dict(counts.refused)),
        )
