"""websockets on Trio."""

import trio
from websockets.trio.server import ServerConnection, serve

from benchmarks.peers import LARGEST, compress, port


async def echo(websocket: ServerConnection) -> None:
    """Serve a connection."""
    async for message in websocket:
        await websocket.send(message)


async def main() -> None:
    """Serve."""
    compression = "deflate" if compress() else None
    await serve(echo, port(), host="127.0.0.1", compression=compression, max_size=LARGEST)


trio.run(main)
