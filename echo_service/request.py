"""The head of an HTTP/1.1 request, from bytes: an `h11.Request`, or why not.

h11 parses; this module counts, since h11's own limit holds only for a head that is
not complete, and refuses what h11 lets through (bare line feeds, folded lines,
other versions).  Answers are written by h11 too; only the 101, all of which is ours, is
put together here.

The module is pure: it knows no clock, no socket and no trio.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final, TypeAlias, cast

import h11

MAX_TARGET: Final = 8192
"""Bytes of request target; more is 414."""

MAX_HEADERS: Final = 16384
"""Bytes of header fields together, with their line ends; more is 431."""

MAX_HEADER_COUNT: Final = 100
"""Header fields; more is 431."""

_REQUEST_LINE_ROOM: Final = 64
"""Bytes of a request line for method, version and spaces beside the target."""

_END: Final = b"\r\n\r\n"
_FOLDED: Final = re.compile(rb"\n[ \t]")
# h11 tells the bytes that it found as Python would, and as it holds them.
_PYTHONIC: Final = re.compile(r"bytearray\((.*)\)")
_TARGET: Final = re.compile(rb"(?:/|https?://[^/?#])[^#]*", re.IGNORECASE)
_HOST: Final = re.compile(rb"(?:[\w\-.~%!$&'()*+,;=]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
_VERSION: Final = re.compile(rb"1\.[1-9]")


Headers: TypeAlias = list[tuple[str, str]]


def switching_protocols(headers: Headers) -> bytes:
    """The 101 that ends an opening handshake; what the headers say is ours, and ASCII."""
    lines = ["HTTP/1.1 101 Switching Protocols", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


class Refused(Exception):  # noqa: N818 - the word for it: not an error of ours
    """A request that is refused: the status to answer, why, and headers to add."""

    def __init__(self, status: int, cause: str, *headers: tuple[str, str]) -> None:
        super().__init__(cause)
        self.status = status
        self.cause = cause
        self.headers = headers


class RequestReader:
    """One request's head as it comes in, and the writer of its answer.

    ``begun`` tells whether a byte of it has come; ``trailing`` is what came after it:
    on an upgrade, the first frames.
    """

    def __init__(self) -> None:
        self._http = h11.Connection(h11.SERVER)
        self._head = bytearray()
        self.trailing = b""

    @property
    def begun(self) -> bool:
        """Whether a byte of the request has come."""
        return bool(self._head)

    def receive(self, data: bytes | bytearray) -> h11.Request | None:
        """Take what the client sent; returns the request once its head is complete.

        ``data`` is not empty.  Raises `Refused` (400, 414, 431 or 505), after which
        only `answer` may be called.
        """
        self._head += data
        end = self._head.find(_END)
        self._check_size(end)
        if end < 0:
            return None
        end += len(_END)
        self.trailing = bytes(self._head[end:])
        return self._parse(bytes(self._head[:end]))

    def _check_size(self, end: int) -> None:
        """Refuse what is too big already, complete or not (``end`` is -1)."""
        head = self._head
        if not 0x21 <= head[0] <= 0x7E:
            raise Refused(400, f"no method begins with the byte {head[0]:#04x}")
        if end < 0:  # what may be the beginning of its end is not counted
            end = max(len(head) - len(_END) + 1, 0)
        line_end = head.find(b"\r\n")
        if line_end < 0:
            line_end = len(head.removesuffix(b"\r"))
        if line_end > MAX_TARGET + _REQUEST_LINE_ROOM:
            raise Refused(414, f"the target is over {MAX_TARGET} bytes")
        if end - line_end > MAX_HEADERS:
            raise Refused(431, f"the header fields are over {MAX_HEADERS} bytes together")

    def _parse(self, head: bytes) -> h11.Request:
        lines = head.count(b"\r\n")
        if not lines == head.count(b"\n") == head.count(b"\r") or _FOLDED.search(head):
            raise Refused(400, "a bare CR or LF, or a folded line")
        try:
            self._http.receive_data(head)
            request = cast("h11.Request", self._http.next_event())
        except h11.RemoteProtocolError as error:
            raise Refused(400, _PYTHONIC.sub(r"\1", str(error))[:200]) from None
        if not _VERSION.fullmatch(request.http_version):
            raise Refused(505, f"HTTP/1.1 is spoken here, not {request.http_version.decode()}")
        hosts = [value for name, value in request.headers if name == b"host"]
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
            raise Refused(400, "there must be one Host header, with a host and maybe a port")
        if request.method in (b"GET", b"HEAD") and not _TARGET.fullmatch(request.target):
            raise Refused(400, "the target is neither a path nor an http URL, or has a fragment")
        if len(request.target) > MAX_TARGET:
            raise Refused(414, f"the target is over {MAX_TARGET} bytes")
        if len(request.headers) > MAX_HEADER_COUNT:
            raise Refused(431, f"there are more than {MAX_HEADER_COUNT} header fields")
        return request

    def answer(self, status: int, headers: Headers, body: bytes) -> bytes:
        """A whole answer, without its body where a HEAD was asked."""
        options = ["close"] + [
            "Upgrade" for name, _ in headers if name == "Upgrade"
        ]  # RFC 9110 7.8
        connection = ("Connection", ", ".join(options))
        headers = [*headers, ("Content-Length", str(len(body))), connection]
        reason = HTTPStatus(status).phrase.encode()
        response = h11.Response(status_code=status, headers=headers, reason=reason)
        head = self._http.send(response) or b""
        return head if self._head.startswith(b"HEAD ") else head + body
