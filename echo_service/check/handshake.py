"""The opening handshake (RFC 6455 4)."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from echo_service.check import judge
from echo_service.check.client import in_words
from echo_service.check.judge import Item, Judgement, Verdict
from echo_service.check.row import Check, survives
from echo_service.check.wire import TEXT, frame

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from echo_service.check.client import Client, Trial
    from echo_service.check.wire import Answer

_ITEM: Final = Item(TEXT, b"Hello")
_FIRST: Final = Item(TEXT, b"first")


class Asked(NamedTuple):
    """A request: the headers that are changed, and those that are added."""

    changed: Mapping[str, str | None] = MappingProxyType({})
    extra: Sequence[tuple[str, str]] = ()
    method: str = "GET"
    version: str = "HTTP/1.1"

    def of(self, trial: Trial) -> tuple[bytes, str]:
        """The request's bytes, and what accepts it."""
        return trial.ask(*self.extra, method=self.method, version=self.version, **self.changed)


_PLAIN: Final = Asked()


def wrong(answer: Answer, accept: str, asked: Asked) -> str:
    """What a 101 may not have, or lacks (RFC 6455 4.2.2 5); empty where all is well."""
    if answer.all("sec-websocket-accept") != [accept]:
        return "RFC 6455 4.2.2 5.4: Sec-WebSocket-Accept is wrong or missing"
    if [value.lower() for value in answer.elements("upgrade")] != ["websocket"]:
        return "RFC 6455 4.2.2 5.2: Upgrade is not websocket"
    if "upgrade" not in [value.lower() for value in answer.elements("connection")]:
        return "RFC 6455 4.2.2 5.3: Connection is not Upgrade"
    if answer.all("sec-websocket-extensions"):
        return "RFC 6455 9.1: an extension that was not offered is accepted"
    offered = [v for n, values in asked.extra if n.endswith("Protocol") for v in values.split(", ")]
    if not {*answer.all("sec-websocket-protocol")} <= {*offered}:
        return "RFC 6455 4.2.2 5.5: a subprotocol that was not offered is chosen"
    return ""


async def _accepted(client: Client, accept: str, asked: Asked) -> Judgement:
    """Of an answer that has to be a 101, after which there is an echo."""
    answer = await client.answer()
    observed = in_words(answer, client.ending)
    if answer is None or answer.status != 101:
        return Judgement(Verdict.FAIL, observed, "it is a valid opening handshake")
    if found := wrong(answer, accept, asked):
        return Judgement(Verdict.FAIL, observed, found)
    if chosen := answer.all("sec-websocket-protocol"):
        observed += f", subprotocol {chosen[0]}"
    await client.send(frame(*_ITEM))
    judgement = judge.echoed(await client.come(1), [_ITEM])
    if judgement.verdict is Verdict.PASS:
        await client.leave()
    return judgement._replace(observed=f"{observed}, {judgement.observed}")


def _accepts(
    name: str,
    clause: str,
    asked: Asked = _PLAIN,
    rewrite: Callable[[bytes], Sequence[bytes]] = lambda request: [request],
) -> Check:
    """A valid opening handshake; ``rewrite`` gives the parts that it is sent in."""

    async def steps(trial: Trial) -> Judgement:
        client = await trial.connect()
        request, accept = asked.of(trial)
        await client.send(*rewrite(request))
        return await _accepted(client, accept, asked)

    return Check(f"handshake.{name}", clause, "", "101, Text 'Hello'", steps)


def _refuses(
    name: str,
    clause: str,
    asked: Asked,
    expected: str = "an error, 4xx",
    *,
    statuses: Collection[int] = range(400, 500),
    lenient: str = "",
    needs: str = "",
) -> Check:
    """What is no opening handshake is answered with another status than 101 (RFC 6455 4.2.1).

    ``lenient`` is why accepting it is allowed, if it is; ``needs`` a header the answer has.
    """

    async def steps(trial: Trial) -> Judgement:
        client = await trial.connect()
        await client.send(asked.of(trial)[0])
        answer = await client.answer()
        observed = in_words(answer, client.ending)
        if answer is None or answer.status == 0:
            why = "RFC 6455 4.2.1: an HTTP answer is due"
            return Judgement(Verdict.FAIL, observed, why)
        if answer.status == 101:
            verdict = Verdict.NON_STRICT if lenient else Verdict.FAIL
            return Judgement(verdict, observed, lenient or "RFC 6455 4.2.1: it is none")
        if needs and not answer.all(needs.lower()):
            return Judgement(Verdict.FAIL, observed, f"{clause}: {needs} is missing")
        if answer.status in statuses:
            return Judgement(Verdict.PASS, observed)
        why = "RFC 6455 4.2.1: refused, but an appropriate error says what is wrong"
        return Judgement(Verdict.NON_STRICT, observed, why)

    return Check(f"handshake.{name}", clause, "", expected, steps)


def _names(spell: Callable[[bytes], bytes]) -> Callable[[bytes], Sequence[bytes]]:
    """Spell the names of the headers another way."""

    def rewrite(request: bytes) -> Sequence[bytes]:
        start, *lines = request.split(b"\r\n")
        pairs = (line.partition(b":") for line in lines)
        spelt = [start, *(spell(name) + colon + value for name, colon, value in pairs)]
        return [b"\r\n".join(spelt)]

    return rewrite


