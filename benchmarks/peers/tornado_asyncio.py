"""tornado, on asyncio."""

import asyncio

from tornado.web import Application
from tornado.websocket import WebSocketHandler

from benchmarks.peers import LARGEST, compress, port


class Echo(WebSocketHandler):
    """Sends each message back."""

    def get_compression_options(self) -> dict[str, object] | None:
        """Options of compression, or None to go without."""
        return {} if compress() else None

    def check_origin(self, origin: str) -> bool:  # noqa: ARG002 - it is not asked where from
        """Whether a page from there may connect."""
        return True

    async def on_message(self, message: str | bytes) -> None:
        """Answer a message."""
        await self.write_message(message, binary=isinstance(message, bytes))


async def main() -> None:
    """Serve."""
    app = Application([("/.*", Echo)], websocket_max_message_size=LARGEST)
    app.listen(port(), "127.0.0.1")
    await asyncio.Event().wait()


asyncio.run(main())
