"""The law that any input must keep: the codec in C, the one in Python and none are the same.

`check` is called by fuzz.c with each input.  ``python -m fuzz.law seeds DIRECTORY`` writes
inputs to begin with; ``... check FILE`` checks one without the fuzzer, with the
codec that is installed.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

try:
    import _fuzz
except ModuleNotFoundError:  # a plain interpreter, which sees no bytes behind the last
    exact, ends, watch = bytes, type, bool
else:
    exact, ends, watch = _fuzz.exact, _fuzz.ends, _fuzz.watch
    sys.modules["echo_service._codec"] = importlib.import_module("_codec")

from echo_service import codec, policy
from echo_service.compression import Parameters
from echo_service.session import Session
from tests import wire

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS = (1000, 0, 5, 125, 126, 65536, 70000, 200)

AGREED = (
    None,
    Parameters(),
    Parameters(server_no_context_takeover=True, client_no_context_takeover=True),
    Parameters(server_max_window_bits=9, client_max_window_bits=9),
)

SIZES = {250: 124, 251: 126, 252: 4097, 253: 65535, 254: 65536, 255: 70000}
"""What some lengths in a script stand for."""

MOST_PIECES = 100
"""Pieces that an input is cut in at most, or a long one would take half a second."""


def check(data: bytes) -> None:
    """Judge an input.

    Its first byte chooses the limit, the compression and whether the rest is a `script`
    or goes as it is; the second one how that is cut; the third, where our Close is sent.
    """
    options, cutting, end = data[:3].ljust(3, b"\x00")
    sent = data[3:]
    limit = LIMITS[options & 7]
    check_functions(sent, limit)
    if options & 0x80:
        sent = script(sent)
        check_echo(sent, limit)
    pieces = list(cut(sent, cutting))
    check_sessions(limit, AGREED[options >> 3 & 3], pieces, end if options & 0x40 else None)


def script(data: bytes) -> bytes:
    """Frames that are whole and masked, whatever they say: changed bytes leave them so.

    Each is told by its first byte, the length of its payload and the payload; a length from
    250 on is one of `SIZES`, which that of the payload's four bytes are repeated to.
    """
    sent = bytearray()
    at = 0
    while at + 1 < len(data) and len(sent) < 300_000:
        first, length = data[at : at + 2]
        size = SIZES.get(length)
        payload = data[at + 2 : at + 2 + (4 if size else length)]
        at += 2 + len(payload)
        if size:
            payload = (payload * size)[:size]
        sent += wire.frame(first & 15, payload, fin=first > 127, rsv=first >> 4 & 7)
    return bytes(sent)


def cut(sent: bytes, cutting: int) -> Iterator[bytes]:
    """Pieces of the size ``cutting``; from 200 on, of sizes by chance; whole if it is 0."""
    chance = Random(cutting)
    least = len(sent) // MOST_PIECES + 1
    at = 0
    while at < len(sent):
        size = cutting if cutting < 200 else int(chance.expovariate(0.02))
        size = max(size, least) if cutting else len(sent)
        yield sent[at : at + size]
        at += size


def check_functions(data: bytes, limit: int) -> None:
    """What the functions tell of any bytes."""
    check_echo(data, limit)
    check_append(data)
    check_utf8(data)


def check_echo(data: bytes, limit: int) -> None:
    """`echo`; Python's takes no more than so many frames at once."""
    taken, out, counts = codec.COMPILED.echo(exact(data), limit)
    assert type(out) is bytes
    assert ends(out) or not taken
    at, answer, counted = 0, b"", (0, 0, 0)
    while True:
        more, piece, carried = codec.PYTHON.echo(data[at:], limit)
        at += more
        answer += piece
        counted = tuple(a + b for a, b in zip(counted, carried, strict=True))
        if not more:
            break
    assert (taken, out, counts) == (at, answer, counted)


def check_append(data: bytes) -> None:
    """`append`, with the key and what is there already taken from the data's beginning."""
    key = data[:4].ljust(4, b"\x80")
    masked = data[5:]
    before = data[: data[4] % 32] if len(data) > 4 else b""
    echoes = bytearray(before), bytearray(before)
    told = (
        codec.COMPILED.append(echoes[0], exact(masked), key),
        codec.PYTHON.append(echoes[1], masked, key),
    )
    assert told[0] is told[1]
    assert echoes[0] == echoes[1]
    assert ends(echoes[0]) or not data


def check_utf8(data: bytes) -> None:
    """`utf8`, from the first bytes on, beyond the last one, and at every end of a short text."""
    for start in (0, 1, 2, 3, len(data), len(data) + 1):
        echo = bytearray(data)
        assert codec.COMPILED.utf8(echo, start) == codec.PYTHON.utf8(echo, start)
    for end in range(min(len(data), 24)):
        echo = bytearray(data[:end])
        assert codec.COMPILED.utf8(echo, 0) == codec.PYTHON.utf8(echo, 0)


