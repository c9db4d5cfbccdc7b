"""How much memory the service takes at most, by the figures in docs/limits.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

KIB = 1024
MIB = 1024 * KIB

PROCESS = 43 * MIB
"""One process with a second address that has served and serves nobody now."""

IDLE = 52 * KIB
"""An open connection with compression, which takes the most, between two messages."""


def idle(variables: Mapping[str, str]) -> int:
    """With all connections open that these variables allow, and no message under way."""
    return PROCESS + int(variables["ECHO_SERVICE_MAX_CONNECTIONS"]) * IDLE


def most(variables: Mapping[str, str]) -> int:
    """The same, while each of them holds a largest message, of which there are two copies."""
    held = 2 * int(variables["ECHO_SERVICE_MAX_MESSAGE_SIZE"])
    return idle(variables) + int(variables["ECHO_SERVICE_MAX_CONNECTIONS"]) * held


def fits(variables: Mapping[str, str], limit: int) -> bool:
    """Whether the most leaves a fifth of the limit to the kernel's buffers of the sockets."""
    return most(variables) <= 0.8 * limit
