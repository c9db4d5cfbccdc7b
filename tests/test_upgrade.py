"""The opening handshake: a request in, the headers of a 101 or a refusal out."""

from __future__ import annotations

import pytest

from echo_service import upgrade
from echo_service.compression import Parameters
from echo_service.request import Refused, RequestReader
from tests import wire

SWITCH = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
]
"""The answer to a handshake without an offer (RFC 6455 1.3)."""

VALUES = {
    "Host": "echo.example",
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Origin": "https://echo.example",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
    "Sec-WebSocket-Protocol": "chat, superchat",
}
"""A good value of every header that the handshake reads, but for those that announce a body."""


def accept(data, **options):
    """What these bytes are answered as an opening handshake."""
    return upgrade.accept(RequestReader().receive(data), **options)


def refused(data, **options):
    """The refusal that these bytes are answered with."""
    with pytest.raises(Refused) as caught:
        accept(data, **options)
    return caught.value


@pytest.mark.parametrize(
    "request_head",
    [
        wire.request(),
        wire.request("/chat?room=1"),
        wire.request(Upgrade="WebSocket", Connection="uPGRADE"),
        wire.request(Upgrade="h2c, websocket"),
        wire.request(Connection="keep-alive, Upgrade"),
        wire.request(Connection="keep-alive\t,\t upgrade ,"),
        wire.request("/", ("Connection", "keep-alive")),
        wire.request("/", ("Connection", "Upgrade"), Connection="keep-alive"),
        wire.request("/", ("Upgrade", "h2c")),
        wire.request("/", ("Cookie", "caf\xe9"), ("X-Control", "a\x01b")),
        wire.request("/", ("Accept-Encoding", "gzip"), ("TE", "trailers")),
        wire.request(Host="xn--a"),
        wire.request(Host=""),
        wire.request("http://echo.example/chat"),
        wire.request(version="HTTP/1.2"),
    ],
)
def test_a_good_handshake_is_accepted(request_head):
    assert accept(request_head) == upgrade.Accepted(SWITCH, None, None)


@pytest.mark.parametrize(
    "key, answer",
    [
        ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),  # RFC 6455 1.3
        ("AQIDBAUGBwgJCgsMDQ4PEA==", "C/0nmHhBztSRGR1CwL6Tf4ZjwpY="),
    ],
)
def test_a_key_is_answered_as_the_rfc_does(key, answer):
    assert upgrade.accept_key(key) == answer


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
        wire.request(Upgrade=None, Sec_WebSocket_Key=None),
        wire.request(Upgrade="h2c", Sec_WebSocket_Key=None),
        wire.request(Upgrade="websockets", Sec_WebSocket_Key=None),
    ],
)
def test_what_asks_for_no_websocket_is_no_handshake(head):
    assert accept(head) is None


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "get"])
def test_a_handshake_with_another_method_is_405(method):
    refusal = refused(wire.request(method=method))
    assert (refusal.status, refusal.headers) == (405, (("Allow", "GET"),))
    assert refusal.cause == f"a WebSocket begins with GET, not {method}"


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/0.9", "HTTP/2.0"])
def test_a_handshake_in_another_http_is_505(version):
    assert refused(wire.request(version=version)).status == 505


@pytest.mark.parametrize("value", [None, "h2c", "web socket", "websocket2", ""])
def test_a_key_without_an_upgrade_is_told_what_to_upgrade_to(value):
    refusal = refused(wire.request(Upgrade=value))
    assert (refusal.status, refusal.headers) == (426, (("Upgrade", "websocket"),))


@pytest.mark.parametrize("version", [None, "", "12", "14", "8", "013", "13.0", "13, 8", "+13"])
def test_another_version_is_told_which_one_there_is(version):
    refusal = refused(wire.request(Sec_WebSocket_Version=version))
    assert refusal.status == 426
    assert ("Sec-WebSocket-Version", "13") in refusal.headers


def test_two_versions_are_none():
    assert refused(wire.request("/", ("Sec-WebSocket-Version", "13"))).status == 426


