"""One client, from accept to the closed stream.

The road: the opening handshake, then what comes in is given to the session and what
it returns is sent, then the closing handshake and the linger after it.  There is one
task, no queue and no lock: nothing is read while an echo is being written, so that TCP
itself holds back a peer that does not read, and what came before a violation has been
echoed when its Close goes out.
"""

from __future__ import annotations

import itertools
import math
from contextlib import suppress
from dataclasses import replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

import trio

from echo_service import controls, endpoints, forwarded, policy, upgrade
from echo_service.codec import BEST
from echo_service.controls import Controls
from echo_service.logs import logger
from echo_service.pacing import PacedTransport
from echo_service.policy import Ending, Verdict
from echo_service.registry import Outcome
from echo_service.request import Refused, RequestReader, switching_protocols
from echo_service.session import Session, frame
from echo_service.shaping import ShapedSession

if TYPE_CHECKING:
    import h11

    from echo_service.codec import Octets
    from echo_service.config import Config
    from echo_service.endpoints import Answer
    from echo_service.registry import Registry
    from echo_service.transport import Transport
    from echo_service.upgrade import Accepted

RETRY_AFTER: Final = 5
"""Seconds after which a client that found no room may try again."""

HELD_UP: Final = 0.1
"""Seconds by which the deadline for a sign of life is missed only if the whole process stood
still.  What the peer has sent in the meantime is yet to be received, for which there is as long."""

_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)
"""What Trio's streams raise when the peer has reset or dropped its end."""

_NO_CONTROLS: Final = Controls()

_identifiers = itertools.count(1)


