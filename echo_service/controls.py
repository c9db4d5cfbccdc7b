"""The query controls: what a client asks of its own connection, in the target of its request.

``/?delay=0.5&close=1001&after=3`` and the like are for tests of clients.  The table below is
all that can be asked; any other parameter is left alone.  None of them weakens a limit.

The module is pure: the bytes of a target in, `Controls` or `Refused` out.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qsl

from echo_service import policy
from echo_service.request import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from echo_service.policy import Verdict

_WHOLE: Final = re.compile(r"[0-9]{1,18}")
_NUMBER: Final = re.compile(r"[0-9]{1,18}(\.[0-9]{0,18})?|\.[0-9]{1,18}")

_SHOWN: Final = 64
"""Characters of a wrong value that the refusal repeats."""

_MANY: Final = 10**9
"""Echoes that are more than enough."""


class Control(NamedTuple):
    """One row of the table: ``read`` raises ValueError for what is not ``accepted``."""

    read: Callable[[str], Any]
    accepted: str


def _whole(text: str, least: int, most: int) -> int:
    number = int(text) if _WHOLE.fullmatch(text) else -1
    if not least <= number <= most:
        raise ValueError
    return number


def _number(text: str, least: float, most: float) -> float:
    number = float(text) if _NUMBER.fullmatch(text) else -1.0
    if not least <= number <= most:
        raise ValueError
    return number


def _reason(text: str) -> str:
    if len(text.encode()) > policy.MAX_REASON:  # what was not UTF-8 is a surrogate, and raises
        raise ValueError
    return text


def _only(word: str) -> Control:
    def read(text: str) -> str:
        if text != word:
            raise ValueError
        return text

    return Control(read, word)


CONTROLS: Final = {
    "delay": Control(lambda text: _number(text, 0, 60), "a number of seconds from 0 to 60"),
    "fragment": Control(lambda text: _whole(text, 1, 1048576), "a whole number from 1 to 1048576"),
    "close": Control(
        lambda text: text if text == "none" else _whole(text, 0, 65535),
        "a whole number from 0 to 65535, or none",
    ),
    "reason": Control(_reason, f"UTF-8 of at most {policy.MAX_REASON} bytes"),
    "after": Control(lambda text: _whole(text, 0, _MANY), f"a whole number from 0 to {_MANY}"),
    "drop": Control(lambda text: _number(text, 0, _MANY), f"a number from 0 to {_MANY}"),
    "ping": Control(lambda text: _number(text, 1, 3600), "a number of seconds from 1 to 3600"),
    "compress": _only("off"),
    "info": _only("1"),
}
"""The table, by the names of the parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """What was asked, each value as it was read; None where it was not."""

    delay: float | None = None
    fragment: int | None = None
    close: int | str | None = None
    """A code, or ``none``: a Close without a body."""
    reason: str | None = None
    after: int | None = None
    drop: float | None = None
    ping: float | None = None
    compress: str | None = None
    info: str | None = None

    @property
    def asked(self) -> dict[str, object]:
        """The parameters in use, and their values."""
        values = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {name: value for name, value in values if value is not None}

    @property
    def shapes(self) -> bool:
        """Whether they change what the echo is, so that it takes a road of its own."""
        return not (self.delay is self.fragment is self.close is self.drop is None)

    @property
    def end(self) -> tuple[float, Verdict] | None:
        """After how many echoes the service ends the connection, and how; None: it does not."""
        if self.drop is not None:
            return self.drop, policy.DROPPED
        if self.close is None:
            return None
        payload = b""
        if isinstance(self.close, int):
            payload = self.close.to_bytes(2, "big") + (self.reason or "").encode()
        return self.after or 0, policy.asked(payload)


def parse(target: bytes) -> Controls | None:
    """The controls in a request's target, None where there are none; raises `Refused` with 400.

    The query is read as browsers' ``URLSearchParams`` and Python's ``urlencode`` write it.
    """
    query = target.decode("ascii").partition("?")[2]
    if not query:
        return None
    given = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    values: dict[str, Any] = {}
    for name, text in given:
        control = CONTROLS.get(name)
        if control is None:
            continue
        if name in values:
            raise Refused(400, f"{name} is there twice in the query; accepted: once")
        try:
            values[name] = control.read(text)
        except ValueError:
            raise _refused(name, text, control.accepted) from None
    _check_together(values)
    return Controls(**values) if values else None


def _check_together(values: dict[str, Any]) -> None:
    """Refuse what would have no effect beside the others, or without them."""
    for name in ("reason", "after"):
        if name in values and "close" not in values:
            raise _refused(name, str(values[name]), "only with close")
    if values.get("close") == "none" and "reason" in values:
        raise _refused("reason", values["reason"], "only with a close code: none has no body")
    if "close" in values and "drop" in values:
        raise _refused("drop", f"{values['drop']:g}", "only without close")


def _refused(name: str, value: str, accepted: str) -> Refused:
    return Refused(400, f"{name}={value[:_SHOWN]!a} can't be used; accepted: {accepted}")


def info(
    target: bytes,
    headers: Iterable[tuple[bytes, bytes]],
    peer: str,
    extensions: str | None,
    subprotocol: str | None,
) -> bytes:
    """The text of the first message that ``info=1`` asks for."""
    fields: dict[str, str | Sequence[Sequence[str]] | None] = {
        "target": target.decode("ascii"),
        "headers": [[name.decode("ascii"), value.decode("latin-1")] for name, value in headers],
        "peer": peer,
        "extensions": extensions,
        "subprotocol": subprotocol,
    }
    return json.dumps(fields).encode("ascii")
