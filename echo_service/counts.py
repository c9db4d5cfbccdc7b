"""What a process has counted: plain numbers, which can be added up and sent to another process.

The module is pure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from echo_service import policy

if TYPE_CHECKING:
    from collections.abc import Sequence

DURATIONS: Final = (0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 86400.0)
"""Seconds that connections last: the upper bounds of a histogram's buckets."""

ROUND_TRIPS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Seconds from a ping to what comes after it: the same."""

Close: TypeAlias = tuple[str, str, str]
"""How a connection ended: the ending, and the codes received and sent, as `code_label` has them."""

_RECORDED: Final = (policy.NO_STATUS, policy.ABNORMAL)
"""Codes that stand for a Close without a code, and for none."""


def code_label(code: int | None, rule: str | None = None) -> str:
    """A close code, so that there are few: ``invalid`` for those that no Close may have.

    ``rule`` is the clause that the peer broke: 1005 and 1006 may stand for what did not come, or
    be what it sent.
    """
    if code is None:
        return "none"
    row = policy.row(code)
    return str(code) if row.valid or (code in _RECORDED and rule != row.rule) else "invalid"


class Histogram:
    """How many values there were up to each of some bounds, which rise, and their sum."""

    __slots__ = ("bounds", "buckets", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.buckets = [0] * (len(bounds) + 1)
        """Values up to each bound and above the one before; the last bucket has no bound."""
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add(self, buckets: Sequence[int], total: float) -> None:
        """Count what another one, of the same bounds, has counted."""
        self.buckets = [mine + more for mine, more in zip(self.buckets, buckets, strict=True)]
        self.total += total


@dataclass(slots=True, kw_only=True)
class Counts:
    """The counts of one process, or of several."""

    connections: int = 0
    """WebSocket connections open now."""
    connections_total: int = 0
    """WebSocket connections opened, those open now included."""
    texts: int = 0
    binaries: int = 0
    octets: int = 0
    """Payload bytes of the messages echoed, inflated, counted once."""
    stalled: float = 0.0
    """Seconds that echoes waited for their peers to take them."""
    closes: Counter[Close] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)
    """Handshakes and other requests refused, by status."""
    durations: Histogram = field(default_factory=lambda: Histogram(DURATIONS))
    round_trips: Histogram = field(default_factory=lambda: Histogram(ROUND_TRIPS))

    def add(self, other: Counts) -> Self:
        """Add what another one has counted, and return the sum."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.closes.update(other.closes)
        self.refused.update(other.refused)
        self.durations.add(other.durations.buckets, other.durations.total)
        self.round_trips.add(other.round_trips.buckets, other.round_trips.total)
        return self

    def to_json(self) -> dict[str, Any]:
        """The same in the types that JSON has."""
        return {
            **{name: getattr(self, name) for name in _NUMBERS},
            "closes": [[*close, count] for close, count in self.closes.items()],
            "refused": list(self.refused.items()),
            "durations": [self.durations.buckets, self.durations.total],
            "round_trips": [self.round_trips.buckets, self.round_trips.total],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """What `to_json` has made of it, back."""
        counts = cls(**{name: data[name] for name in _NUMBERS})
        counts.closes.update({(e, r, s): count for e, r, s, count in data["closes"]})
        counts.refused.update(dict(data["refused"]))
        counts.durations.add(*data["durations"])
        counts.round_trips.add(*data["round_trips"])
        return counts


_NUMBERS: Final = tuple(each.name for each in fields(Counts) if each.type in ("int", "float"))
