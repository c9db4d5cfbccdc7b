"""What came → a verdict: each, and how it is missed."""

from __future__ import annotations

import pytest

from echo_service.check import judge
from echo_service.check.judge import NO_CODE, Item, Verdict
from echo_service.check.wire import Came, Ending, Frame

PASS, NON_STRICT, FAIL = Verdict.PASS, Verdict.NON_STRICT, Verdict.FAIL
CLOSED, RESET, WAITING = Ending.CLOSED, Ending.RESET, Ending.WAITING
HELLO = Frame(1, b"Hello")
ITEM = Item(1, b"Hello")


def close(code: int | None = None, reason: bytes = b"") -> Frame:
    return Frame(8, b"" if code is None else code.to_bytes(2, "big") + reason)


def pong(payload: bytes) -> Frame:
    return Frame(10, payload)


@pytest.mark.parametrize(
    "frames, ending, expected",
    [
        ([HELLO], None, PASS),
        ([Frame(1, b"Hel", fin=False), Frame(0, b"lo")], None, PASS),
        ([Frame(1, b"Hel", fin=False), pong(b""), Frame(0, b"lo")], None, FAIL),
        ([Frame(2, b"Hello")], None, FAIL),
        ([Frame(1, b"Hella")], None, FAIL),
        ([HELLO, HELLO], None, FAIL),
        ([Frame(1, b"Hello", fin=False)], WAITING, FAIL),
        ([], CLOSED, FAIL),
        ([], RESET, FAIL),
        ([], WAITING, FAIL),
        ([close(1000)], None, FAIL),
        ([Frame(1, b"Hello", masked=True)], None, FAIL),
    ],
)
def test_a_message_comes_back_as_it_went(frames, ending, expected):
    assert judge.echoed(Came(frames, ending), [ITEM]).verdict is expected


@pytest.mark.parametrize(
    "frames, expected",
    [
        ([pong(b"1"), pong(b"2"), pong(b"3"), HELLO], PASS),
        ([HELLO, pong(b"1"), pong(b"2"), pong(b"3")], PASS),
        ([pong(b"3"), HELLO], NON_STRICT),
        ([pong(b"1"), pong(b"3"), HELLO], NON_STRICT),
        ([pong(b"1"), pong(b"2"), HELLO], FAIL),
        ([pong(b"2"), pong(b"1"), pong(b"3"), HELLO], FAIL),
        ([pong(b"1"), pong(b"2"), pong(b"3")], FAIL),
        ([HELLO], FAIL),
        ([pong(b"1"), pong(b"2"), pong(b"3"), pong(b"3"), HELLO], FAIL),
    ],
)
def test_of_several_pings_the_latest_has_to_be_answered(frames, expected):
    wanted = [*(Item(10, payload) for payload in (b"1", b"2", b"3")), ITEM]
    assert judge.echoed(Came(frames), wanted).verdict is expected


class Part(bytes):
    """A payload that is not to be put behind others one by one: that takes quadratic time."""

    def __radd__(self, before: bytes) -> bytes:
        pytest.fail(f"put behind {len(before)} bytes")


def test_fragments_are_put_together_at_once():
    frames = [Frame(1, Part(b"a"), fin=False), *[Frame(0, Part(b"b"), fin=False)] * 9]
    assert judge.items([*frames, Frame(0, Part(b"c"))]) == [Item(1, b"abbbbbbbbbc")]
    assert judge.items(frames) == []


@pytest.mark.parametrize(
    "frames, ending, expected",
    [
        ([close(1002)], None, PASS),
        ([close(1002, b"why")], None, PASS),
        ([close(1008)], None, NON_STRICT),
        ([close()], None, NON_STRICT),
        ([], CLOSED, NON_STRICT),
        ([], RESET, NON_STRICT),
        ([], WAITING, FAIL),
        ([], Ending.FLOOD, FAIL),
        ([], Ending.HEAD, FAIL),
        ([close(1000)], None, FAIL),
        ([close(1001)], None, FAIL),
        ([close(3000)], None, FAIL),
        ([close(0)], None, FAIL),
        ([HELLO], None, FAIL),
        ([pong(b"")], None, FAIL),
    ],
)
def test_a_violation_fails_the_connection(frames, ending, expected):
    assert judge.failed(Came(frames, ending), (1002,)).verdict is expected


@pytest.mark.parametrize(
    "frames, ending, expected",
    [
        ([HELLO, close(1002)], None, PASS),
        ([close(1002)], None, NON_STRICT),
        ([], CLOSED, NON_STRICT),
        ([HELLO], CLOSED, NON_STRICT),
        ([HELLO], WAITING, FAIL),
        ([HELLO, HELLO], None, FAIL),
        ([Frame(1, b"other"), close(1002)], None, FAIL),
        ([close(1000)], None, FAIL),
    ],
)
def test_what_came_before_a_violation_is_answered_first(frames, ending, expected):
    assert judge.failed(Came(frames, ending), (1002,), [ITEM]).verdict is expected


