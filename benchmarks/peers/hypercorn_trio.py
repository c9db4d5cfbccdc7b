"""Hypercorn on Trio, in one process."""

from typing import Any, cast

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from benchmarks.peers import LARGEST, port
from benchmarks.peers.asgi import app

config = Config()
config.bind = [f"127.0.0.1:{port()}"]
config.websocket_max_message_size = LARGEST
config.loglevel = "WARNING"


async def main() -> None:
    """Serve."""
    await serve(cast("Any", app), config)


trio.run(main)
