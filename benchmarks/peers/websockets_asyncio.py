"""websockets on asyncio."""

import asyncio

from websockets.asyncio.server import ServerConnection, serve

from benchmarks.peers import LARGEST, compress, port


async def echo(websocket: ServerConnection) -> None:
    """Serve a connection."""
    async for message in websocket:
        await websocket.send(message)


async def main() -> None:
    """Serve."""
    compression = "deflate" if compress() else None
    async with serve(
        echo, "127.0.0.1", port(), compression=compression, max_size=LARGEST
    ) as server:
        await server.serve_forever()


asyncio.run(main())
