"""Plain HTTP: what a request that is no opening handshake is answered.

The module is pure: a request and the service's state in, an `Answer` out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from echo_service import page
from echo_service.request import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    import h11

    from echo_service.request import Headers

TEXT: Final = ("Content-Type", "text/plain; charset=utf-8")

_ABSOLUTE: Final = re.compile(r"\Ahttps?://[^/?]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, headers, and a body of text."""

    status: int
    headers: Headers
    body: str


def path(target: bytes) -> str:
    """The path of a request target, in origin form or absolute form (RFC 9112 3.2)."""
    return _ABSOLUTE.sub("", target.decode("ascii"), count=1).partition("?")[0] or "/"


def answer(request: h11.Request, *, ready: bool, controls: bool = False) -> Answer:
    """What a plain request is answered; raises `Refused` with 405 or 426.

    ``ready`` is whether the service accepts connections, and not whether it lives;
    ``controls`` whether the page offers the query controls.
    """
    found = _health(request, ready=ready)
    if found is None and path(request.target) == "/":
        return Answer(200, page.HEADERS, page.html(controls=controls))
    if found is None:
        raise Refused(426, "this is a WebSocket endpoint: upgrade", ("Upgrade", "websocket"))
    return found


def answer_admin(request: h11.Request, *, ready: bool, metrics: Callable[[], Answer]) -> Answer:
    """The same on the second address, where there are metrics and no echo; raises 404 or 405."""
    found = _health(request, ready=ready)
    if found is None and path(request.target) == "/metrics":
        return metrics()
    if found is None:
        raise Refused(404, "there are /metrics, /healthz and /readyz here")
    return found


def _health(request: h11.Request, *, ready: bool) -> Answer | None:
    """What is the same on both: who may ask, and how the service does."""
    if request.method not in (b"GET", b"HEAD"):
        method = request.method.decode()
        raise Refused(405, f"GET and HEAD are allowed, not {method}", ("Allow", "GET, HEAD"))
    match path(request.target):
        case "/healthz":
            return Answer(200, [TEXT], "ok\n")
        case "/readyz":
            return Answer(200, [TEXT], "ready\n") if ready else Answer(503, [TEXT], "not ready\n")
    return None


def refusal(refused: Refused) -> Answer:
    """The answer that says what was wrong."""
    return Answer(refused.status, [TEXT, *refused.headers], f"{refused.cause}\n")
