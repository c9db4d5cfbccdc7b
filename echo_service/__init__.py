"""A WebSocket echo service that is right, on trio, h11 and wsproto.

The map, in the order in which a byte travels:

- `echo_service.server`: listening, and the drain
- `echo_service.acceptor`: accepting
- `echo_service.connection`: one client, from accept to the closed stream
- `echo_service.transport`: what it reads from and writes to
- `echo_service.lane`: the same for all open sockets at once
- `echo_service.request`: bytes → an HTTP request, or why not
- `echo_service.forwarded`: a request → who the client is, behind a proxy
- `echo_service.upgrade`: a request → a 101, or why not
- `echo_service.controls`: a target → what the client asks of its own connection
- `echo_service.compression`: permessage-deflate, agreed on and done
- `echo_service.session`: frames in → frames out
- `echo_service.codec`: the simple ones, twice: here and in ``_codec.c``
- `echo_service.intake`: all the others, on their way through wsproto
- `echo_service.shaping`, `echo_service.pacing`: session and transport as the client asked for
- `echo_service.policy`: why it ended → the Close that is sent
- `echo_service.endpoints`: a request that is no handshake → an answer
- `echo_service.page`: one of these answers, for browsers

Beside the road: `config` (every option), `cli`, `listeners`, `tls`, `logs`, `registry` (who is
connected) and `counts`; `admin` (the second address) and `metrics`; `process` (one that serves),
`workers` (the parent of several), `worker`, `channel` (between these two), `cpus`, `signals` and
`systemd` (what the service manager is told); `testing` and `pytest_plugin`.  `echo_service.check`
is a client of its own, which grades this service and others.
"""

from __future__ import annotations

from echo_service.config import Config, ConfigError
from echo_service.listeners import BindError
from echo_service.policy import Ending
from echo_service.registry import Outcome, Statistics
from echo_service.server import Server, serve, serve_stream

__all__ = [
    "BindError",
    "Config",
    "ConfigError",
    "Ending",
    "Outcome",
    "Server",
    "Statistics",
    "__version__",
    "serve",
    "serve_stream",
]

__version__ = "0.1.0"
