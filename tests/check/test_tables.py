"""The tables: that each check can fail, and that our own service passes them all."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import struct
from concurrent.futures import Future
from socket import SO_LINGER, SOL_SOCKET
from threading import Thread
from typing import TYPE_CHECKING

import pytest
import trio
from websockets.asyncio.server import serve as websockets_serve

from echo_service import Config, serve
from echo_service.check import endpoint, handshake, run
from echo_service.check.annotate import annotated
from echo_service.check.client import Trial
from echo_service.check.judge import Verdict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from websockets.asyncio.server import ServerConnection

    from echo_service.check.endpoint import Endpoint
    from tests.check.conftest import Peer

pytestmark = pytest.mark.usefixtures("in_time")
ALL = [*run.CHECKS, *run.STRESS]


async def served(nursery, **options) -> Endpoint:
    """Our own service."""
    server = await nursery.start(serve, Config(**{"bind": ["127.0.0.1:0"], **options}))
    return endpoint.parse(server.urls[0], lambda: endpoint.trusting(None, insecure=True))


def by_verdict(results) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for result in results:
        found.setdefault(result.judgement.verdict.value, []).append(result.check.name)
    return found


def test_a_check_has_a_name_of_its_own_a_clause_and_an_expectation():
    assert len(run.CHECKS) >= 60
    assert len({check.name for check in ALL}) == len(ALL)
    for check in ALL:
        assert re.fullmatch(r"[a-z0-9]+\.[a-z0-9.-]+", check.name)
        assert re.match(r"RFC (6455|7692|9110|9112|6585) \d", check.clause)
        assert re.fullmatch(r"|(\d+\.){1,2}\d+", check.autobahn)
        assert check.expected


def test_only_the_checks_of_stress_and_the_pipelined_frame_are_done_alone():
    assert {check.name for check in run.CHECKS if check.alone} == {"handshake.pipelined"}
    assert all(check.alone and check.area == "stress" for check in run.STRESS)


@pytest.mark.parametrize("options", [{}, {"fast_lane": False}], ids=str)
async def test_our_own_service_passes_every_check(nursery, options):
    results = await run.run(await served(nursery, **options), ALL, 30)
    assert by_verdict(results) == {"pass": [check.name for check in ALL]}


async def test_our_own_service_passes_over_tls(nursery, certificate):
    results = await run.run(await served(nursery, **certificate()), ALL, 30)
    found = by_verdict(results)
    assert found == {"pass": [check.name for check in ALL]}


async def test_our_own_service_passes_over_a_unix_socket(nursery, tmp_path):
    results = await run.run(await served(nursery, bind=[f"unix:{tmp_path}/e"]), ALL, 30)
    assert by_verdict(results) == {"pass": [check.name for check in ALL]}


async def test_without_compression_its_checks_are_skipped(nursery):
    results = await run.run(await served(nursery, compression=False), ALL, 30)
    found = by_verdict(results)
    assert set(found) == {"pass", "skipped"}
    deflating = {check.name for check in ALL if check.area == "deflate"}
    assert set(found["skipped"]) == deflating | {"stress.bomb", "stress.bomb-octets"}


async def test_a_limit_and_an_origin_and_a_subprotocol_are_the_servers_choice(nursery):
    options = {"max_message_size": 100_000, "allow_origin": ["https://a"], "subprotocol": ["echo"]}
    results = await run.run(await served(nursery, **options), ALL, 30)
    assert by_verdict(results) == {"pass": [check.name for check in ALL]}


async def test_an_echo_may_come_in_fragments_of_one_byte(nursery):
    ours = await served(nursery)
    checks = run.select(["framing.text-65536", "deflate.long"], stressful=False)
    results = await run.run(dataclasses.replace(ours, target="/?fragment=1"), checks, 30)
    assert by_verdict(results) == {"pass": [check.name for check in checks]}


# Peers that are wrong.  Each check has to see it of one of them.


async def mute(peer: Peer) -> None:
    """Accepts what is offered, and closes TCP."""
    await peer.upgrade()


async def parrot(peer: Peer) -> None:
    """Accepts anything, answers every frame with its like, and minds no rule."""
    await peer.upgrade()
    while True:
        frame = await peer.frame()
        first = frame.fin << 7 | frame.rsv << 4 | (10 if frame.opcode == 9 else frame.opcode)
        size = len(frame.payload)
        length = bytes([size]) if size < 126 else b"\x7f" + size.to_bytes(8, "big")
        await peer.send(bytes([first]) + length + frame.payload)


async def refuser(peer: Peer) -> None:
    """Takes nothing for an opening handshake."""
    await peer.upgrade(status="400 Bad Request")


async def verdicts(endpoint: Endpoint) -> dict[str, Verdict]:
    """What becomes of each check, with little patience."""
    found = {}

    async def do(check) -> None:
        async with limiter:
            patience = 30 if check.name in LENIENT else 0.5
            result = await run.do(check, Trial(endpoint, patience))
            found[check.name] = result.judgement.verdict

    limiter = trio.CapacityLimiter(32)
    async with trio.open_nursery() as nursery:
        for check in ALL:
            nursery.start_soon(do, check)
    return found


LENIENT = {
    # No clause is broken by a peer that does otherwise.
    *("handshake.key-8-bytes", "handshake.key-not-base64"),
    *(check.name for check in run.CHECKS if check.name.startswith("framing.length-")),
} - {"framing.length-over-63-bits"}


async def test_each_check_can_fail(peer):
    seen = [await verdicts(await peer(serve)) for serve in (mute, parrot, refuser)]
    for check in ALL:
        worst = {found[check.name] for found in seen}
        if check.name in LENIENT:
            assert Verdict.NON_STRICT in worst, check.name
        else:
            assert Verdict.FAIL in worst, check.name


async def late(peer: Peer) -> None:
    """Minds UTF-8 at the end of a message."""
    await peer.upgrade()
    while not (frame := await peer.frame()).fin or frame.opcode == 9:
        if frame.opcode == 9:
            await peer.send(bytes([0x8A, len(frame.payload)]) + frame.payload)
    await peer.send(b"\x88\x02\x03\xef")


async def hasty(peer: Peer) -> None:
    """Answers a Close before what came first."""
    await peer.upgrade()
    while (frame := await peer.frame()).opcode != 8:
        pass
    await peer.send(b"\x88\x02" + frame.payload)


async def forgetful(peer: Peer) -> None:
    """Loses the frame that came with the request, and echoes the next."""
    await peer.upgrade()
    await peer.frame()
    while True:
        frame = await peer.frame()
        await peer.send(bytes([0x80 | frame.opcode, len(frame.payload)]) + frame.payload)


async def resetter(peer: Peer) -> None:
    """Answers a Close and resets."""
    await peer.upgrade()
    frame = await peer.frame()
    await peer.send(b"\x88\x02" + frame.payload)
    peer.stream.socket.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))


async def rude(peer: Peer) -> None:
    """Refuses, and blames itself."""
    await peer.upgrade(status="500 Internal Server Error")


async def outdated(peer: Peer) -> None:
    """Refuses, and says what version it knows."""
    await peer.upgrade("Sec-WebSocket-Version: 13", status="426 Upgrade Required")


@pytest.mark.parametrize(
    "name, serve, verdict, words",
    [
        ("utf8.at-the-fragment", late, "non-strict", "at the end"),
        ("utf8.at-the-fragment", mute, "non-strict", "SHOULD"),
        ("utf8.at-the-octet", late, "non-strict", "at the end"),
        ("order.echo-before-close", hasty, "non-strict", "nothing more need be sent"),
        ("order.echo-before-close", mute, "fail", "MUST be answered"),
        ("closing.tcp", resetter, "non-strict", "a reset can destroy"),
        ("closing.tcp", hasty, "pass", ""),
        ("handshake.key-none", rude, "non-strict", "appropriate"),
        ("handshake.key-none", refuser, "pass", ""),
        ("handshake.version-8", refuser, "fail", "Sec-WebSocket-Version is missing"),
        ("handshake.version-8", outdated, "pass", ""),
        ("handshake.upgrade-none", rude, "pass", ""),
        ("handshake.accept-key", refuser, "fail", "valid opening handshake"),
        ("handshake.extension-unknown", mute, "fail", "an extension that was not offered"),
    ],
)
async def test_a_verdict_and_why(peer, name: str, serve, verdict: str, words: str):
    (check,) = run.select([name], stressful=False)
    result = await run.do(check, Trial(await peer(serve), 4))
    assert result.judgement.verdict == verdict
    assert words in result.judgement.why


async def test_a_frame_that_came_early_may_be_lost(peer):
    trial = Trial(await peer(forgetful), 30)
    judgement = await handshake.pipelined(trial)
    await trial.aclose()
    assert judgement.verdict == "non-strict"
    assert judgement.observed == "101 Switching Protocols, Text 'Hello'"


async def test_a_check_that_is_refused_an_opening_handshake_says_so(peer):
    (check,) = run.select(["closing.code-0"], stressful=False)
    result = await run.do(check, Trial(await peer(refuser), 5))
    assert result.judgement == ("fail", "400 Bad Request", "a valid opening handshake was refused")


async def test_a_silent_peer_holds_up_no_check(peer):
    async def silent(peer: Peer) -> None:
        await peer.upgrade()
        await trio.sleep_forever()

    endpoint = await peer(silent)
    async with trio.open_nursery() as nursery:
        for check in ALL:
            nursery.start_soon(run.do, check, Trial(endpoint, 0.2))


def flooder(sent: bytes) -> Callable[[Peer], Awaitable[None]]:
    """A peer that sends it again and again."""

    async def flood(peer: Peer) -> None:
        await peer.upgrade()
        await peer.send(b"\x01\x00")
        while True:
            await peer.send(sent)

    return flood


@pytest.mark.parametrize(
    "sent",
    [b"\x00\x7e\x03\xe8" + bytes(1000), b"\x00\x00", b"\x89\x00", b"\x00\x7f@" + bytes(7)],
    ids=["fragments", "empty fragments", "pings", "a frame of 2**62"],
)
async def test_a_peer_that_floods_fails_at_once_and_little_is_kept(peer, sent: bytes):
    endpoint = await peer(flooder(sent * (65536 // len(sent))))
    for name in ("closing.code-1000", "fragmentation.two", "deflate.message"):
        (check,) = run.select([name], stressful=False)
        result = await run.do(check, Trial(endpoint, 3600))
        assert result.judgement.verdict == "fail"
        assert result.judgement.observed.endswith("far more than was sent")
        (passed,) = result.transcripts
        assert sum(len(each.data) for each in passed) < 300_000
        assert len(list(annotated(passed))) < 300


async def test_of_what_was_observed_the_beginning_is_told(peer):
    async def verbose(peer: Peer) -> None:
        await peer.upgrade(
            "Sec-WebSocket-Protocol: echo", f"Sec-WebSocket-Extensions: {'x' * 9999}"
        )

    (check,) = run.select(["deflate.message"], stressful=False)
    result = await run.do(check, Trial(await peer(verbose), 30))
    assert result.judgement.verdict == "fail"
    assert len(result.judgement.observed) < 1100


async def greet(websocket: ServerConnection) -> None:
    """Greet twice, in pieces too, and echo."""
    await websocket.send("Hello, Hello")
    await websocket.send(["Hel", "lo"])
    async for message in websocket:
        await websocket.send(message)


def serve_greetings(ready: Future[tuple[int, Callable[[], None]]]) -> None:
    """Run a server of websockets' until it is stopped."""

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with websockets_serve(greet, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            ready.set_result((port, lambda: loop.call_soon_threadsafe(stop.set)))
            await stop.wait()

    asyncio.run(main())


async def test_greetings_are_passed_over_also_deflated_ones():
    ready: Future[tuple[int, Callable[[], None]]] = Future()
    thread = Thread(target=serve_greetings, args=[ready])
    thread.start()
    port, stop = await trio.to_thread.run_sync(ready.result)
    greeting = endpoint.parse(f"ws://127.0.0.1:{port}/", lambda: None)
    checks = run.select(["deflate.context-takeover", "control", "framing.text-*"], stressful=False)
    results = await run.run(greeting, checks, 30)
    assert by_verdict(results) == {"pass": [check.name for check in checks]}
    stop()
    await trio.to_thread.run_sync(thread.join)
