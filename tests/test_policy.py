"""Close codes and endings: numbers and bytes in, the Close that is sent out."""

from __future__ import annotations

import pytest

from echo_service import policy
from echo_service.policy import Ending, Verdict, Violation

ECHOED = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
"""The codes that may stand on the wire, and so are answered with themselves."""

REFUSED = {
    *range(1000),
    1004,
    1005,
    1006,
    1015,
    *range(1016, 3000),
    *range(5000, 65536),
}
"""The codes that may not, and so are answered with 1002."""

VIOLATIONS = {
    "UNMASKED": (1002, "RFC 6455 5.1", "protocol_error"),
    "OPCODE": (1002, "RFC 6455 5.2", "protocol_error"),
    "RESERVED_BIT": (1002, "RFC 6455 5.2", "protocol_error"),
    "LENGTH_NOT_MINIMAL": (1002, "RFC 6455 5.2", "protocol_error"),
    "LENGTH_OVER_63_BITS": (1002, "RFC 6455 5.2", "protocol_error"),
    "FRAME": (1002, "RFC 6455 5", "protocol_error"),
    "CONTINUATION_STRAY": (1002, "RFC 6455 5.4", "protocol_error"),
    "CONTINUATION_MISSING": (1002, "RFC 6455 5.4", "protocol_error"),
    "CONTROL_FRAGMENTED": (1002, "RFC 6455 5.5", "protocol_error"),
    "CONTROL_LONG": (1002, "RFC 6455 5.5", "protocol_error"),
    "CLOSE_BODY": (1002, "RFC 6455 5.5.1", "protocol_error"),
    "CLOSE_REASON": (1007, "RFC 6455 5.5.1", "invalid_data"),
    "TEXT": (1007, "RFC 6455 8.1", "invalid_data"),
    "DEFLATE": (1007, "RFC 7692 7.2.2", "invalid_data"),
    "DEFLATED_TEXT": (1007, "RFC 6455 8.1", "invalid_data"),
    "TOO_BIG": (1009, "RFC 6455 10.4", "too_big"),
    "TOO_MANY_FRAGMENTS": (1008, "RFC 6455 10.4", "too_many_fragments"),
}

OURS = [policy.IDLE, policy.INTERNAL_ERROR, *policy.DRAINING.values()]


def test_the_two_lists_of_codes_here_are_complete_and_apart():
    assert set(range(65536)) == ECHOED | REFUSED
    assert not ECHOED & REFUSED


def test_the_table_has_every_code_once_and_in_order():
    assert policy.CLOSE_CODES[0].first == 0
    assert policy.CLOSE_CODES[-1].last == 65535
    for before, after in zip(policy.CLOSE_CODES, policy.CLOSE_CODES[1:], strict=False):
        assert before.first <= before.last
        assert after.first == before.last + 1


def test_each_code_is_found_in_its_row():
    assert all(policy.row(code).first <= code <= policy.row(code).last for code in range(65536))


@pytest.mark.parametrize("reason", [b"", b"why", "Grüße".encode(), b"x" * 123])
def test_a_code_that_may_be_sent_is_echoed_with_its_reason(reason):
    for code in ECHOED:
        payload = code.to_bytes(2, "big") + reason
        assert policy.closed(payload) == Verdict(Ending.PEER_CLOSED, payload, code)


@pytest.mark.parametrize("reason", [b"", b"why", b"\xff", b"x" * 123])
def test_a_code_that_may_not_be_sent_is_answered_with_1002(reason):
    for code in REFUSED:
        verdict = policy.closed(code.to_bytes(2, "big") + reason)
        assert verdict.ending is Ending.PROTOCOL_ERROR
        assert verdict.received_code == code
        assert verdict.close is not None
        assert verdict.close.startswith(b"\x03\xea")


@pytest.mark.parametrize(
    "code, why, rule",
    [
        (0, "not used", "RFC 6455 7.4.2"),
        (999, "not used", "RFC 6455 7.4.2"),
        (1004, "reserved", "RFC 6455 7.4.1"),
        (1005, "never on the wire", "RFC 6455 7.4.1"),
        (1006, "never on the wire", "RFC 6455 7.4.1"),
        (1015, "never on the wire", "RFC 6455 7.4.1"),
        (1016, "not assigned", "RFC 6455 7.4.2"),
        (2999, "not assigned", "RFC 6455 7.4.2"),
        (5000, "not defined", "RFC 6455 7.4.2"),
        (65535, "not defined", "RFC 6455 7.4.2"),
    ],
)
def test_the_answer_to_a_bad_code_names_the_code_and_the_clause(code, why, rule):
    close = b"\x03\xea" + f"close code {code} is {why} ({rule})".encode()
    expected = Verdict(Ending.PROTOCOL_ERROR, close, code, rule)
    assert policy.closed(code.to_bytes(2, "big")) == expected
    assert expected.sent_code == 1002


