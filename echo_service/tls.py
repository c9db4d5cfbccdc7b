"""TLS under the road: the certificate, and the transport that enciphers.

It is not made of `trio.SSLStream`, which doesn't tell that a part of a record has come, can't
be asked how much the peer has taken, and closes its socket with bytes unread.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from echo_service.config import ConfigError
from echo_service.transport import NOTHING, RECEIVE, SocketTransport

if TYPE_CHECKING:
    import socket

    from echo_service.codec import Octets


class Certificate:
    """A certificate chain and its key, in files; ``context`` is what is in use."""

    def __init__(self, cert: str, key: str) -> None:
        """Load both; raises `ConfigError` where that can't be done."""
        self._files = (cert, key)
        self.context = self._load()

    def reload(self) -> None:
        """Read the files again, for the connections to come.

        Raises `ConfigError` where that can't be done; the old ones stay in use.
        """
        self.context = self._load()

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(*self._files, password="")  # never ask the terminal
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            cert, key = self._files
            accepted = f"PEM files of a certificate chain and, in {key!r}, its key ({error})"
            raise ConfigError("tls_cert", cert, accepted) from error
        return context


class TLSTransport(SocketTransport):
    """A connected socket under TLS, server's side.

    The TLS handshake is done at the first receive, within the receiver's deadline.  Every
    byte that arrives counts as life, those of a record that is not complete too.
    """

    __slots__ = ("_incoming", "_outgoing", "_plain", "_tls")

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        """Take charge of ``sock``."""
        super().__init__(sock)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._plain = NOTHING
        """What is to be sent after the rest, and is not enciphered yet."""

    async def receive(self) -> bytes:
        """The next bytes, deciphered; none at the peer's close_notify (RFC 8446 6.1).

        All that has arrived comes at once, in however many records: only waiting for more
        yields to other tasks.
        """
        while True:
            data = self._decipher()
            self._utter()
            while self.rest:
                await self.send_some()
            if data is not None:
                return data
            arrived = await super().receive()
            self.active = trio.current_time()
            if arrived:
                self._incoming.write(arrived)
            else:
                self._incoming.write_eof()

    def _decipher(self) -> bytes | None:
        """What has come; None if that is not a whole record, nothing at an end.

        An end that comes after something is there again the next time.  After an error
        nothing more is said (RFC 8446 6.2): what came before it has no echo either.
        """
        pieces: list[bytes] = []
        try:
            while piece := self._tls.read(RECEIVE):
                pieces.append(piece)
                if not self._incoming.pending:
                    break
        except ssl.SSLWantReadError:
            if not pieces:
                return None
        except ssl.SSLZeroReturnError:
            pass
        except ssl.SSLError as error:
            self._utter()  # the alert that tells the peer
            raise trio.BrokenResourceError from error
        return b"".join(pieces)

    def _utter(self) -> None:
        """Send what TLS itself has to say."""
        if self._outgoing.pending and not self.rest:
            super().send_now(self._outgoing.read())

    def send_now(self, data: Octets) -> None:
        """Encipher and send what the kernel takes."""
        self._plain = memoryview(data)
        self._push()

    def _push(self) -> None:
        """Encipher and send piece by piece, so that no message is there twice."""
        try:
            while self._plain and not self.rest:
                self._tls.write(self._plain[:RECEIVE])
                self._plain = self._plain[RECEIVE:]
                super().send_now(self._outgoing.read())
        except ssl.SSLError as error:
            raise trio.BrokenResourceError from error

    async def send_some(self) -> None:
        """Send more of the rest, and then of what is not enciphered yet."""
        await super().send_some()
        self._push()

    async def half_close(self) -> bool:
        """Nothing: after our end of stream the peer's words are no longer deciphered."""
        return False

    async def aclose(self) -> None:
        """Send close_notify (RFC 8446 6.1) and our FIN, read to the end, and close.

        Closed with bytes unread the socket would be reset, and the reset might overtake our
        Close.  All of it takes the time that the caller gives it.
        """
        self._say_goodbye()
        with suppress(trio.BrokenResourceError):
            await super().half_close()
            while await super().receive():
                pass
        await super().aclose()

    async def abort(self) -> None:
        """Send close_notify, if it goes at once, and close."""
        self._say_goodbye()
        await super().abort()

    def _say_goodbye(self) -> None:
        """Send close_notify, unless a record is cut off on its way."""
        with suppress(ssl.SSLError, ValueError):  # it may complain of what was not read
            self._tls.unwrap()
        self._utter()
