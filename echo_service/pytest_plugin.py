"""The pytest plugin: the fixture ``echo_server``, for tests that run under pytest-trio."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from echo_service.server import Server, serve
from echo_service.testing import options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MARKER = "echo_service"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    words = "options of the server that the fixture echo_server runs, as those of Config"
    config.addinivalue_line("markers", f"{MARKER}(**options): {words}")


@pytest.fixture
async def echo_server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    """A running `echo_service.Server` on a free port of 127.0.0.1, for one test.

    ``@pytest.mark.echo_service(max_message_size=1024)`` sets options; of two markers with the
    same one, the nearest to the test wins.  The server is stopped at once in the end.
    """
    given: dict[str, object] = {}
    for marker in reversed(list(request.node.iter_markers(MARKER))):
        if marker.args:
            raise pytest.UsageError(f"@pytest.mark.{MARKER} takes options by name: {marker.args!r}")
        given |= marker.kwargs
    config = options(**given)
    async with trio.open_nursery() as nursery:
        yield await nursery.start(serve, config)
        nursery.cancel_scope.cancel()
