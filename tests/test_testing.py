"""What the package offers to the tests of others: a server in a thread, and a fixture."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import pytest
import trio
from websockets.sync.client import connect as websocket

from echo_service import Config, ConfigError, Ending, Server, testing
from echo_service.listeners import BindError
from echo_service.testing import RunningServer, running
from tests import wire

pytestmark = pytest.mark.usefixtures("in_time")

pytest_plugins = ["pytester"]


def test_server_in_a_thread_serves_a_client_that_is_not_of_trio():
    with running() as server:
        (url,) = server.urls
        assert url.startswith("ws://127.0.0.1:")
        with websocket(url) as client:
            client.send("hello")
            assert client.recv() == "hello"
            assert server.statistics().connections == 1


def test_options_are_those_of_config():
    with (
        running(max_message_size=4, compression=False) as server,
        websocket(*server.urls) as client,
    ):
        client.send("12345")
        with pytest.raises(Exception, match="1009"):
            client.recv()
    with pytest.raises(ConfigError, match="max_message_size"), running(max_message_size=0):
        pytest.fail("it runs")


def test_drain_closes_and_the_statistics_can_still_be_asked_for():
    with running(drain_code=1012) as server, websocket(*server.urls) as client:
        server.drain()
        server.drain()
        with pytest.raises(Exception, match="1012"):
            client.recv()
        assert server.statistics().endings == {Ending.DRAINING: 1}


def test_the_statistics_can_be_asked_for_after_the_end():
    with running() as server, websocket(*server.urls) as client:
        client.close()
    assert server.statistics().connections_total == 1


def test_end_of_the_block_ends_the_thread_and_its_sockets():
    def threads() -> int:
        return sum(each.name.startswith("echo-service") for each in threading.enumerate())

    with running() as server:
        assert threads() == 1
    assert threads() == 0
    host, _, port = server.urls[0].removeprefix("ws://").rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


def test_what_the_block_raises_is_raised():
    with pytest.raises(LookupError, match="theirs"), running():
        raise LookupError("theirs")


def test_what_starting_raises_is_raised():
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = "127.0.0.1:{1}".format(*other.getsockname())
        with pytest.raises(BindError, match=address), running(bind=[address]):
            pytest.fail("it runs")


def test_what_serving_raises_is_raised(monkeypatch):
    async def break_down(config: Config, *, task_status: trio.TaskStatus[Server]) -> None:
        task_status.started(Server(config))
        raise LookupError("ours")

    def use_until_it_has_ended(server: RunningServer) -> None:
        with suppress(trio.RunFinishedError):
            while True:
                server.statistics()

    monkeypatch.setattr(testing, "serve", break_down)
    with pytest.raises(LookupError, match="ours"), running() as server:
        use_until_it_has_ended(server)


# The pytest plugin


async def test_fixture_is_a_running_server(echo_server, connect):
    assert isinstance(echo_server, Server)
    client = await connect(echo_server)
    await client.open()
    await client.echo()


@pytest.mark.echo_service(max_message_size=4, drain_code=1012)
class TestMarker:
    async def too_big(self, server: Server, connect, size: int) -> bool:
        client = await connect(server)
        await client.open()
        await client.send(wire.frame(wire.BINARY, bytes(size)))
        got = await client.frame()
        return got.opcode == wire.CLOSE and got.payload[:2] == b"\x03\xf1"

    async def test_sets_options(self, echo_server, connect):
        assert not await self.too_big(echo_server, connect, 4)
        assert await self.too_big(echo_server, connect, 5)

    @pytest.mark.echo_service(max_message_size=5)
    async def test_nearest_to_the_test_wins(self, echo_server, connect):
        assert not await self.too_big(echo_server, connect, 5)
        assert await self.too_big(echo_server, connect, 6)
        assert echo_server._config.drain_code == 1012


def test_marker_is_known_and_a_wrong_option_fails_the_test(pytester: pytest.Pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.trio
        async def test_default(echo_server):
            assert echo_server.urls

        @pytest.mark.trio
        @pytest.mark.echo_service(max_message_size=0)
        async def test_wrong(echo_server):
            assert echo_server.urls

        @pytest.mark.trio
        @pytest.mark.echo_service(1024)
        async def test_nameless(echo_server):
            assert echo_server.urls
        """
    )
    result = pytester.runpytest_inprocess("--strict-markers", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["*ConfigError: max_message_size: 0 can't be used*"])
    result.stdout.fnmatch_lines(["*takes options by name: (1024,)*"])
    result = pytester.runpytest_inprocess("--markers")
    result.stdout.fnmatch_lines(["*@pytest.mark.echo_service(?*options):*"])