async def _origin(trial: Trial) -> Judgement:
    """Whether a browser's page from elsewhere may connect is the server's choice."""
    client = await trial.connect()
    asked = Asked(extra=[("Origin", "http://elsewhere.example")])
    request, accept = asked.of(trial)
    await client.send(request)
    answer = await client.answer()
    if answer is not None and answer.status == 403:
        return Judgement(Verdict.PASS, in_words(answer, None))
    found = wrong(answer, accept, asked) if answer and answer.status == 101 else "neither"
    verdict = Verdict.FAIL if found else Verdict.PASS
    await client.leave()
    return Judgement(verdict, in_words(answer, client.ending), found)


async def pipelined(trial: Trial) -> Judgement:
    """A client has to wait for the answer (4.1); what it sends early may be lost with reason."""
    client = await trial.connect()
    request, accept = trial.ask()
    await client.send(request + frame(*_FIRST))
    answer = await client.answer()
    observed = in_words(answer, client.ending)
    why = "RFC 6455 4.1: a client waits for the answer"
    if answer is None or answer.status != 101:
        return Judgement(Verdict.NON_STRICT, observed, why)
    if found := wrong(answer, accept, _PLAIN):
        return Judgement(Verdict.FAIL, observed, found)
    await client.send(frame(*_ITEM))
    came = await client.come(1)
    observed = f"{observed}, {judge.tell(came)}"
    if judge.items(came.frames) == [_FIRST]:
        return Judgement(Verdict.PASS, observed)
    return Judgement(Verdict.NON_STRICT, observed, why)


_KEY: Final = "RFC 6455 4.2.1 5"
_NOT_DECODED: Final = "RFC 6455 4.2.2 5.4: a server need not decode the key"

CHECKS: Final = (
    _accepts("accept-key", "RFC 6455 4.2.2"),
    _accepts("names-lower-case", "RFC 9110 5.1", rewrite=_names(bytes.lower)),
    _accepts("names-upper-case", "RFC 9110 5.1", rewrite=_names(bytes.upper)),
    _accepts(
        "values-any-case",
        "RFC 6455 4.2.1",
        Asked({"Upgrade": "WebSocket", "Connection": "UPGRADE"}),
    ),
    _accepts(
        "connection-list", "RFC 6455 4.2.1", Asked({"Connection": "keep-alive, Upgrade, x-other"})
    ),
    _accepts(
        "connection-twice",
        "RFC 9110 5.3",
        Asked({"Connection": "keep-alive"}, [("Connection", "Upgrade")]),
    ),
    _accepts(
        "whitespace",
        "RFC 9110 5.5",
        rewrite=lambda request: [
            request.replace(b": ", b":").replace(b":Upgrade", b": \tUpgrade ")
        ],
    ),
    _accepts(
        "unknown-headers",
        "RFC 6455 4.2.1",
        Asked(extra=[("X-Echo-Service-Check", "1"), ("Cookie", "a=1; b=2")]),
    ),
    _accepts(
        "extension-unknown",
        "RFC 6455 9.1",
        Asked(extra=[("Sec-WebSocket-Extensions", "x-echo-service-check; a=1")]),
    ),
    _accepts(
        "subprotocols",
        "RFC 6455 4.2.2 5.5",
        Asked(extra=[("Sec-WebSocket-Protocol", "echo, x-echo-service-check")]),
    ),
    Check("handshake.origin", "RFC 6455 10.2", "", "101, or 403", _origin),
    _accepts(
        "segments",
        "RFC 9112 2.2",
        rewrite=lambda request: [request[:20], request[20:-1], request[-1:]],
    ),
    survives("handshake.pipelined", "RFC 6455 4.1", "101, Text 'first'", pipelined),
    _refuses("host-none", "RFC 9112 3.2", Asked({"Host": None}), "400", statuses=[400]),
    _refuses(
        "host-twice",
        "RFC 9112 3.2",
        Asked(extra=[("Host", "other.example")]),
        "400",
        statuses=[400],
    ),
    _refuses(
        "upgrade-none",
        "RFC 6455 4.2.1 3",
        Asked({"Upgrade": None}),
        "anything but 101",
        statuses=range(200, 600),
    ),
    _refuses(
        "connection-none",
        "RFC 6455 4.2.1 4",
        Asked({"Connection": None}),
        "anything but 101",
        statuses=range(200, 600),
    ),
    _refuses("key-none", _KEY, Asked({"Sec-WebSocket-Key": None})),
    _refuses("key-twice", "RFC 6455 11.3.1", Asked(extra=[("Sec-WebSocket-Key", "A" * 22 + "==")])),
    _refuses(
        "key-8-bytes", _KEY, Asked({"Sec-WebSocket-Key": "AAAAAAAAAAA="}), lenient=_NOT_DECODED
    ),
    _refuses("key-not-base64", _KEY, Asked({"Sec-WebSocket-Key": "?" * 24}), lenient=_NOT_DECODED),
    _refuses("version-none", "RFC 6455 4.2.1 6", Asked({"Sec-WebSocket-Version": None})),
    *(
        _refuses(
            f"version-{version}",
            "RFC 6455 4.4",
            Asked({"Sec-WebSocket-Version": version}),
            "an error, 4xx, with Sec-WebSocket-Version",
            needs="Sec-WebSocket-Version",
        )
        for version in ("8", "14", "x")
    ),
    _refuses("method-post", "RFC 6455 4.2.1 1", Asked(method="POST")),
    _refuses(
        "http-1.0",
        "RFC 6455 4.2.1 1",
        Asked(version="HTTP/1.0"),
        "anything but 101",
        statuses=range(200, 600),
    ),
)
