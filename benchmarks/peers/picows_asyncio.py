"""picows, as its documentation's echo server has it: frames, and no compression."""

import asyncio

from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from benchmarks.peers import port


class Echo(WSListener):
    """Sends each frame back, from the buffer it came in."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Answer a frame."""
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        else:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())


def listener(_request: WSUpgradeRequest) -> WSListener:
    """A listener for a connection."""
    return Echo()


async def main() -> None:
    """Serve."""
    server = await ws_create_server(listener, "127.0.0.1", port())
    await server.serve_forever()


asyncio.run(main())