@pytest.mark.parametrize(
    "sent, frames, ending, expected",
    [
        (3000, [close(3000)], None, PASS),
        (3000, [HELLO, close(3000)], None, PASS),
        (3000, [close(1000)], None, NON_STRICT),
        (3000, [close()], None, NON_STRICT),
        (3000, [close(1002)], None, FAIL),
        (3000, [close(3001)], None, FAIL),
        (3000, [close(3000, b"\xff")], None, FAIL),
        (3000, [], CLOSED, FAIL),
        (3000, [], RESET, FAIL),
        (3000, [], WAITING, FAIL),
        (1014, [close(1014)], None, PASS),
        (1014, [close(1002)], None, NON_STRICT),
        (1014, [], CLOSED, NON_STRICT),
        (1014, [], WAITING, FAIL),
        (1014, [close(1007)], None, FAIL),
        (NO_CODE, [close()], None, PASS),
        (NO_CODE, [close(1000)], None, PASS),
        (NO_CODE, [close(1005)], None, FAIL),
        (NO_CODE, [close(1002)], None, FAIL),
    ],
)
def test_a_valid_close_is_answered(sent, frames, ending, expected):
    assert judge.closed(Came(frames, ending), sent).verdict is expected


@pytest.mark.parametrize(
    "after, expected",
    [
        (Came([], CLOSED), PASS),
        (Came([], WAITING), PASS),
        (Came([], Ending.FLOOD), FAIL),
        (Came([pong(b"")], CLOSED), FAIL),
        (Came([close(1000)]), FAIL),
    ],
)
def test_after_the_closing_handshake_there_is_silence(after, expected):
    assert judge.silent(after, "Close 1000").verdict is expected


@pytest.mark.parametrize(
    "ending, expected", [(CLOSED, PASS), (RESET, NON_STRICT), (WAITING, FAIL), (None, FAIL)]
)
def test_after_the_closing_handshake_the_server_closes_tcp(ending, expected):
    assert judge.torn_down(ending, "Close 1000").verdict is expected


@pytest.mark.parametrize(
    "frames, words",
    [
        ([HELLO, pong(b""), close(), Frame(9, b"")], ""),
        ([Frame(1, b"", fin=False), pong(b""), Frame(0, b"")], ""),
        ([close(1000, b"*" * 123)], ""),
        ([Frame(1, b"", masked=True)], "Text is masked: RFC 6455 5.1"),
        ([Frame(1, b"", rsv=4)], "Text has a reserved bit set: RFC 6455 5.2"),
        ([Frame(3, b"")], "opcode 3 is reserved: RFC 6455 5.2"),
        ([Frame(1, b"a", length=2)], "Text has a length that is not minimal: RFC 6455 5.2"),
        ([Frame(1, bytes(126), length=8)], "Text has a length that is not minimal: RFC 6455 5.2"),
        ([Frame(0, b"")], "Continuation is out of order: RFC 6455 5.4"),
        ([Frame(1, b"", fin=False), HELLO], "Text is out of order: RFC 6455 5.4"),
        (
            [Frame(10, b"", fin=False)],
            "Pong is fragmented or over 125 bytes: RFC 6455 5.5",
        ),
        (
            [Frame(8, bytes(126), length=2)],
            "Close is fragmented or over 125 bytes: RFC 6455 5.5",
        ),
        ([Frame(8, b"a")], "Close has a body of one byte: RFC 6455 5.5.1"),
        ([close(1005)], "Close has the code 1005, which must not be sent: RFC 6455 7.4"),
        ([close(1000, b"\xff")], "Close has a reason that is not UTF-8: RFC 6455 5.5.1"),
    ],
)
def test_a_server_may_break_no_rule_itself(frames, words):
    assert judge.fault(frames) == words


def test_rsv1_is_allowed_where_it_was_agreed_on_in_the_first_frame_of_a_message():
    first, rest = Frame(1, b"", fin=False, rsv=4), Frame(0, b"")
    assert judge.fault([first, rest], rsv=4) == ""
    assert judge.fault([first, rest._replace(rsv=4)], rsv=4) != ""
    assert judge.fault([Frame(9, b"", rsv=4)], rsv=4) != ""
    assert judge.fault([Frame(1, b"", rsv=6)], rsv=4) != ""


@pytest.mark.parametrize(
    "came, words",
    [
        (Came([]), "nothing"),
        (Came([], WAITING), "nothing more in time"),
        (Came([HELLO, close(1002, b"why")]), "Text 'Hello', Close 1002 'why'"),
        (Came([close()], CLOSED), "Close without a code, TCP closed"),
        (Came([pong(b"\xff\x00"), Frame(2, b"")]), "Pong ff 00, Binary ''"),
        (Came([close(1000, b"a" * 9999)]), f"Close 1000 '{'a' * 123}'"),
        (Came([Frame(1, b"a" * 30)]), f"Text '{'a' * 24}'… of 30 bytes"),
        (Came([HELLO] * 6), "Text 'Hello', Text 'Hello', … 3 more, Text 'Hello'"),
    ],
)
def test_what_came_is_told(came, words):
    assert judge.tell(came) == words