@pytest.mark.parametrize(
    "request_head",
    [
        wire.request(Host=None),
        wire.request("/", ("Host", "echo.example")),
        wire.request(version="HTTP/1.2", Host=None),
        wire.request(Connection=None),
        wire.request(Connection="keep-alive"),
        wire.request(Connection="Upgrade2, up grade"),
        wire.request("/", ("Connection", "close"), Connection="keep-alive"),
        wire.request(Sec_WebSocket_Key=None),
        wire.request("/", ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")),
        wire.request("/", ("Content-Length", "5")),
        wire.request("/", ("Content-Length", "five")),
        wire.request("/", ("Transfer-Encoding", "chunked")),
        wire.request("/", ("Transfer-Encoding", "gzip, chunked")),
        wire.request("/", ("Content-Length", "5"), ("Transfer-Encoding", "chunked")),
    ],
)
def test_a_handshake_against_the_rfc_is_400(request_head):
    assert refused(request_head).status == 400


@pytest.mark.parametrize(
    "key",
    [
        "",
        "dGhlIHNhbXBsZSBub25jZQ",  # without its padding
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25j",  # 15 bytes
        "dGhlIHNhbXBsZSBub25jZTE=",  # 17 bytes
        "dGhlIHNhbXBsZSBub25jZTEy",  # 18 bytes
        "dGhlIHNhbXBsZSBub25j ZQ==",
        "dGhlIHNhbXBsZSBub25jZ-==",  # the alphabet of URLs
        "dGhlIHNhbXBsZSBub25j====",
        "dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==",
        "x" * 8000,
    ],
)
def test_a_key_that_is_not_the_base64_of_16_bytes_is_400(key):
    refusal = refused(wire.request(Sec_WebSocket_Key=key))
    assert refusal.status == 400
    assert len(refusal.cause) < 150, "what a peer sent is quoted in short"


def test_the_key_in_the_rfc_whose_last_bits_are_not_zero_is_accepted():
    """RFC 6455 4.1 has it as the example of a nonce, so no decoder may be stricter."""
    assert accept(wire.request(Sec_WebSocket_Key="AQIDBAUGBwgJCgsMDQ4PEC==")) is not None


@pytest.mark.parametrize("name", [*VALUES, "Content-Length", "Transfer-Encoding"])
@pytest.mark.parametrize("place", ["start", "middle", "end"])
def test_a_control_or_non_ascii_byte_in_a_header_that_is_read_is_400(name, place):
    value = VALUES.get(name, "10")
    at = {"start": 0, "middle": len(value) // 2, "end": len(value)}[place]
    headers = VALUES | {name: None}
    others = {each.replace("-", "_"): text for each, text in headers.items()}
    for byte in [*range(0x09), *range(0x0A, 0x20), *range(0x7F, 0x100)]:
        odd = value[:at] + chr(byte) + value[at:]
        assert refused(wire.request("/", (name, odd), **others)).status == 400


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("space", ["\t", " ", " \t "])
def test_tabs_and_spaces_around_a_value_change_nothing(name, space):
    headers = VALUES | {name: f"{space}{VALUES[name]}{space}"}
    accepted = accept(wire.request(**{n.replace("-", "_"): v for n, v in headers.items()}))
    assert accepted.compression is not None
    assert accepted.headers[:3] == SWITCH


@pytest.mark.parametrize(
    "name, status",
    [
        ("Upgrade", 426),
        ("Connection", 400),
        ("Sec-WebSocket-Key", 400),
        ("Sec-WebSocket-Version", 426),
        ("Content-Length", 400),
        ("Transfer-Encoding", 400),
    ],
)
@pytest.mark.parametrize("space", ["\t", " "])
def test_a_tab_or_space_inside_a_word_is_another_word(name, status, space):
    value = (VALUES | {"Connection": "Upgrade"}).get(name, "10")
    torn = value[:1] + space + value[1:]
    request = wire.request("/", (name, torn), **{name.replace("-", "_"): None})
    assert refused(request).status == status


@pytest.mark.parametrize(
    "text, expected",
    [
        ("http://echo.example", ("http", "echo.example", 80)),
        ("https://echo.example", ("https", "echo.example", 443)),
        ("ws://echo.example", ("ws", "echo.example", 80)),
        ("wss://echo.example", ("wss", "echo.example", 443)),
        ("HTTPS://Echo.Example:443", ("https", "echo.example", 443)),
        ("https://echo.example:8443", ("https", "echo.example", 8443)),
        ("http://[::1]:80", ("http", "[::1]", 80)),
        ("http://[2001:DB8::1]", ("http", "[2001:db8::1]", 80)),
        ("moz-extension://8c0e1b", ("moz-extension", "8c0e1b", None)),
        ("null", ("null", "", None)),
        ("", None),
        ("NULL", None),
        ("echo.example", None),
        ("https://", None),
        ("https://echo.example/", None),
        ("https://echo.example:", None),
        ("https://echo.example:65535", ("https", "echo.example", 65535)),
        ("https://echo.example:65536", None),
        ("https://echo.example:443443", None),
        ("https://user@echo.example", None),
        ("https://a b", None),
        ("https://echo.example, https://echo.example", None),
        ("https://echo.example\n", None),
    ],
)
def test_an_origin_is_scheme_host_and_port(text, expected):
    assert upgrade.origin(text) == expected


ALLOWED = {("https", "echo.example", 443)}


@pytest.mark.parametrize(
    "sent, origins",
    [
        (None, ALLOWED),
        ("https://echo.example", ALLOWED),
        ("https://echo.example:443", ALLOWED),
        ("HTTPS://ECHO.EXAMPLE", ALLOWED),
        ("null", {("null", "", None)}),
        ("https://evil.example", None),
        ("not an origin", None),
    ],
)
def test_an_origin_that_is_allowed_or_not_sent_passes(sent, origins):
    assert accept(wire.request(Origin=sent), origins=origins).headers == SWITCH


@pytest.mark.parametrize(
    "sent",
    [
        "https://evil.example",
        "http://echo.example",
        "https://echo.example:8443",
        "https://echo.example.evil.example",
        "https://evil.example/https://echo.example",
        "https://echo.example, https://evil.example",
        "null",
        "",
        "x" * 8000,
    ],
)
def test_another_origin_is_403(sent):
    refusal = refused(wire.request(Origin=sent), origins=ALLOWED)
    assert refusal.status == 403
    assert len(refusal.cause) < 150, "what a peer sent is quoted in short"


def test_two_origins_are_403_even_if_both_are_allowed():
    request = wire.request("/", ("Origin", "https://echo.example"), Origin="https://echo.example")
    assert refused(request, origins=ALLOWED).status == 403


@pytest.mark.parametrize(
    "offered, spoken, chosen",
    [
        (["chat"], ["chat"], "chat"),
        (["chat, superchat"], ["superchat", "chat"], "chat"),
        (["other", "superchat"], ["superchat", "chat"], "superchat"),
        (["other,\tchat"], ["chat"], "chat"),
        (["Chat"], ["chat"], None),
        (["chatty"], ["chat"], None),
        (["chat"], [], None),
        ([""], ["chat"], None),
        ([], ["chat"], None),
    ],
)
def test_the_first_subprotocol_of_the_client_that_is_spoken_here_is_chosen(offered, spoken, chosen):
    headers = [("Sec-WebSocket-Protocol", value) for value in offered]
    accepted = accept(wire.request("/", *headers), subprotocols=spoken)
    answer = [("Sec-WebSocket-Protocol", chosen)] if chosen else []
    assert accepted == upgrade.Accepted(SWITCH + answer, None, chosen)


OFFER = ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")
AGREED = ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits=12")


@pytest.mark.parametrize(
    "offers",
    [
        [OFFER],
        [("Sec-WebSocket-Extensions", "foo"), OFFER],
        [("Sec-WebSocket-Extensions", "permessage-deflate; foo"), OFFER],
        [("Sec-WebSocket-Extensions", ""), OFFER, ("Sec-WebSocket-Extensions", "foo")],
    ],
)
def test_the_first_offer_that_can_be_accepted_is_over_several_headers_too(offers):
    accepted = accept(wire.request("/", *offers))
    assert accepted.headers == [*SWITCH, AGREED]
    assert accepted.compression == Parameters(client_max_window_bits=12, response=AGREED[1])


def test_the_101_names_subprotocol_and_extension_after_the_key():
    request = wire.request("/", OFFER, ("Sec-WebSocket-Protocol", "chat"))
    accepted = accept(request, subprotocols=["chat"])
    assert accepted.headers == [*SWITCH, ("Sec-WebSocket-Protocol", "chat"), AGREED]


@pytest.mark.parametrize("value", ["permessage-deflate; foo", "foo", ""])
def test_without_an_offer_that_fits_there_is_a_101_without_an_extension(value):
    request = wire.request("/", ("Sec-WebSocket-Extensions", value))
    assert accept(request) == upgrade.Accepted(SWITCH, None, None)


def test_without_compression_no_offer_is_accepted():
    assert accept(wire.request("/", OFFER), compress=False) == upgrade.Accepted(SWITCH, None, None)


def test_an_extension_can_be_taken_back_and_all_else_stays():
    accepted = accept(wire.request(**{k.replace("-", "_"): v for k, v in VALUES.items()}))
    assert accepted.compression is not None
    assert accepted.uncompressed() == upgrade.Accepted(SWITCH, None, None)
