"""``echo-service check``: grades any WebSocket echo endpoint, from the client's side.

The map:

- `echo_service.check.command`: the command and its options
- `echo_service.check.endpoint`: a URL → a stream
- `echo_service.check.wire`: frames and the opening handshake, byte by byte
- `echo_service.check.client`: one connection, what came on it and how it ended
- `echo_service.check.quick`: the health check

It shares no code with the service: what grades it must not repeat its mistakes.
"""
