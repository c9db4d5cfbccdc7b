"""uvicorn with wsproto, on asyncio."""

import uvicorn

from benchmarks.peers import LARGEST, port
from benchmarks.peers.asgi import app

uvicorn.run(
    app,
    host="127.0.0.1",
    port=port(),
    loop="asyncio",
    http="h11",
    ws="wsproto",
    ws_max_size=LARGEST,
    lifespan="off",
    log_level="warning",
)
