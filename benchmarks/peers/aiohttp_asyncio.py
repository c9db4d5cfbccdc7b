"""aiohttp's server."""

from aiohttp import WSMsgType, web

from benchmarks.peers import LARGEST, compress, port


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Serve a connection."""
    websocket = web.WebSocketResponse(compress=compress(), max_msg_size=LARGEST)
    await websocket.prepare(request)
    async for message in websocket:
        if message.type == WSMsgType.TEXT:
            await websocket.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await websocket.send_bytes(message.data)
    return websocket


app = web.Application()
app.router.add_get("/", echo)
web.run_app(app, host="127.0.0.1", port=port(), access_log=None, print=None)
