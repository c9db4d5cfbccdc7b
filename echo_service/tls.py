"""TLS under the road: the certificate, and a stream that ends as TCP should.

`trio.SSLStream.aclose` sends close_notify and then closes the stream below it.  Here
the stream below sends our FIN, reads what still comes and closes only then, so that
no reset overtakes our Close on its way to the peer.
"""

from __future__ import annotations

import ssl
from contextlib import suppress

import trio

from echo_service.config import ConfigError


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


class TLSStream(trio.abc.Stream):
    """A TLS stream, server's side, over a TCP stream that was accepted.

    The TLS handshake is done at the first read, within the reader's deadline.
    """

    def __init__(self, stream: trio.SocketStream, context: ssl.SSLContext) -> None:
        """Take charge of ``stream``."""
        self._transport = _Transport(stream)
        self._tls = trio.SSLStream(self._transport, context, server_side=True)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        await self._tls.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room for some bytes."""
        await self._tls.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive and decipher."""
        return await self._tls.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Send close_notify (RFC 8446 6.1) and our FIN, read to the end, and close.

        What has come and is not deciphered yet is read out first: OpenSSL would rather
        fail on it than send the close_notify.
        """
        self._transport.waits = False
        try:
            with suppress(trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                while await self._tls.receive_some(65536):
                    pass
        finally:
            await self._tls.aclose()


class _Transport(trio.abc.Stream):
    """The TCP stream below; `aclose` half-closes, and reads to the end before it closes."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self.waits = True
        """Whether reading waits for bytes, and does not raise `trio.WouldBlock`."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if not self.waits:
            raise trio.WouldBlock
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Ends within the caller's deadline, which is the close timeout."""
        try:
            await self._stream.send_eof()
            while await self._stream.receive_some(65536):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await self._stream.aclose()