class Connection:
    """One accepted stream; `run` serves it to its end and closes it."""

    __slots__ = (
        "_begun",
        "_closed",
        "_config",
        "_controls",
        "_draining",
        "_ending",
        "_finished",
        "_identifier",
        "_linger",
        "_next_ping",
        "_peer",
        "_reader",
        "_registry",
        "_sending",
        "_session",
        "_status",
        "_transport",
        "_via",
        "_waiting",
    )

    def __init__(
        self,
        transport: Transport,
        config: Config,
        registry: Registry,
        peer: str,
    ) -> None:
        """Take charge of ``transport``; the handshake timeout begins now."""
        self._transport = transport
        self._config = config
        self._registry = registry
        self._peer = peer
        self._via: dict[str, str] = {}
        self._begun = trio.current_time()
        self._identifier = next(_identifiers)
        self._reader = RequestReader()
        self._controls = _NO_CONTROLS
        self._next_ping = math.inf
        self._session: Session | None = None
        self._status: int | None = None
        self._ending = Ending.VANISHED
        self._waiting = trio.CancelScope()
        self._draining = False
        self._finished = False
        self._closed = False
        self._linger: trio.CancelScope | None = None
        self._sending = False

    @property
    def shakes_hands(self) -> bool:
        """Whether there is a request that has to be answered yet."""
        return self._status is None and not self._finished

    @property
    def is_open(self) -> bool:
        """Whether the opening handshake is done."""
        return self._session is not None

    @property
    def lingers(self) -> bool:
        """Whether all is said, and only the peer's end of stream is waited for."""
        return self._linger is not None and not self._linger.cancel_called

    def hurry(self) -> None:
        """End a linger: somebody needs the room."""
        if self._linger is not None:
            self._linger.cancel()

    async def run(self) -> Outcome:
        """Serve the stream to its end, close it, and return how it ended.

        Never raises, whatever the peer or our own code does, but for `trio.Cancelled`.
        """
        try:
            await self._guarded()
        finally:
            self._finished = True
            outcome = self._registry.leave(self)
            with suppress(Exception):
                self._log_closed(outcome)
            if not self._closed:
                with suppress(Exception):
                    await self._transport.abort()
        return outcome

    def drain(self) -> None:
        """Have the connection end: with the drain code, or a 503 where it was not open yet.

        An echo that is on its way goes out first.
        """
        self._draining = True
        self._waiting.cancel()

    def outcome(self) -> Outcome:
        """How the connection ends."""
        session = self._session
        duration = trio.current_time() - self._begun
        if session is None:
            return Outcome(self._ending, self._status, duration=duration)
        verdict = session.verdict or policy.CANCELLED
        received = policy.ABNORMAL if session.awaits_close else verdict.received_code
        cut_off = self._finished and self._sending
        return Outcome(
            verdict.ending,
            self._status,
            received,
            None if cut_off else verdict.sent_code,
            verdict.rule,
            *(session.before if cut_off else session.carried),
            duration=duration,
        )

    @property
    def carried(self) -> tuple[int, int, int]:
        """What an open connection has carried so far, as `Session.carried` tells it."""
        return self._session.carried if self._session else (0, 0, 0)

    async def _guarded(self) -> None:
        """The road, inside its guard: no exception type is trusted to be the only one."""
        try:
            try:
                await self._serve()
            except _GONE as error:
                if self._status is None:
                    cause = str(error.__cause__ or error)
                    logger.debug("handshake.abandoned", peer=self._peer, cause=cause)
                self._end(policy.VANISHED)
            except trio.TooSlowError:
                self._stall()
            except Exception:
                logger.exception("connection.failed", connection_id=self._identifier)
                await self._apologise()
        except _GONE:
            pass
        except Exception:
            with suppress(Exception):  # it may be the logging that fails
                logger.exception("connection.failed", connection_id=self._identifier)

    def _end(self, verdict: Verdict) -> None:
        if self._session is not None and self._session.verdict is None:
            self._session.end(verdict)

    def _stall(self) -> None:
        """End as stalled, with whatever the peer's Close or violation was, answered or not."""
        session = self._session
        if session is not None:
            judged = session.verdict or policy.STALLED
            received, rule = judged.received_code, judged.rule
            session.end(replace(policy.STALLED, received_code=received, rule=rule))

    async def _apologise(self) -> None:
        """After an error of our own: 500 before the 101, Close 1011 after it, where either fits."""
        if self._status is None:
            await self._refuse(Refused(500, "internal error"))
        elif self._session is not None and self._session.verdict is None and not self._sending:
            await self._finish(self._session.give_up())
        self._end(policy.INTERNAL_ERROR)

    async def _serve(self) -> None:
        """The road at a glance."""
        opened = await self._shake_hands()
        if opened is not None:
            await self._converse(*opened)

    # The opening handshake (RFC 6455 4.2)

    async def _shake_hands(self) -> tuple[Session, bytes] | None:
        """Answer the request; a 101 leads to a session, and what came with the request."""
        try:
            request = await self._receive_request()
            if request is None:
                return None
            self._name_client(request)
            decision = self.decide(request)
        except Refused as refused:
            await self._refuse(refused)
            return None
        if isinstance(decision, endpoints.Answer):
            self._ending = Ending.ANSWERED
            logger.debug("request.answered", peer=self._peer, **self._via, status=decision.status)
            await self._answer(decision)
            return None
        session = await self._open(request, decision)
        trailing = self._reader.trailing
        del self._reader  # h11 is done, and most connections live long
        return session, trailing

    async def _receive_request(self) -> h11.Request | None:
        """The request, within the handshake timeout; None from a client without a word."""
        reader = self._reader
        self._waiting.deadline = self._begun + self._config.handshake_timeout
        with self._waiting:
            while data := await self._transport.receive():
                request = reader.receive(data)
                if request is not None:
                    return request
            return None
        if not reader.begun:
            return None
        if self._draining:
            raise self._unavailable("the service is draining")
        raise Refused(408, f"no whole request in {self._config.handshake_timeout:g} s")

    def _name_client(self, request: h11.Request) -> None:
        """Take the client for the peer, where a trusted proxy names it."""
        proxies = self._config.proxies
        client = forwarded.client(self._peer, request.headers, proxies) if proxies else self._peer
        if client != self._peer:
            self._via = {"proxy": self._peer}
            self._peer = client

    def decide(self, request: h11.Request) -> Accepted | Answer:
        """What the request is answered; raises `Refused`."""
        accepted = upgrade.accept(
            request,
            compress=self._config.compression,
            subprotocols=self._config.subprotocol,
            origins=self._config.origins,
        )
        closed = self._registry.closed_because
        if accepted is None:
            return endpoints.answer(request, ready=closed is None, controls=self._config.controls)
        if self._config.controls:
            self._controls = controls.parse(request.target) or _NO_CONTROLS
        if closed is not None:
            raise self._unavailable(closed)
        return accepted if self._controls.compress is None else accepted.uncompressed()

    def _unavailable(self, cause: str) -> Refused:
        return Refused(503, cause, ("Retry-After", str(RETRY_AFTER)))

    async def _refuse(self, refused: Refused) -> None:
        self._ending = Ending.REFUSED
        logger.info(
            "handshake.refused",
            peer=self._peer,
            **self._via,
            status=refused.status,
            cause=refused.cause,
        )
        await self._answer(endpoints.refusal(refused))

    async def _answer(self, answer: Answer) -> None:
        """Answer a request that opens no connection, and see the stream closed."""
        self._status = answer.status
        headers = [("Date", formatdate(usegmt=True)), *answer.headers]
        await self._finish(self._reader.answer(answer.status, headers, answer.body.encode()))

    async def _open(self, request: h11.Request, accepted: Accepted) -> Session:
        """Switch protocols: from here on there is a session."""
        asked = self._controls
        opening = switching_protocols(accepted.headers)
        extensions = accepted.compression.response if accepted.compression else None
        if asked.info is not None:
            told = request.target, request.headers, self._peer, extensions, accepted.subprotocol
            opening += frame(0x1, controls.info(*told))
        session = self._session = self._begin(accepted)
        self._transport.turn = None
        self._sending = True  # from here on the 101 is owed, and no Close may take its place
        self._status = 101
        self._registry.enter(self)
        logger.info(
            "connection.opened",
            connection_id=self._identifier,
            peer=self._peer,
            **self._via,
            target=request.target.decode(),
            extensions=extensions,
            **({"controls": asked.asked} if asked is not _NO_CONTROLS else {}),
        )
        await self._send(opening)
        if isinstance(session, ShapedSession):
            self._transport = PacedTransport(self._transport, session, asked)
        if asked.ping is not None:
            self._next_ping = trio.current_time() + asked.ping
        return session

    def _begin(self, accepted: Accepted) -> Session:
        """The session, of an ordinary connection or of one that is shaped."""
        limit = self._config.max_message_size
        if self._controls.shapes:
            return ShapedSession(limit, accepted.compression, self._controls)
        return Session(limit, accepted.compression, BEST if self._config.fast_lane else None)

    # The open connection

    async def _converse(self, session: Session, data: bytes) -> None:
        """Echo until something ends the connection; then close it (RFC 6455 7)."""
        await self._send(session.receive(data))
        verdict = None
        while session.verdict is None and verdict is None:
            verdict = await self._go_on(session)
            await self._send_rest()
        if session.verdict is policy.DROPPED:
            await self._drop()
        elif verdict is None:
            await self._finish(b"")
        else:
            if verdict.close is not None:
                await self._send(self._transport.let_go())
            await self._finish(session.end(verdict))

    async def _go_on(self, session: Session) -> Verdict | None:  # noqa: C901 - a table, row by row
        """Echo until there is a rest to be sent, or an end; pings a peer that is silent (5.5.2).

        A ping waits its turn behind the echoes that the kernel still holds; as long as the
        peer takes of these, and has not taken the ping, it is not silent.  Returns why it ends,
        where the session doesn't tell.
        """
        config, steady = self._config, self._controls.ping
        interval = math.inf if steady else config.ping_interval or math.inf
        wait = interval
        since = trio.current_time()
        pinged, waited, ahead = 0.0, False, 0
        while True:
            with trio.CancelScope(deadline=min(since + wait, self._next_ping)) as self._waiting:
                if not self._draining:
                    return await self._exchange(session, pinged)
            if self._draining:
                return policy.DRAINING[config.drain_code]
            if steady and trio.current_time() >= self._next_ping:
                self._next_ping = trio.current_time() + steady
            elif self._transport.active > since:
                since = self._transport.active
                wait = interval
                pinged, waited = 0.0, False
                continue
            elif self._may_have_missed(since + wait) and not waited:
                since = trio.current_time() - wait + HELD_UP
                waited = True
                continue
            elif pinged and config.ping_timeout:
                untaken = self._transport.untaken
                if not 0 < untaken < ahead:
                    return policy.IDLE
                since, ahead, waited = trio.current_time(), untaken, False
                continue
            waited = False
            before = self._transport.untaken
            await self._send(session.ping())
            if self._transport.deaf:  # no answer can be heard
                since = trio.current_time()
            elif not pinged or not config.ping_timeout:
                pinged = since = trio.current_time()
                wait = config.ping_timeout or interval
                ahead = before

    def _may_have_missed(self, deadline: float) -> bool:
        """Whether there may be a sign of life that came in time and has not been received."""
        return trio.current_time() - deadline > HELD_UP or self._transport.unread

    async def _exchange(self, session: Session, pinged: float) -> Verdict | None:
        """Echo; ``pinged`` is when a ping went out that nothing has followed yet, 0 for none."""
        if not await self._transport.exchange(session, once=bool(pinged)):
            return policy.VANISHED
        if pinged:
            self._registry.counts.round_trips.observe(trio.current_time() - pinged)
        return None

    async def _send(self, data: Octets) -> None:
        """Send all of it, however slowly the peer takes it."""
        self._sending = True
        self._transport.send_now(data)
        await self._send_rest()

    async def _send_rest(self) -> None:
        """Send what is left of an echo; raises `trio.TooSlowError` if the peer takes nothing.

        Only that interrupts it: what was cut off in mid-frame can't be closed any more.
        """
        transport = self._transport
        self._sending = True
        while transport.rest:
            begun, blocked, untaken = trio.current_time(), transport.blocked, transport.untaken
            try:
                with trio.move_on_after(self._config.stall_timeout) as waiting:
                    await transport.send_some()
            finally:
                if blocked:
                    self._registry.counts.stalled += trio.current_time() - begun
            if waiting.cancelled_caught and transport.untaken >= untaken:
                raise trio.TooSlowError
        self._sending = False

    # The end

    async def _drop(self) -> None:
        """Reset the connection, as its client has asked, once what was sent has been taken."""
        pause = 0.01
        with trio.move_on_after(self._config.close_timeout):
            while self._transport.untaken:  # the kernel tells, but only if asked
                await trio.sleep(pause)
                pause = min(2 * pause, 1.0)  # there may be thousands
        await self._transport.reset()
        self._closed = True

    async def _finish(self, last: Octets) -> None:
        """Send the last bytes, half-close, and read to the end before the stream is closed.

        A stream that is closed with bytes unread is reset, and the reset may destroy our
        Close on its way.  All of it takes the close timeout at most.
        """
        session = self._session
        deadline = trio.current_time() + self._config.close_timeout
        with trio.CancelScope(deadline=deadline) as closing:
            self._sending = True
            self._transport.send_now(last)
            while self._transport.rest:
                await self._transport.send_some()
            self._sending = False
            half_closed = await self._transport.half_close()
            while session is not None and session.awaits_close:
                if not await self._transport.exchange(session):
                    break
            if session is not None:
                self._registry.leave(self)  # both Closes have passed
            self._linger = closing
            while half_closed and await self._transport.receive():
                pass
            await self._transport.aclose()
            self._closed = True

    def _log_closed(self, outcome: Outcome) -> None:
        if self._session is None:
            return
        logger.info(
            "connection.closed",
            connection_id=self._identifier,
            ending=outcome.ending.value,
            received_code=outcome.received_code,
            sent_code=outcome.sent_code,
            rule=outcome.rule,
            duration_s=round(outcome.duration, 6),
            messages=outcome.texts + outcome.binaries,
            bytes_in=outcome.octets,
            bytes_out=outcome.octets,
        )
