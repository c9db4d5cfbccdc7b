"""``echo-service check``: grades any WebSocket echo endpoint, from the client's side.

The map:

- `echo_service.check.command`: the command and its options
- `echo_service.check.endpoint`: a URL → a stream
- `echo_service.check.wire`: frames and the opening handshake, byte by byte
- `echo_service.check.client`: one connection, what came on it and how it ended
- `echo_service.check.transcript`: the bytes that went by, as far as they are kept
- `echo_service.check.quick`: the health check
- `echo_service.check.judge`: what came → a verdict
- `echo_service.check.row`: a check, and the kinds that most are of
- `handshake`, `framing`, `fragmentation`, `order`, `utf8`, `control`, `closing`, `deflate` and
  `stress`: the tables of checks
- `echo_service.check.agreement`: permessage-deflate, agreed on and done
- `echo_service.check.run`: all of them, several at a time
- `echo_service.check.grade`: the command's work; `report`, `junit` and `page`: what it gives;
  `annotate`: the bytes both ways; `output`: where it goes

It shares no code with the service: what grades it must not repeat its mistakes.
"""
