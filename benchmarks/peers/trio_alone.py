"""Trio alone and no WebSocket library: the least that a server takes on Trio without a lane.

It answers whatever is asked with a 101, has the codec of echo-service echo what comes, and
answers whatever that leaves with a Close.
"""

from functools import partial

import trio

from benchmarks.peers import LARGEST, port
from echo_service.codec import BEST
from echo_service.request import switching_protocols
from echo_service.upgrade import accept_key

CLOSE = b"\x88\x02\x03\xe8"


async def serve(stream: trio.SocketStream) -> None:
    """Serve a connection."""
    async with stream:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await stream.receive_some()
        key = head.partition(b"Sec-WebSocket-Key: ")[2][:24].decode()
        headers = [("Upgrade", "websocket"), ("Connection", "Upgrade")]
        headers.append(("Sec-WebSocket-Accept", accept_key(key)))
        await stream.send_all(switching_protocols(headers))
        while data := await stream.receive_some():
            taken, out, _ = BEST.echo(data, LARGEST)
            await stream.send_all(out if taken == len(data) else out + CLOSE)
            if taken < len(data):
                await stream.send_eof()


trio.run(partial(trio.serve_tcp, serve, port(), host="127.0.0.1"))
