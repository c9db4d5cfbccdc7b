"""What Trio does that one would not expect, and that the service is right all the same."""

from __future__ import annotations

import socket

import pytest
import trio
from trio.testing import lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from echo_service import Config, Ending, Outcome, Server, serve, serve_stream, tls
from tests import wire
from tests.conftest import until
from tests.wire import BINARY, frame

pytestmark = pytest.mark.usefixtures("in_time")

LARGE = bytes(1_000_000)


async def test_error_while_a_timeout_is_answered_ends_one_connection(
    serving, autojump_clock, logged
):
    """Nobody is there any more to whom the 408 could be sent."""
    client = serving()
    await client.send(b"GET /")
    client.stream.receive_stream.close()
    assert await client.ends() == Outcome(Ending.REFUSED, 408)
    assert [line.event for line in logged()] == ["handshake.refused"]


async def test_silent_client_on_a_tls_port_ends_one_connection(
    nursery, connect, certificate, mock_clock, logged
):
    """There is no TLS yet that an answer could be sent over."""
    config = Config(bind=["127.0.0.1:0"], **certificate())
    running: Server = await nursery.start(serve, config)
    silent, begun = await connect(running), await connect(running)
    await begun.send(b"\x16\x03\x01\x02")
    await until(lambda: len(running._acceptor.connections) == 2)
    mock_clock.jump(10)
    for client in (silent, begun):
        assert await client.rest() == b""
        await client.stream.aclose()
    await until(lambda: not running._acceptor.connections)
    assert not [line for line in logged() if line.level == "ERROR"]
    await connect(running)
    await until(lambda: running._acceptor.connections)


async def test_cancelled_send_leaves_an_unknown_part_sent_so_no_close_follows(
    serving, autojump_clock
):
    theirs, ours = lockstep_stream_pair()
    with trio.move_on_after(1):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send_all, b"0123456789")
            assert await theirs.receive_some(4) == b"0123"
    assert await theirs.receive_some(100) == b"456789", "cancelled, and yet it comes"

    client = serving(lockstep_stream_pair)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, wire.request())
        await client.opened()
    await client.send(frame(BINARY, LARGE))
    assert (await client.ends()).ending is Ending.STALLED
    got = await client.rest()
    assert (b"\x82\x7f" + len(LARGE).to_bytes(8, "big") + LARGE).startswith(got)


async def test_socket_closed_with_unread_input_is_reset_so_we_read_on(echo_server, connect):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stream = await trio.open_tcp_stream(*listening.getsockname())
        accepted, _ = listening.accept()
        await stream.send_all(b"unread")
        accepted.close()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        await stream.aclose()

    client = await connect(echo_server)
    await client.open()
    await client.send(wire.close(1000) + bytes(200_000))
    assert wire.codes(await client.rest()) == [1000]
    for _ in range(10):
        await client.send(bytes(200_000))
    await client.stream.send_eof()
    assert await client.stream.receive_some() == b""


async def test_end_of_stream_is_seen_at_once_after_the_close(echo_server, connect, mock_clock):
    """Some clients wait only a second for it, and it need not wait for theirs."""
    client = await connect(echo_server)
    await client.open()
    await client.send(wire.close(1000))
    assert wire.codes(await client.rest()) == [1000]


async def test_tls_handshake_is_done_at_the_first_read_and_within_its_timeout(
    certificate, autojump_clock
):
    """To wrap a stream sends and receives nothing: the reader's deadline holds for it too."""
    files = certificate()
    context = tls.Certificate(files["tls_cert"], files["tls_key"]).context
    theirs, ours = memory_stream_pair()
    stream = trio.SSLStream(ours, context, server_side=True)
    begun = trio.current_time()
    assert await serve_stream(stream, Config()) == Outcome(Ending.VANISHED)
    assert trio.current_time() - begun == 10
    assert await theirs.receive_some() == b""


async def test_back_pressure_shows_in_lockstep_only(serving, nursery):
    """A stream in memory takes any amount; one in lockstep takes what is read."""
    theirs, _ = memory_stream_pair()
    await theirs.send_all(LARGE)

    client = serving(lockstep_stream_pair)
    nursery.start_soon(client.send, wire.request())
    await client.opened()
    taken = 0

    async def send() -> None:
        nonlocal taken
        for _ in range(1000):
            await client.send(frame(BINARY, bytes(1000)))
            taken += 1000

    nursery.start_soon(send)
    await wait_all_tasks_blocked()
    assert taken <= 16384


async def test_file_limit_ends_no_accepting_and_no_connection(program, connect):
    """The kernel keeps whoever comes beyond it, until some of the others go."""
    service = await program(
        "serve",
        "--bind=127.0.0.1:0",
        "--max-connections=1000",
        shell='ulimit -n 40; exec "$@"',
    )
    url = await service.url()
    first = await connect(url)
    await first.open()
    clients = [await connect(url) for _ in range(60)]
    for client in clients:
        await client.send(wire.request())
    await service.line("server.accept_failed")
    await first.echo()
    for client in [first, *clients]:
        await client.stream.aclose()
    newcomer = await connect(url)
    await newcomer.send(wire.request())
    while wire.status(await newcomer.head()) != 101:  # until the others have gone
        newcomer = await connect(url)
        await newcomer.send(wire.request())
    await newcomer.echo()
