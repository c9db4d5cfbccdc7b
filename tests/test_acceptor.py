"""Accepting, over real sockets: what fails, what is too much, and who makes room."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from echo_service import Config, acceptor, listeners, serve
from tests import wire

pytestmark = pytest.mark.usefixtures("in_time")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_accept_that_fails_is_tried_again(nursery, connect, monkeypatch, logged, number: int):
    """As at the file limit: one line in the log however often it fails, and service after."""
    accept = socket.socket.accept
    failures = [number] * 3

    def accept_or_fail(listening: socket.socket) -> tuple[socket.socket, object]:
        if failures:
            raise OSError(failures.pop(), os.strerror(number))
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", accept_or_fail)
    monkeypatch.setattr(acceptor, "PAUSE", 0)
    client = await connect(await nursery.start(serve, Config(bind=["127.0.0.1:0"])))
    await client.open()
    await client.echo()
    failed = [line for line in logged() if line.event == "server.accept_failed"]
    assert [line.level for line in failed] == ["ERROR"]
    assert os.strerror(number) in str(failed[0].fields["error"])


async def test_who_is_gone_before_it_is_accepted_is_not_worth_a_line(
    nursery, connect, monkeypatch, logged
):
    """ECONNABORTED, as some kernels tell of a reset in the backlog; Linux accepts and resets."""
    accept = socket.socket.accept
    gone = [True] * 3

    def accept_or_fail(listening: socket.socket) -> tuple[socket.socket, object]:
        if gone:
            gone.pop()
            raise OSError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED))
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", accept_or_fail)
    client = await connect(await nursery.start(serve, Config(bind=["127.0.0.1:0"])))
    await client.open()
    await client.echo()
    assert not gone
    assert "server.accept_failed" not in [line.event for line in logged()]


async def test_error_in_the_accepting_task_itself_touches_no_other(
    echo_server, connect, monkeypatch, logged
):
    other = await connect(echo_server)
    await other.open()

    def broken(address: object) -> str:
        raise RuntimeError("ours")

    monkeypatch.setattr(listeners, "name", broken)
    assert await (await connect(echo_server)).rest() == b""
    await other.echo()
    assert logged()[-1][:2] == ("ERROR", "connection.failed")


@pytest.mark.echo_service(max_connections=1)
async def test_who_only_lingers_takes_nobodys_room(echo_server, connect):
    """Although only so many sockets are accepted: they leave when somebody needs the room."""
    first = await connect(echo_server)
    await first.open()
    for _ in range(40):
        client = await connect(echo_server)
        await client.send(b"GET /healthz HTTP/1.1\r\nHost: echo.example\r\n\r\n")
        assert wire.status(await client.rest()) == 200  # and it stays, half closed
    await first.echo()
