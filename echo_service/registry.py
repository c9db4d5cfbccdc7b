"""The open connections of one server: the cap on them, and what they counted.

Pure book-keeping: it knows no clock, no socket and no trio.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

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

    def outcome(self) -> Outcome:
        """How it ends, or what it carried so far."""


class Registry:
    """Who is connected; ``draining`` is set once and lets nobody in any more."""

    def __init__(self, max_connections: int) -> None:
        self.max_connections = max_connections
        self.draining = False
        self.total = 0
        self._open: set[Member] = set()
        self._ended: list[int] = [0, 0, 0]
        self._endings: Counter[Ending] = Counter()
        self._received: Counter[int | None] = Counter()
        self._sent: Counter[int | None] = Counter()
        self._refused: Counter[int] = Counter()

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
        self.total += 1

    def leave(self, member: Member) -> Outcome:
        """Count a connection that has ended, whether it had entered or not."""
        outcome = member.outcome()
        if member in self._open:
            self._open.remove(member)
            self._endings[outcome.ending] += 1
            self._received[outcome.received_code] += 1
            self._sent[outcome.sent_code] += 1
            self._ended = _sum([self._ended, _carried(outcome)])
        elif outcome.ending is Ending.REFUSED and outcome.status is not None:
            self._refused[outcome.status] += 1
        return outcome

    def statistics(self) -> Statistics:
        """The counts as they are now."""
        carried = [self._ended, *(_carried(member.outcome()) for member in self._open)]
        texts, binaries, octets = _sum(carried)
        return Statistics(
            connections=len(self._open),
            connections_total=self.total,
            texts=texts,
            binaries=binaries,
            octets=octets,
            endings=MappingProxyType(dict(self._endings)),
            received_codes=MappingProxyType(dict(self._received)),
            sent_codes=MappingProxyType(dict(self._sent)),
            refused=MappingProxyType(dict(self._refused)),
        )


def _carried(outcome: Outcome) -> list[int]:
    return [outcome.texts, outcome.binaries, outcome.octets]


def _sum(rows: list[list[int]]) -> list[int]:
    return [sum(column) for column in zip(*rows, strict=True)]
