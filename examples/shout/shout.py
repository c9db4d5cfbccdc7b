"""A small WebSocket client, as somebody might write one: the thing under test."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, Request, TextMessage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class ClosedError(Exception):
    """The server closed the connection, with this code and reason."""

    def __init__(self, code: int, reason: str | None) -> None:
        super().__init__(f"{code} {reason or ''}")
        self.code = code
        self.reason = reason


async def shout(url: str, *words: str) -> list[str]:
    """Send the words in capitals, one after the other's echo; raises `ClosedError`."""
    host, _, port = urlsplit(url).netloc.rpartition(":")
    heard = []
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        ws = WSConnection(ConnectionType.CLIENT)
        events = _events(stream, ws)
        await stream.send_all(ws.send(Request(host=host, target="/")))
        await anext(event async for event in events if isinstance(event, AcceptConnection))
        for word in words:
            await stream.send_all(ws.send(TextMessage(word.upper())))
            heard.append(await _message(events))
        await stream.send_all(ws.send(CloseConnection(1000)))
    return heard


async def _message(events: AsyncIterator[Event]) -> str:
    text = ""
    async for event in events:
        if isinstance(event, TextMessage):
            text += event.data
            if event.message_finished:
                break
    return text


async def _events(stream: trio.abc.Stream, ws: WSConnection) -> AsyncIterator[Event]:
    while True:
        ws.receive_data(await stream.receive_some() or None)
        for event in ws.events():
            if isinstance(event, CloseConnection):
                raise ClosedError(event.code, event.reason)
            if isinstance(event, Ping):
                await stream.send_all(ws.send(event.response()))
            yield event
