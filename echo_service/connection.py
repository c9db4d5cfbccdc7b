"""One client's stream, from accept to aclose; the only module that reads or writes it.

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
from typing import TYPE_CHECKING, Final, cast

import trio

from echo_service import endpoints, policy, upgrade
from echo_service.logs import logger
from echo_service.policy import Ending, Verdict
from echo_service.registry import Outcome
from echo_service.request import Refused, RequestReader
from echo_service.session import Session

if TYPE_CHECKING:
    import h11

    from echo_service.config import Config
    from echo_service.endpoints import Answer
    from echo_service.registry import Registry
    from echo_service.upgrade import Accepted

HEAD_RECEIVE: Final = 4096
LINGER_RECEIVE: Final = 65536

SEND: Final = 16384
"""Bytes that are sent under one stall timeout: what a peer must take in that time."""

RETRY_AFTER: Final = 5
"""Seconds after which a client that found no room may try again."""

_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)
"""What Trio's streams raise when the peer has reset or dropped its end."""

_identifiers = itertools.count(1)


class Connection:
    """One accepted stream; `run` serves it to its end and closes it."""

    __slots__ = (
        "_begun",
        "_config",
        "_echoed",
        "_ending",
        "_identifier",
        "_over",
        "_peer",
        "_reader",
        "_registry",
        "_sending",
        "_session",
        "_status",
        "_stream",
        "_told",
        "_waiting",
    )

    def __init__(
        self, stream: trio.abc.Stream, config: Config, registry: Registry, peer: str
    ) -> None:
        """Take charge of ``stream``; the handshake timeout begins now."""
        self._stream = stream
        self._config = config
        self._registry = registry
        self._peer = peer
        self._begun = trio.current_time()
        self._identifier = next(_identifiers)
        self._reader = RequestReader()
        self._session: Session | None = None
        self._status: int | None = None
        self._ending = Ending.VANISHED
        self._waiting = trio.CancelScope()
        self._told = False
        self._echoed = (0, 0, 0)
        self._over = False
        self._sending = False

    @property
    def is_open(self) -> bool:
        """Whether the opening handshake is done."""
        return self._session is not None

    async def run(self) -> Outcome:
        """Serve the stream to its end, close it, and return how it ended.

        Never raises, whatever the peer or our own code does, but for `trio.Cancelled`.
        """
        try:
            await self._guarded()
        finally:
            self._over = True
            outcome = self._registry.leave(self)
            with suppress(Exception):
                self._log_closed(outcome)
            with suppress(Exception):
                await trio.aclose_forcefully(self._stream)
        return outcome

    def drain(self) -> None:
        """Have the connection end: with the drain code, or a 503 where it was not open yet.

        An echo that is on its way goes out first.
        """
        self._told = True
        self._waiting.cancel()

    def outcome(self) -> Outcome:
        """How the connection ends; of an open one, what it has carried so far."""
        session = self._session
        if session is None:
            return Outcome(self._ending, self._status)
        verdict = session.verdict or policy.CANCELLED
        received = policy.ABNORMAL if session.awaits_close else verdict.received_code
        cut_off = self._over and self._sending
        return Outcome(
            verdict.ending,
            self._status,
            received,
            None if cut_off else verdict.sent_code,
            verdict.rule,
            *(self._echoed if cut_off else session.carried),
        )

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
            await self._finish(self._session.end(policy.INTERNAL_ERROR))
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
            decision = self._decide(request)
        except Refused as refused:
            await self._refuse(refused)
            return None
        if isinstance(decision, endpoints.Answer):
            self._ending = Ending.ANSWERED
            logger.debug("request.answered", peer=self._peer, status=decision.status)
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
            while data := await self._stream.receive_some(HEAD_RECEIVE):
                request = reader.receive(data)
                if request is not None:
                    return request
            return None
        if not reader.begun:
            return None
        if self._told:
            raise self._unavailable("the service is draining")
        raise Refused(408, f"no whole request in {self._config.handshake_timeout:g} s")

    def _decide(self, request: h11.Request) -> Accepted | Answer:
        """What the request is answered; raises `Refused`."""
        accepted = upgrade.accept(
            request,
            compress=self._config.compression,
            subprotocols=self._config.subprotocol,
            origins=self._config.origins,
        )
        closed = self._registry.closed_because
        if accepted is None:
            return endpoints.answer(request, ready=closed is None)
        if closed is not None:
            raise self._unavailable(closed)
        return accepted

    def _unavailable(self, cause: str) -> Refused:
        return Refused(503, cause, ("Retry-After", str(RETRY_AFTER)))

    async def _refuse(self, refused: Refused) -> None:
        self._ending = Ending.REFUSED
        cause = refused.cause
        logger.info("handshake.refused", peer=self._peer, status=refused.status, cause=cause)
        await self._answer(endpoints.refusal(refused))

    async def _answer(self, answer: Answer) -> None:
        """Answer a request that opens no connection, and see the stream closed."""
        self._status = answer.status
        headers = [("Date", formatdate(usegmt=True)), *answer.headers]
        await self._finish(self._reader.answer(answer.status, headers, answer.body.encode()))

    async def _open(self, request: h11.Request, accepted: Accepted) -> Session:
        """Switch protocols: from here on there is a session."""
        switching = self._reader.switch(accepted.headers)
        session = Session(self._config.max_message_size, accepted.compression)
        self._session = session
        self._sending = True  # from here on the 101 is owed, and no Close may take its place
        self._status = 101
        self._registry.enter(self)
        logger.info(
            "connection.opened",
            connection_id=self._identifier,
            peer=self._peer,
            target=request.target.decode(),
            extensions=accepted.compression.response if accepted.compression else None,
        )
        await self._send(switching)
        return session

    # The open connection

    async def _converse(self, session: Session, data: bytes | bytearray) -> None:
        """Echo until something ends the connection; then close it (RFC 6455 7)."""
        await self._echo(session, data)
        last = b""
        while session.verdict is None:
            received = await self._receive(session)
            if isinstance(received, Verdict):
                last = session.end(received)
            else:
                await self._echo(session, received)
            del received  # nothing of a message is kept while the next is waited for
        await self._finish(last)

    async def _echo(self, session: Session, data: bytes | bytearray) -> None:
        """Send what is to be sent for ``data``; what is cut off on its way is not counted."""
        await self._send(session.receive(data))
        self._echoed = session.carried

    async def _receive(self, session: Session) -> bytes | bytearray | Verdict:
        """What comes next, or why nothing does; pings a peer that is silent (RFC 6455 5.5.2)."""
        config = self._config
        wait = config.ping_interval or math.inf
        pinged = False
        while True:
            with trio.move_on_after(wait) as self._waiting:
                if not self._told:
                    return await self._stream.receive_some(session.receive_size) or policy.VANISHED
            if self._told:
                return policy.DRAINING[config.drain_code]
            if pinged and config.ping_timeout:
                return policy.IDLE
            await self._send(session.ping())
            pinged = True
            wait = config.ping_timeout or config.ping_interval

    async def _send(self, data: bytes | bytearray) -> None:
        """Send all of it, however slowly the peer takes it; `trio.TooSlowError` if it stalls.

        Only a stall interrupts it: what was cut off in mid-frame can't be closed any more.
        """
        self._sending = True
        with memoryview(data) as view:
            for start in range(0, len(view), SEND):
                with trio.fail_after(self._config.stall_timeout):
                    await self._stream.send_all(view[start : start + SEND])
        self._sending = False

    # The end

    async def _finish(self, last: bytes) -> None:
        """Send the last bytes, half-close, and read to the end before the stream is closed.

        A stream that is closed with bytes unread is reset, and the reset may destroy our
        Close on its way.  All of it takes the close timeout at most.
        """
        session = self._session
        with trio.move_on_after(self._config.close_timeout):
            if last:
                self._sending = True
                await self._stream.send_all(last)
                self._sending = False
            half_closed = isinstance(self._stream, trio.abc.HalfCloseableStream)
            if half_closed:
                await cast("trio.abc.HalfCloseableStream", self._stream).send_eof()
            while session is not None and session.awaits_close:
                data = await self._stream.receive_some(session.receive_size)
                if not data:
                    break
                session.receive(data)
            if session is not None:
                self._registry.leave(self)  # both Closes have passed: a linger takes nobody's room
            while half_closed and await self._stream.receive_some(LINGER_RECEIVE):
                pass
            await self._stream.aclose()

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
            duration_s=round(trio.current_time() - self._begun, 6),
            messages=outcome.texts + outcome.binaries,
            bytes_in=outcome.octets,
            bytes_out=outcome.octets,
        )
