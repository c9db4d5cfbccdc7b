"""The opening handshake: an `h11.Request` → the headers of a 101, or a refusal.

The clauses are those of RFC 6455 4.2.  The module is pure, and takes nothing from
the peer on trust: whatever the header values hold, it returns or raises `Refused`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from echo_service import compression
from echo_service.request import Refused

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    import h11

    from echo_service.request import Headers

VERSION: Final = "13"

_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")
_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?P<host>[a-z0-9_~.-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?",
    re.IGNORECASE,
)
_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}

_READ: Final = {
    b"host",
    b"upgrade",
    b"connection",
    b"origin",
    b"content-length",
    b"transfer-encoding",
    b"sec-websocket-key",
    b"sec-websocket-version",
    b"sec-websocket-extensions",
    b"sec-websocket-protocol",
}
"""The headers that the handshake reads, Host in request.py; all others are left alone."""

_NOT_TEXT: Final = re.compile(rb"[^\x20-\x7e\t]")

Origin: TypeAlias = tuple[str, str, int | None]


@dataclass(frozen=True, slots=True)
class Accepted:
    """An accepted handshake: the 101's headers, and what was agreed on."""

    headers: Headers
    compression: compression.Parameters | None
    subprotocol: str | None

    def uncompressed(self) -> Accepted:
        """The same without an extension."""
        kept = [header for header in self.headers if header[0] != "Sec-WebSocket-Extensions"]
        return Accepted(kept, None, self.subprotocol)


def origin(text: str) -> Origin | None:
    """Scheme, host and port of an origin (RFC 6454), None if ``text`` is not one.

    The port is None for the opaque origin ``null`` and for schemes without a default.
    """
    if text == "null":
        return ("null", "", None)
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme = match["scheme"].lower()
    port = int(match["port"]) if match["port"] else _PORTS.get(scheme)
    if port is not None and port > 65535:
        return None
    return (scheme, match["host"].lower(), port)


def accept(
    request: h11.Request,
    *,
    compress: bool = True,
    subprotocols: Sequence[str] = (),
    origins: Container[Origin | None] | None = None,
) -> Accepted | None:
    """Accept an opening handshake, or raise `Refused`: 400, 403, 405 or 426.

    Returns None where the request is no opening handshake, good or bad.
    ``subprotocols`` are those spoken; the first of the client's that is among them is
    chosen.  ``origins`` are those allowed, None allows any.
    """
    values = _values(request)
    upgrades = "websocket" in _tokens(values, b"upgrade")
    if not upgrades and b"sec-websocket-key" not in values:
        return None
    if request.method != b"GET":
        method = request.method.decode()
        raise Refused(405, f"a WebSocket begins with GET, not {method}", ("Allow", "GET"))
    if not upgrades:
        raise Refused(426, "no Upgrade: websocket header", ("Upgrade", "websocket"))
    if "upgrade" not in _tokens(values, b"connection"):
        raise Refused(400, "no Connection: upgrade header")
    for name in (b"content-length", b"transfer-encoding"):
        if name in values:
            raise Refused(400, f"a handshake has no body, but there is {name.decode()}")
    key = _key(values)
    _check_version(values)
    _check_origin(values, origins)
    headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept_key(key)),
    ]
    subprotocol = _subprotocol(values, subprotocols)
    if subprotocol is not None:
        headers.append(("Sec-WebSocket-Protocol", subprotocol))
    offers = ",".join(values.get(b"sec-websocket-extensions", ()))
    agreed = compression.negotiate(offers) if compress and offers else None
    if agreed is not None:
        headers.append(("Sec-WebSocket-Extensions", agreed.response))
    return Accepted(headers, agreed, subprotocol)


def accept_key(key: str) -> str:
    """The Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 4.2.2)."""
    digest = hashlib.sha1((key + _GUID).encode("ascii"), usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def _values(request: h11.Request) -> dict[bytes, list[str]]:
    """The values of the headers that are read, in order; raises `Refused` for odd bytes."""
    values: dict[bytes, list[str]] = {}
    for name, value in request.headers:
        if name in _READ:
            if odd := _NOT_TEXT.search(value):
                raise Refused(400, f"{name.decode()} holds the byte {odd[0][0]:#04x}")
            values.setdefault(name, []).append(value.decode("ascii"))
    return values


def _tokens(values: dict[bytes, list[str]], name: bytes) -> list[str]:
    """The elements of a list of tokens that are compared without case."""
    return [token.lower() for token in _elements(values, name)]


def _elements(values: dict[bytes, list[str]], name: bytes) -> list[str]:
    joined = ",".join(values.get(name, ()))
    return [element.strip(" \t") for element in joined.split(",")]


def _key(values: dict[bytes, list[str]]) -> str:
    keys = values.get(b"sec-websocket-key", [])
    if len(keys) != 1:
        raise Refused(400, f"there are {len(keys)} Sec-WebSocket-Key headers instead of one")
    if not _KEY.fullmatch(keys[0]):
        raise Refused(400, f"Sec-WebSocket-Key is not the base64 of 16 bytes: {keys[0][:64]!r}")
    return keys[0]


def _check_version(values: dict[bytes, list[str]]) -> None:
    version = ",".join(values.get(b"sec-websocket-version", ()))
    if version != VERSION:
        cause = f"Sec-WebSocket-Version is not {VERSION}: {version[:64]!r}"
        headers = ("Upgrade", "websocket"), ("Sec-WebSocket-Version", VERSION)
        raise Refused(426, cause, *headers)


def _check_origin(values: dict[bytes, list[str]], allowed: Container[Origin | None] | None) -> None:
    sent = ",".join(values.get(b"origin", ()))
    if b"origin" in values and allowed is not None and origin(sent) not in allowed:
        raise Refused(403, f"this origin is not allowed: {sent[:64]!r}")


def _subprotocol(values: dict[bytes, list[str]], spoken: Sequence[str]) -> str | None:
    offered = _elements(values, b"sec-websocket-protocol")
    return next((name for name in offered if name in spoken), None)
