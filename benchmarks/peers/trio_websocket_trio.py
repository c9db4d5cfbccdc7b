"""trio-websocket, which has no compression."""

import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from benchmarks.peers import LARGEST, port


async def echo(request: WebSocketRequest) -> None:
    """Serve a connection."""
    websocket = await request.accept()
    try:
        while True:
            await websocket.send_message(await websocket.get_message())
    except ConnectionClosed:
        pass


async def main() -> None:
    """Serve."""
    await serve_websocket(echo, "127.0.0.1", port(), None, max_message_size=LARGEST)


trio.run(main)