def test_a_close_without_a_body_is_answered_with_one_without_a_body():
    verdict = policy.closed(b"")
    assert verdict == Verdict(Ending.PEER_CLOSED, b"", 1005)
    assert verdict.sent_code == 1005


def test_a_close_that_the_client_asked_for_may_have_any_code():
    assert policy.asked(b"\x00\x00why") == Verdict(Ending.ASKED, b"\x00\x00why")
    assert policy.asked(b"\x00\x00why").sent_code == 0
    assert policy.asked(b"").sent_code == 1005
    assert Verdict(Ending.ASKED, None, 1006) == policy.DROPPED


@pytest.mark.parametrize("body", [b"\x00", b"\x03", b"\x20", b"\xff"])
def test_a_body_of_one_byte_is_1002(body):
    close = b"\x03\xeaa Close with a body of one byte (RFC 6455 5.5.1)"
    assert policy.closed(body) == Verdict(Ending.PROTOCOL_ERROR, close, None, "RFC 6455 5.5.1")


@pytest.mark.parametrize("code", [1000, 1014, 3000, 4999])
@pytest.mark.parametrize(
    "reason",
    [
        b"\xff",
        b"fine so far \x80",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"cut \xe2\x82",
    ],
)
def test_a_reason_that_is_not_utf_8_is_1007(code, reason):
    close = b"\x03\xefa close reason that is not UTF-8 (RFC 6455 5.5.1)"
    expected = Verdict(Ending.INVALID_DATA, close, code, "RFC 6455 5.5.1")
    assert policy.closed(code.to_bytes(2, "big") + reason) == expected
    assert expected.sent_code == 1007


def test_the_violations_listed_here_are_all():
    assert set(VIOLATIONS) == set(Violation.__members__)


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_fails_the_connection_with_its_code_words_and_clause(name):
    code, rule, ending = VIOLATIONS[name]
    violation = Violation[name]
    verdict = policy.violated(violation)
    close = code.to_bytes(2, "big") + f"{violation.words} ({rule})".encode()
    assert verdict == Verdict(Ending(ending), close, None, rule)
    assert verdict.sent_code == code


@pytest.mark.parametrize(
    "verdict, ending, received, sent",
    [
        (policy.IDLE, "idle", None, 1011),
        (policy.INTERNAL_ERROR, "internal_error", None, 1011),
        (policy.DRAINING[1001], "draining", None, 1001),
        (policy.DRAINING[1012], "draining", None, 1012),
        (policy.STALLED, "stalled", 1006, None),
        (policy.CANCELLED, "cancelled", 1006, None),
        (policy.VANISHED, "vanished", 1006, None),
    ],
)
def test_what_ends_a_connection_from_our_side_breaks_no_rule(verdict, ending, received, sent):
    assert verdict.ending.value == ending
    assert verdict.received_code == received
    assert verdict.sent_code == sent
    assert verdict.rule is None


def test_a_drain_closes_with_1001_or_1012():
    assert set(policy.DRAINING) == {1001, 1012}


@pytest.mark.parametrize(
    "payload, code",
    [
        (b"", 1005),
        (b"\x03", None),
        (b"\x03\xe8", 1000),
        (b"\x03\xe8\xff", 1000),
        (b"\x00\x00", 0),
        (b"\xff\xff", 65535),
    ],
)
def test_the_code_of_a_close_is_its_first_two_bytes(payload, code):
    assert policy.close_code(payload) == code


@pytest.mark.parametrize(
    "code, reason, payload",
    [
        (1000, "", b"\x03\xe8"),
        (1011, "why", b"\x03\xf3why"),
        (4999, "x" * 123, b"\x13\x87" + b"x" * 123),
        (1001, "x" * 124, b"\x03\xe9" + b"x" * 123),
    ],
)
def test_a_close_that_we_make_has_at_most_123_bytes_of_reason(code, reason, payload):
    assert policy.close_payload(code, reason) == payload


def test_no_close_is_longer_than_125_bytes_or_says_what_may_not_be_sent():
    verdicts = [*OURS, policy.closed(b""), policy.closed(b"\x03"), policy.closed(b"\x03\xe8\xff")]
    verdicts += map(policy.violated, Violation)
    verdicts += [policy.closed(code.to_bytes(2, "big") + b"x" * 123) for code in range(65536)]
    for verdict in verdicts:
        assert verdict.close is not None
        assert len(verdict.close) <= 125
        assert verdict.close == b"" or int.from_bytes(verdict.close[:2], "big") in ECHOED


def test_our_own_reasons_are_ascii():
    """So that to cut one at 123 bytes never cuts a character."""
    reasons = [verdict.close[2:] for verdict in [*OURS, *map(policy.violated, Violation)]]
    assert all(reason.isascii() for reason in reasons)
