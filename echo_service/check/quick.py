"""The health check: connect, one echo, and the closing handshake."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from echo_service.check import wire
from echo_service.check.client import NotOpenedError, Trial
from echo_service.check.endpoint import UnreachableError
from echo_service.check.wire import CLOSE, TEXT

if TYPE_CHECKING:
    from echo_service.check.client import Client
    from echo_service.check.endpoint import Endpoint

MESSAGE: Final = b"echo-service check"
_GREETINGS: Final = 3
"""Messages that may come before the echo, from a server that greets."""


async def quick(endpoint: Endpoint, patience: float) -> str:
    """What is wrong with the endpoint, in words; empty where nothing is.

    It takes ``patience`` seconds at most.  Raises `UnreachableError` where there is no connection.
    """
    trial = Trial(endpoint, patience)
    try:
        return await _wrong(await trial.open())
    except NotOpenedError as error:
        raise UnreachableError(str(error)) from error
    finally:
        await trial.aclose()


async def _wrong(client: Client) -> str:
    if await greetings(client) is None:
        return "a message did not come back"
    await client.send(wire.close(1000))
    while frame := await client.frame():
        if frame.opcode == CLOSE:
            return ""
    return "a Close was not answered"


async def greetings(client: Client) -> int | None:
    """How many messages come before the echo of the first; None where it does not come."""
    await client.send(wire.frame(TEXT, MESSAGE))
    for count in range(_GREETINGS + 1):
        if await client.message() == MESSAGE:
            return count
    return None
