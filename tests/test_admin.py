"""The second address: metrics and health, and no echo."""

from __future__ import annotations

import pytest
import trio

from echo_service import Config, serve
from tests import wire
from tests.conftest import until

pytestmark = pytest.mark.usefixtures("in_time")


@pytest.fixture
async def operated(nursery, logged):
    """A server with a second address, and that address."""

    async def start(**options):
        config = Config(bind=["127.0.0.1:0"], admin_bind="127.0.0.1:0", **options)
        server = await nursery.start(serve, config)
        await until(lambda: len(listening()) == 2)
        return server, str(listening()[1]["url"])

    def listening():
        return [line.fields for line in logged() if line.event == "server.listening"]

    return start


@pytest.fixture
def ask(connect):
    """Ask for something on an address; returns the status and the body."""

    async def ask(url: str, target: str, method: str = "GET") -> tuple[int, str]:
        client = await connect(url)
        await client.send(f"{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        head = await client.head()
        return wire.status(head), (await client.rest()).decode()

    return ask


async def test_the_echo_addresses_are_told_first(operated, logged):
    server, url = await operated()
    urls = [line.fields["url"] for line in logged() if line.event == "server.listening"]
    assert urls == [*server.urls, url]
    assert url.startswith("http://")


async def test_metrics_tell_what_was_echoed_a_moment_ago(operated, ask, connect):
    server, url = await operated()
    client = await connect(server)
    await client.open()
    await client.echo(b"12345")
    status, body = await ask(url, "/metrics")
    assert status == 200
    assert 'echo_service_messages_total{type="text"} 1.0' in body
    assert "echo_service_received_bytes_total 5.0" in body
    assert "echo_service_connections 1.0" in body
    assert "process_resident_memory_bytes " in body


async def test_a_ping_and_its_pong_are_timed(operated, ask, connect):
    server, url = await operated(ping_interval=0.01)
    client = await connect(server)
    await client.open()
    assert await client.frame() == wire.Frame(wire.PING, b"")
    await client.send(wire.frame(wire.PONG))
    assert await client.frame() == wire.Frame(wire.PING, b"")
    body = (await ask(url, "/metrics"))[1]
    assert "echo_service_ping_rtt_seconds_count 1.0" in body


async def test_what_is_asked_there_is_no_part_of_the_counts(operated, ask):
    server, url = await operated()
    assert (await ask(url, "/chat"))[0] == 404
    assert (await ask(url, "/metrics", "POST"))[0] == 405
    assert server.statistics().refused == {}


async def test_no_request_there_is_an_opening_handshake(operated, connect):
    _, url = await operated()
    client = await connect(url)
    await client.send(wire.request("/"))
    assert wire.status(await client.head()) == 404


@pytest.mark.parametrize("target", ["/metrics", "/readyz", "/healthz"])
async def test_head_has_no_body(operated, ask, target):
    _, url = await operated()
    assert await ask(url, target, "HEAD") == (200, "")


async def test_it_tells_of_a_drain_until_its_end(operated, ask, connect, nursery):
    server, url = await operated()
    client = await connect(server)
    await client.open()
    assert (await ask(url, "/readyz"))[0] == 200
    nursery.start_soon(server.drain)
    await client.frame()
    assert await ask(url, "/readyz") == (503, "not ready\n")
    assert (await ask(url, "/healthz"))[0] == 200
    await client.send(wire.close(1001))
    await client.rest()
    await client.stream.aclose()
    await server.drain()
    with pytest.raises(OSError, match=r"connect"):
        await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2]))


async def test_many_that_ask_and_leave_do_not_fill_it(operated, ask, connect):
    _, url = await operated()
    silent = [await connect(url) for _ in range(15)]
    for _ in range(5):
        assert (await ask(url, "/readyz"))[0] == 200
    assert silent
