"""Heads of requests: any bytes, cut in any way, get one decision and one well-formed answer.

An input's first byte chooses the options, its second one the cuts; the rest is what is sent.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING

from echo_service import endpoints, forwarded, upgrade
from echo_service.request import Refused, RequestReader, switching_protocols
from fuzz.law import cut

if TYPE_CHECKING:
    import h11

PEER = "10.0.0.1:5000"

PROXIES = (forwarded.trusted("10.0.0.0/8"), forwarded.trusted("::/0"))

ORIGINS = {upgrade.origin("https://app.example"), upgrade.origin("null")}

STATUSES = {101, 200, 400, 403, 404, 405, 414, 426, 431, 503, 505}
"""503 is that of /readyz alone here."""

_STATUS_LINE = re.compile(r"HTTP/1\.1 ([1-5][0-9]{2}) [A-Za-z -]+")
_FIELD = re.compile(r"([A-Za-z-]+): ([\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?)")
_NAME = re.compile(r"[\x21-\x7e]{1,150}")


def check(data: bytes) -> None:
    """Judge an input."""
    options, cutting = data[:2].ljust(2, b"\x00")
    sent = data[2:]
    hold(options, sent, list(cut(sent, cutting)))


def hold(options: int, sent: bytes, pieces: list[bytes]) -> None:
    """Hold the decision on these pieces against that on the whole, and against what was sent."""
    decision = decide(options, pieces)
    assert decision == decide(options, [sent] if sent else []), (decision, pieces)
    if decision is None:
        return
    answer, client, rest = decision
    assert _NAME.fullmatch(client)
    head, end, body = answer.partition(b"\r\n\r\n")
    assert end
    status, fields = read(head)
    assert status in STATUSES
    if status == 101:
        assert sent.endswith(rest)
        hold_opening(sent[: len(sent) - len(rest)], fields)
    else:
        assert fields["connection"].split(", ")[0] == "close"
        assert int(fields["content-length"]) == len(body) or (
            sent.startswith(b"HEAD ") and not body
        )
    if status >= 400:
        assert fields["content-type"] == "text/plain; charset=utf-8"
        assert not body or re.fullmatch(rb"[\x20-\x7e]+\n", body), body
    required = {426: "upgrade", 405: "allow"}.get(status)
    assert required is None or required in fields


def decide(options: int, pieces: list[bytes]) -> tuple[bytes, str, bytes] | None:
    """The answer, the client's name and what is left of the bytes; None before the end."""
    reader = RequestReader()
    for number, piece in enumerate(pieces):
        try:
            request = reader.receive(piece)
            if request is None:
                continue
            client = forwarded.client(PEER, request.headers, PROXIES if options & 8 else ())
            rest = reader.trailing + b"".join(pieces[number + 1 :])
            answer = _answer(options, request)
        except Refused as refused:
            client, rest = PEER, b""
            answer = endpoints.refusal(refused)
        if isinstance(answer, bytes):
            return answer, client, rest
        return reader.answer(answer.status, answer.headers, answer.body.encode()), client, rest
    return None


def _answer(options: int, request: h11.Request) -> bytes | endpoints.Answer:
    """As a connection has it, or with the option 16, the second address."""
    ready = not options & 32
    if options & 16:
        metrics = endpoints.Answer(200, [endpoints.TEXT], "")
        return endpoints.answer_admin(request, ready=ready, metrics=lambda: metrics)
    accepted = upgrade.accept(
        request,
        compress=bool(options & 1),
        subprotocols=("chat", "superchat") if options & 2 else (),
        origins=ORIGINS if options & 4 else None,
    )
    if accepted is None:
        return endpoints.answer(request, ready=ready)
    return switching_protocols(accepted.headers)


def read(head: bytes) -> tuple[int, dict[str, str]]:
    """The status and the fields of an answer's head, which is ASCII without control characters."""
    line, *lines = head.decode("ascii").split("\r\n")
    match = _STATUS_LINE.fullmatch(line)
    assert match, line
    fields = {}
    for each in lines:
        found = _FIELD.fullmatch(each)
        assert found, each
        assert found[1].lower() not in fields, each
        fields[found[1].lower()] = found[2]
    return int(match[1]), fields


def hold_opening(head: bytes, fields: dict[str, str]) -> None:
    """Only an opening handshake gets a 101, and what it says follows from it (RFC 6455 4.2)."""
    line, *lines = head.removesuffix(b"\r\n\r\n").decode("latin-1").split("\r\n")
    sent: dict[str, list[str]] = {}
    for each in lines:
        name, _, value = each.partition(":")
        sent.setdefault(name.lower(), []).append(value.strip(" \t"))
    (key,) = sent["sec-websocket-key"]
    offered = ",".join(sent.get("sec-websocket-protocol", ())).split(",")
    assert re.fullmatch(r"GET (/|http)[\x21-\x7e]* HTTP/1\.[1-9]", line), line
    assert len(sent["host"]) == 1
    assert len(base64.b64decode(key, validate=True)) == 16
    assert sent["sec-websocket-version"] == ["13"]
    assert "websocket" in _tokens(sent["upgrade"])
    assert "upgrade" in _tokens(sent["connection"])
    assert not {"content-length", "transfer-encoding"} & sent.keys()
    digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11")  # noqa: S324
    assert base64.b64decode(fields["sec-websocket-accept"], validate=True) == digest.digest()
    assert fields["upgrade"] == "websocket"
    assert fields["connection"] == "Upgrade"
    subprotocol = fields.get("sec-websocket-protocol")
    assert subprotocol is None or subprotocol in [each.strip(" \t") for each in offered]
    if "sec-websocket-extensions" in fields:
        assert "permessage-deflate" in ",".join(sent["sec-websocket-extensions"])


def _tokens(values: list[str]) -> list[str]:
    return [token.strip(" \t").lower() for token in ",".join(values).split(",")]
