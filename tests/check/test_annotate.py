"""The bytes of a connection, both ways, and what they are."""

from __future__ import annotations

from echo_service.check import annotate as module
from echo_service.check.annotate import annotated
from echo_service.check.transcript import Transcript
from echo_service.check.wire import close, frame


def lines(*passed: tuple[str, bytes]) -> list[str]:
    transcript = Transcript()
    for each in passed:
        transcript.add(*each)
    return list(annotated(transcript.passed))


def test_heads_are_shown_as_text_and_frames_as_bytes_with_words():
    assert lines(
        (">", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("<", b"HTTP/1.1 101 \xff\r\n"),
        ("<", b"\r\n"),
        (">", close(0)),
        ("<", b"\x88\x02\x03\xea"),
        ("=", b"TCP closed"),
    ) == [
        "> GET / HTTP/1.1",
        "> Host: a",
        ">",
        "< HTTP/1.1 101 \\xff",
        "<",
        "> 88 82 37 fa 21 3d 37 fa                            Close 0, masked",
        "< 88 02 03 ea                                        Close 1002",
        "= TCP closed",
    ]


def words(data: bytes) -> list[str]:
    opened = [(">", b"GET / HTTP/1.1\r\n\r\n"), (">", data)]
    return [line[51:].strip() for line in lines(*opened)[2:]]


def test_what_is_uncommon_about_a_frame_is_said():
    assert words(frame(1, b"a", fin=False, rsv=6)) == ["Text 'a', RSV1, RSV2, more to come, masked"]
    assert words(frame(2, b"a", length=8, key=b"")) == ["Binary 'a', length in 64 bits"]
    assert words(frame(3)) == ["opcode 3 '', masked"]
    assert words(frame(8, b"\x03")) == ["Close '\\x03', masked"]
    assert words(close()) == ["Close without a code, masked"]


def test_frames_sent_in_pieces_are_put_together_and_what_is_cut_is_said():
    data = frame(1, b"Hello") + frame(9)
    pieces = [(">", b"GET\r\n\r\n"), *((">", data[i : i + 1]) for i in range(len(data) - 1))]
    assert [line[51:].strip() for line in lines(*pieces)[2:]] == [
        "Text 'Hello', masked",
        "5 bytes that are no whole frame",
    ]


def test_of_many_bytes_the_first_are_shown():
    (line,) = lines((">", b"x\r\n\r\n"), (">", frame(2, bytes(70000), key=b"")))[2:]
    shown = "> 82 7f 00 00 00 00 00 01 11 70 00 00 00 00 00 00 …"
    assert line.startswith(shown)
    assert line.endswith("of 70000 bytes")


HEAD = (">", b"x\r\n\r\n")


def test_of_many_frames_the_first_are_shown_and_gone_through(monkeypatch):
    taken = []
    take = module.wire.take
    monkeypatch.setattr(module.wire, "take", lambda data: taken.append(data) or take(data))
    shown = lines(HEAD, (">", b"\x89\x00" * 10000), ("=", b"TCP closed"))
    assert len(taken) == 110
    assert len(shown) == 2 + 110 + 1 + 1
    assert shown[-2].endswith(" 00 …  19780 bytes more")
    assert shown[-1] == "= TCP closed"


def test_of_what_was_not_kept_the_size_is_told():
    (line,) = lines(HEAD, (">", frame(2, bytes(1 << 20), key=b"")))[2:]
    assert line.startswith("> 82 7f 00 00 00 00 00 10 00 00 00")
    assert line.endswith(" 1048586 bytes more")


def test_of_many_lines_the_first_and_the_last_are_shown():
    there_and_back = [("<", b"\x89\x00"), (">", b"\x8a\x00")] * 1000
    shown = lines(HEAD, ("<", b"y\r\n\r\n"), *there_and_back, ("=", b"TCP closed"))
    assert len(shown) == 256 + 1 + 16
    assert shown[256] == "… 1733 lines more"
    assert shown[-1] == "= TCP closed"


def test_of_a_long_header_the_beginning_is_shown():
    assert lines((">", b"a: " + b"b" * 1000 + b"\r\n\r\n"))[0] == (
        "> a: " + "b" * 253 + " … of 1003 bytes"
    )
