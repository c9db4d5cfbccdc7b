"""The page for a person with a browser: one file, and the headers that fence it in.

The policy allows the page's own style and script, by their hashes, a connection to where it
came from, and nothing else: no other host, no frame around it, no markup from a message.

The module is pure: it reads its own file once, when it is imported.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files
from typing import Final

_HTML: Final = files("echo_service").joinpath("page.html").read_text("utf-8")

_CONTROLS: Final = 'data-controls="on"'


def _hash(tag: str) -> str:
    """The one inline element of this name, as a source of the policy."""
    (content,) = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", _HTML, re.DOTALL)
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


_POLICY: Final = {
    "default-src": "'none'",
    "script-src": _hash("script"),
    "style-src": _hash("style"),
    "img-src": "data:",  # the icon
    "connect-src": "'self'",  # ws and wss to the same host and port too (CSP 3)
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}

HEADERS: Final = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", "; ".join(f"{name} {value}" for name, value in _POLICY.items())),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    # These two together also give the page a clock of microseconds, for the round trips.
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Embedder-Policy", "require-corp"),
    ("Cache-Control", "no-cache"),  # another version may be served next
]
"""The headers of the answer that carries the page."""


def html(*, controls: bool) -> str:
    """The page; whether it offers the query controls is up to ``controls``."""
    return _HTML if controls else _HTML.replace(_CONTROLS, 'data-controls="off"', 1)