def check_sessions(
    limit: int, agreed: Parameters | None, pieces: list[bytes], end: int | None
) -> None:
    """What three sessions answer to each piece; our Close goes out before the piece ``end``."""
    watch(True)
    expected = list(answers(Session(limit, agreed, codec.COMPILED), pieces, end))
    watch(False)
    for each in (codec.PYTHON, None):
        others = answers(Session(limit, agreed, each), pieces, end)
        for number, (other, first) in enumerate(zip(others, expected, strict=True)):
            assert other == first, (each, number, other, first)


def answers(session: Session, pieces: list[bytes], end: int | None) -> Iterator[tuple[object, ...]]:
    """What a session answers to each piece, and what it tells of itself then."""
    for number, piece in enumerate(pieces):
        if number == end and session.verdict is None:
            session.end(policy.IDLE)
        answer = wire.take(session, exact(piece))
        yield answer, session.verdict, session.awaits_close, session.carried


HELLO = bytes.fromhex("f248cdc9c90700")

SENT = {
    "text": wire.frame(wire.TEXT, b"Hello"),
    "umlauts": wire.frame(wire.TEXT, "Grüße, 1€ 🌍".encode()),
    "surrogate": wire.frame(wire.TEXT, b"abcdefgh\xed\xa0\x80"),
    "binary": wire.frame(wire.BINARY, bytes(range(256))),
    "126": wire.frame(wire.BINARY, b"x" * 126),
    "large": wire.header(wire.BINARY, 65536) + wire.KEY + b"x" * 900,
    "controls": wire.frame(wire.PING, b"ping") + wire.frame(wire.PONG, b"pong"),
    "fragments": wire.frame(wire.TEXT, b"\xce", fin=False)
    + wire.frame(wire.PING)
    + wire.frame(wire.CONTINUATION, b"\xba"),
    "close": wire.close(1000, b"bye"),
    "compressed": wire.frame(wire.TEXT, HELLO, rsv=4) * 2,
    "compressed fragments": wire.frame(wire.TEXT, HELLO[:3], fin=False, rsv=4)
    + wire.frame(wire.PING)
    + wire.frame(wire.CONTINUATION, HELLO[3:]),
    "unmasked": wire.header(wire.TEXT, 3, masked=False) + b"abc",
    "many": (wire.frame(wire.TEXT, b"a") + wire.frame(wire.PING)) * 150,
    "not minimal": bytes.fromhex("82fe007d") + wire.KEY + b"a" * 125,
    "no key": bytes.fromhex("8185 00000000") + b"Hello",
}

SCRIPTS = {
    "script": b"\x81\x05Hello\x82\x03\x00\xff\x80\x89\x02pi\x8a\x00\x88\x02\x03\xe8",
    "script sizes": b"\x81\xfaabcd\x82\xfbabcd\x82\xfcabcd\x82\xfeabcd\x81\xffabcd",
    "script fragments": b"\x01\x02ab\x89\x00\x00\x01\xc3\x80\x01\xa9\x81\x00",
    "script compressed": b"\xc1\x07" + HELLO + b"\xc2\x07" + HELLO + b"\x41\x03" + HELLO[:3],
    "script bounds": b"".join(
        bytes((0x81, len(each))) + each
        for point in (0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF)
        for each in [chr(point).encode()]
    ),
    **{
        f"script {bad}": b"\x81\x04abcd\x81\x04" + bytes.fromhex(bad)
        for bad in ("61c1bf61", "61e09fbf", "61eda080", "f08fbfbf", "f4908080", "f5808080")
    },
    "script utf8": b"\x81\x04\xf0\x9f\x8c\x8d\x81\x03\xe2\x82\xac\x81\x03\xed\x9f\xbf\x81\x01a",
}


def write_seeds(directory: Path) -> None:
    """Write inputs to begin with: all kinds of frames, whole, byte by byte and by chance."""
    directory.mkdir(parents=True, exist_ok=True)
    for kind, inputs in ((0, SENT), (0x80, SCRIPTS)):
        for name, sent in inputs.items():
            for number, cutting in enumerate((0, 1, 7, 210)):
                for agreed in (0, 8) if number < 2 else (16,):
                    limit = 6 if "size" in name or name == "large" else 0
                    options = bytes((kind | agreed | limit, cutting, 0))
                    path = directory / f"{name.replace(' ', '-')}-{agreed}-{cutting}"
                    path.write_bytes(options + sent)
    for number, limit in enumerate(LIMITS):
        sent = wire.frame(wire.TEXT, b"x" * min(limit, 1000)) + wire.frame(wire.TEXT)
        (directory / f"limit-{limit}").write_bytes(bytes((number, 0, 0)) + sent)
    after = bytes((0x40, 1, 5)) + SENT["text"] + SENT["controls"] + SENT["close"]
    (directory / "after-our-close").write_bytes(after)


def main() -> None:
    """Write seeds, or check a file."""
    match sys.argv[1:]:
        case ["seeds", directory]:
            write_seeds(Path(directory))
        case ["check", file] if codec.COMPILED:
            check(Path(file).read_bytes())
        case _:
            sys.exit(
                "fuzz.law seeds DIRECTORY | fuzz.law check FILE, where the codec in C is built"
            )


if __name__ == "__main__":
    main()
