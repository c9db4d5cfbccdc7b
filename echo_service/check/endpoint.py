"""A URL → what to connect to, and a stream to it: TCP, TLS or a unix socket."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlsplit

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

ACCEPTED: Final = "ws://HOST[:PORT]/PATH, wss://HOST[:PORT]/PATH or ws+unix:PATH"

_PORTS: Final = {"ws": 80, "wss": 443}
_UNIX: Final = re.compile(r"(?P<scheme>wss?)\+unix:(?P<path>[^\0]+)")
_PRINTABLE: Final = re.compile(r"[!-~]+")


class UnreachableError(Exception):
    """There is no connection to the endpoint; the text says why."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a URL names: a ``host`` and a ``port``, or the ``path`` of a unix socket.

    ``authority`` is what the Host header says, ``target`` the request's target.
    """

    url: str
    tls: ssl.SSLContext | None
    host: str = "localhost"
    port: int = 0
    path: str = ""
    authority: str = "localhost"
    target: str = "/"

    async def connect(self) -> trio.abc.Stream:
        """A stream to the endpoint, after the TLS handshake; raises `UnreachableError`."""
        try:
            stream = await self._open()
        except OSError as error:
            raise UnreachableError(error.strerror or str(error)) from error
        return stream if self.tls is None else await self._secured(stream, self.tls)

    async def _open(self) -> trio.SocketStream:
        if self.path:
            return await trio.open_unix_socket(self.path)
        return await trio.open_tcp_stream(self.host, self.port)

    async def _secured(self, stream: trio.SocketStream, tls: ssl.SSLContext) -> trio.abc.Stream:
        secured = trio.SSLStream(stream, tls, server_hostname=self.host, https_compatible=True)
        try:
            await secured.do_handshake()
        except trio.BrokenResourceError as error:
            await trio.aclose_forcefully(stream)
            raise UnreachableError(f"TLS failed: {error.__cause__ or error}") from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return secured


def parse(url: str, trust: Callable[[], ssl.SSLContext]) -> Endpoint:
    """The endpoint that a URL names (RFC 6455 3), or a socket as our own log names it.

    ``trust`` makes what a TLS connection is opened with.  Raises ValueError.
    """
    if unix := _UNIX.fullmatch(url):
        return Endpoint(url, trust() if unix["scheme"] == "wss" else None, path=unix["path"])
    parts = urlsplit(url)
    if not _is_websocket(url, parts):
        raise ValueError(url)
    (parts.hostname or "").encode("idna")  # as a look-up does: it is a ValueError where it can't be
    port = parts.port if parts.port is not None else _PORTS[parts.scheme]
    return Endpoint(
        url,
        trust() if parts.scheme == "wss" else None,
        host=parts.hostname or "",
        port=port,
        authority=parts.netloc,
        target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
    )


def _is_websocket(url: str, parts: SplitResult) -> bool:
    """Whether it is a ws or wss URL, without user and fragment, that can be sent as it is."""
    plain = _PRINTABLE.fullmatch(url) and "@" not in parts.netloc and "#" not in url
    return bool(plain and parts.scheme in _PORTS and parts.hostname)


def trusting(cacert: str | None, *, insecure: bool) -> ssl.SSLContext:
    """The TLS context: the system's authorities, those of a PEM file, or anyone.

    Raises OSError where the file can't be read or used.
    """
    context = ssl.create_default_context(cafile=cacert)
    context.set_alpn_protocols(["http/1.1"])
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
