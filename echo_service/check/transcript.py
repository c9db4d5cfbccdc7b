"""The bytes that went by on a connection, as far as they are kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

_KEPT: Final = 128 * 1024
"""Bytes that are kept of each direction: some more than ordinary checks exchange."""


@dataclass(slots=True)
class Passed:
    """Bytes in a row, ``>`` to the peer or ``<`` from it, or ``=``: words about it.

    ``data`` are the first of them, ``size`` is how many there were.
    """

    direction: str
    data: bytearray
    size: int


class Transcript:
    """What has passed, in its order: the first of the bytes, and how many there were."""

    def __init__(self) -> None:
        self.passed: list[Passed] = []
        self._kept: Counter[str] = Counter()

    def add(self, direction: str, data: bytes) -> None:
        """Note what passes."""
        if not self.passed or self.passed[-1].direction != direction:
            self.passed.append(Passed(direction, bytearray(), 0))
        last = self.passed[-1]
        kept = data[: max(0, _KEPT - self._kept[direction])]
        last.data += kept
        last.size += len(data)
        self._kept[direction] += len(kept)
