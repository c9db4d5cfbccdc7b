"""What a peer agrees to of permessage-deflate, and the client's side of it (RFC 7692)."""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Final

from echo_service.check import judge
from echo_service.check.judge import Verdict
from echo_service.check.row import DecidedError
from echo_service.check.wire import SPARE, TEXT, Came, Frame, frame, least_length, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from echo_service.check.client import Client, Trial

EXTENSION: Final = "permessage-deflate"
_TAIL: Final = b"\x00\x00\xff\xff"
_STEP: Final = 64
"""Bytes by which more than the agreed window may go unnoticed."""

_LARGE_STEP: Final = 65536
"""Bytes at a time where any distance is within the window."""

_BITS: Final = re.compile(r"[89]|1[0-5]")
_FLAGS: Final = ("server_no_context_takeover", "client_no_context_takeover")
_WINDOWS: Final = ("server_max_window_bits", "client_max_window_bits")

Parameters = dict[str, str | None]


def parameters(element: str) -> tuple[Parameters, str]:
    """The parameters of one offer or answer, and what is wrong with them in any case."""
    found: Parameters = {}
    for text in element.split(";")[1:]:
        name, equals, value = (part.strip() for part in text.partition("="))
        if name in found or name not in (*_FLAGS, *_WINDOWS):
            return found, f"{name} is unknown or doubled: RFC 7692 7.1"
        found[name] = value.strip('"') if equals else None
    return found, ""


def wrong(offered: Parameters, agreed: Parameters) -> str:
    """What no answer to this offer may have, or lacks (RFC 7692 7.1); empty where all is well."""
    for name in _FLAGS:
        if agreed.get(name) is not None:
            return f"{name} has a value: RFC 7692 7.1.1"
    for name in _WINDOWS:
        if name in agreed and not _BITS.fullmatch(agreed[name] or ""):
            return f"{name} is not 8 to 15: RFC 7692 7.1.2"
        if int(agreed.get(name) or 8) > int(offered.get(name) or 15):
            return f"{name} is more than was offered: RFC 7692 7.1.2"
    if "client_max_window_bits" in agreed and "client_max_window_bits" not in offered:
        return "client_max_window_bits was not offered: RFC 7692 7.1.2.2"
    for name in ("server_no_context_takeover", "server_max_window_bits"):
        if name in offered and name not in agreed:
            return f"{name} was asked for and is missing: RFC 7692 7.1"
    return ""


class Deflate:
    """The client's side of what was agreed on.

    Messages that are passed over are inflated too, for what comes may refer to them.
    """

    def __init__(self, agreed: Parameters, greeted: Sequence[Frame] = ()) -> None:
        self._greeted = greeted
        # Of a window of 8 bits zlib's deflate makes one of 9: what is sent then is short enough.
        self._client_bits = max(9, int(agreed.get("client_max_window_bits") or 15))
        self._server_bits = int(agreed.get("server_max_window_bits") or 15)
        self._client_forgets = "client_no_context_takeover" in agreed
        self._server_forgets = "server_no_context_takeover" in agreed
        self._deflater = zlib.compressobj(wbits=-self._client_bits)
        self._inflater = zlib.decompressobj(-self._server_bits)
        self._room = SPARE

    def deflate(self, payload: bytes) -> bytes:
        """A message's payload, deflated (7.2.1)."""
        self._room += len(payload)
        if self._client_forgets:
            self._deflater = zlib.compressobj(wbits=-self._client_bits)
        data = self._deflater.compress(payload) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
        return data.removesuffix(_TAIL)

    def message(self, payload: bytes, opcode: int = TEXT) -> bytes:
        """A message in one frame, deflated."""
        return frame(opcode, self.deflate(payload), rsv=4)

    def read(self, came: Came) -> Came:
        """The same with its messages whole and inflated (7.2.2).

        Raises `DecidedError` where the peer breaks the protocol with them.
        """
        if found := judge.fault(came.frames, rsv=4):
            raise DecidedError(Verdict.FAIL, judge.tell(came), found)
        greetings, self._greeted = self._greeted, ()
        for each in whole(greetings):
            self._inflated(each)
        return Came([self._inflated(each) for each in whole(came.frames)], came.ending)

    def _inflated(self, each: Frame) -> Frame:
        if not each.rsv:
            return each
        if self._server_forgets or self._inflater.eof:
            self._inflater = zlib.decompressobj(-self._server_bits)
        inflated = bytearray()
        try:
            for piece in self._pieces(each.payload + _TAIL):
                inflated += piece
                self._room -= len(piece)
                if self._room < 0:
                    why = "it inflates to more than was sent"
                    raise DecidedError(Verdict.FAIL, judge.quoted(each.payload), why)
        except zlib.error as error:
            why = f"it does not inflate as was agreed on: {error}"
            raise DecidedError(Verdict.FAIL, judge.quoted(each.payload), why) from error
        return Frame(each.opcode, bytes(inflated), length=least_length(len(inflated)))

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        """What the data inflates to, a little at a time.

        zlib minds the window only for what it gave out in an earlier call.  What it has not
        consumed it copies, so that it is given little at a time, too.
        """
        step = _LARGE_STEP if self._server_bits == 15 else _STEP
        for start in range(0, len(data), step):
            part = data[start : start + step]
            while piece := self._inflater.decompress(part, step):
                yield piece
                part = self._inflater.unconsumed_tail
            if self._inflater.eof:
                return


async def agree(trial: Trial, offer: str = EXTENSION) -> tuple[Client, Deflate, str]:
    """A connection that deflates, and the answer to the offer; raises `DecidedError`."""
    client, answer = await trial.negotiate(("Sec-WebSocket-Extensions", offer))
    elements = answer.elements("sec-websocket-extensions")
    if not elements:
        raise DecidedError(Verdict.SKIPPED, "permessage-deflate is declined")
    names = [element.partition(";")[0].strip() for element in elements]
    if names != [EXTENSION]:
        why = "RFC 6455 9.1: no such extension was offered, or twice accepted"
        raise DecidedError(Verdict.FAIL, ", ".join(elements), why)
    agreed, unknown = parameters(elements[0])
    if unknown := unknown or wrong(parameters(offer)[0], agreed):
        raise DecidedError(Verdict.FAIL, elements[0], unknown)
    return client, Deflate(agreed, client.greeted), elements[0]
