"""SIGTERM while a thousand are connected, and not all of them mean well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests import wire
from tests.attacks.service import LIMIT, Service, Way, gone_is_fine
from tests.attacks.siege import assert_logged_well
from tests.conftest import PATIENCE, eventually
from tests.wire import BINARY, TEXT, frame

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.attacks

MANY, STALLED, WITHIN = 1000, 10, 300
DRAIN = ("--drain-timeout", "3")
WAYS = [
    Way("plain", DRAIN),
    Way("TLS", DRAIN, tls=True),
    Way("two workers", (*DRAIN, "--workers", "2")),
]


@pytest.fixture(params=WAYS, ids=lambda way: way.name)
def service(request, identity, tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path, request.param, identity)
    yield service
    if service.process.poll() is None:
        service.process.kill()
        service.process.wait()


async def test_every_live_one_gets_the_close_and_the_others_are_cut(service):
    """Some stall and some are in mid-message; who can be closed is closed with 1001."""
    await service.starts()
    opened, closed = [], []

    async def connect(number: int) -> None:
        async with service.client() as client:
            await client.open()
            if number in range(STALLED, STALLED + WITHIN):
                await client.send(frame(TEXT, b"half a message")[:9])
            opened.append(number)
            if number < STALLED:
                await stall(client)
                return
            closed.append(await client.frame())
            await client.send(wire.close(1001))
            assert await client.rest() == b""

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as clients:
            for number in range(MANY):
                clients.start_soon(connect, number)
            await eventually(lambda: len(opened) == MANY)
            service.process.terminate()
        code = await trio.to_thread.run_sync(service.process.wait)
    assert [each.payload[:2] for each in closed] == (MANY - STALLED) * [b"\x03\xe9"]
    assert code == 0
    assert service.lines()[-1]["event"] == "server.stopped"
    assert_logged_well(service)


async def stall(client: wire.Client) -> None:
    """Send, and take nothing, until the connection is cut."""
    with gone_is_fine():
        while True:
            await client.send(frame(BINARY, bytes(LIMIT)))
