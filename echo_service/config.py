"""Every option of the service: its name, default, check and words, in one table.

The command line, the environment and `Config` are all read off the fields of
`Config`; an option exists when it is a field here, and not before.
"""

from __future__ import annotations

import dataclasses
import math
import re
import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

from echo_service import forwarded, listeners, upgrade

ENVIRONMENT: Final = "ECHO_SERVICE_"

RESERVED_FILES: Final = 64
"""File descriptors kept for listeners, logs, and clients that are only being answered."""

_KUBERNETES: Final = re.compile("(SERVICE_HOST|SERVICE_PORT.*|PORT|PORT_.*)")
"""What Kubernetes injects for a service called echo-service, less the prefix: not ours."""

_BOOLEANS: Final = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}
_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class ConfigError(ValueError):
    """An option that can't be used: ``option``, ``value``, and what is ``accepted``."""

    def __init__(self, option: str, value: object, accepted: str) -> None:
        super().__init__(option, value, accepted)
        self.option = option
        self.value = value
        self.accepted = accepted

    def __str__(self) -> str:
        return f"{self.option}: {self.value!r} can't be used; accepted: {self.accepted}"


@dataclass(frozen=True)
class Option:
    """One row of the table: how an option is read, and how it is spoken of.

    ``read`` turns a value into the one used and raises ValueError where it can't; it
    gets what a program gave, or the text of a flag or a variable.  A ``repeatable``
    option has a tuple of values, each of which ``read`` sees.
    """

    read: Callable[[Any], Any]
    accepted: str
    metavar: str
    help: str
    repeatable: bool = False


def _whole(value: object) -> int:
    if isinstance(value, str):
        value = int(value) if re.fullmatch("[0-9]{1,18}", value) else None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 10**18:
        raise ValueError
    return value


def _workers(value: object) -> object:
    if value == "auto":
        return value
    many = _whole(value)
    if many > 1024:
        raise ValueError
    return many


def _seconds_or_off(value: object) -> float:
    if isinstance(value, str):
        value = float(value) if _NUMBER.fullmatch(value) else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError
    if not math.isfinite(value) or value < 0:
        raise ValueError
    return float(value)


def _seconds(value: object) -> float:
    seconds = _seconds_or_off(value)
    if not seconds:
        raise ValueError
    return seconds


def _boolean(value: object) -> bool:
    return value if isinstance(value, bool) else _one_of(_BOOLEANS)(str(value).lower())


def _one_of(choices: Mapping[Any, Any]) -> Callable[[object], Any]:
    def read(value: object) -> Any:
        if isinstance(value, bool) or value not in choices:
            raise ValueError
        return choices[value]

    return read


def _text(is_valid: Callable[[str], object]) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or not is_valid(value):
            raise ValueError
        return value

    return read


def _path(value: object) -> str:
    return _text(len)(str(value) if hasattr(value, "__fspath__") else value)


_CODES: Final = {1001: 1001, 1012: 1012, "1001": 1001, "1012": 1012}
_SECONDS: Final = "a number of seconds above 0"
_OR_OFF: Final = "a number of seconds, or 0 for never"


_MANY: Final = 1_000_000
"""Connections where there is no file limit: more than a process can serve."""


def connections_allowed() -> int:
    """What the soft file limit allows, less `RESERVED_FILES`."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MANY if soft == resource.RLIM_INFINITY else max(1, soft - RESERVED_FILES)


def _option(default: Any, *row: Any, **more: Any) -> Any:
    """A field of `Config`; ``default`` may be a function that makes it."""
    kind = "default_factory" if callable(default) else "default"
    return dataclasses.field(**{kind: default}, metadata={"option": Option(*row, **more)})


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of a service, checked; raises `ConfigError` for one that can't be used.

    Times are in seconds, sizes in bytes.  ``log_format`` and ``log_level`` are for the
    command alone: `echo_service.serve` sets up no logging.
    """

    bind: Sequence[str] = _option(
        ("127.0.0.1:8080",),
        _text(listeners.is_address),
        "HOST:PORT, [V6]:PORT, unix:PATH or fd:NUMBER",
        "ADDR",
        "Where to listen; port 0 takes a free one.",
        repeatable=True,
    )
    admin_bind: str | None = _option(
        None,
        _text(listeners.is_address),
        "HOST:PORT, [V6]:PORT, unix:PATH or fd:NUMBER",
        "ADDR",
        "A second address, for /metrics, /healthz and /readyz.",
    )
    workers: int | Literal["auto"] = _option(
        1,
        _workers,
        "a whole number from 1 to 1024, or auto",
        "N",
        "Processes that share the addresses; auto: as many as the CPUs this one may use.",
    )
    tls_cert: str | None = _option(
        None, _path, "a PEM file", "FILE", "Serve wss:// with this certificate chain."
    )
    tls_key: str | None = _option(
        None,
        _path,
        "a PEM file",
        "FILE",
        "The key of the certificate; SIGHUP reads both again.",
    )
    max_message_size: int = _option(
        16777216,
        _whole,
        "a whole number of bytes, from 1 to 10^18 - 1",
        "BYTES",
        "A message of exactly this size is echoed, one byte more is 1009.",
    )
    max_connections: int = _option(
        connections_allowed,
        _whole,
        "a whole number, from 1 to 10^18 - 1",
        "N",
        "The most connections that are open; a handshake beyond gets 503.",
    )
    handshake_timeout: float = _option(
        10.0, _seconds, _SECONDS, "S", "From accept to 101, TLS included."
    )
    ping_interval: float = _option(
        20.0,
        _seconds_or_off,
        _OR_OFF,
        "S",
        "Ping when nothing has arrived for so long.",
    )
    ping_timeout: float = _option(
        20.0,
        _seconds_or_off,
        _OR_OFF,
        "S",
        "Close with 1011 when nothing has arrived for so long after a ping.",
    )
    close_timeout: float = _option(
        5.0,
        _seconds,
        _SECONDS,
        "S",
        "The most that a closing handshake and the linger after it take.",
    )
    stall_timeout: float = _option(
        30.0,
        _seconds,
        _SECONDS,
        "S",
        "Drop a peer that takes no bytes for so long while an echo is due.",
    )
    drain_timeout: float = _option(20.0, _seconds, _SECONDS, "S", "The whole of a graceful stop.")
    drain_code: int = _option(
        1001,
        _one_of(_CODES),
        "1001 or 1012",
        "CODE",
        "What open connections are closed with in a graceful stop.",
    )
    compression: bool = _option(
        True,
        _boolean,
        "one of " + ", ".join(_BOOLEANS),
        "",
        "Accept permessage-deflate.",
    )
    fast_lane: bool = _option(
        True,
        _boolean,
        "one of " + ", ".join(_BOOLEANS),
        "",
        "Off: every byte goes through wsproto, in its connection's own task.",
    )
    subprotocol: Sequence[str] = _option(
        (),
        _text(_TOKEN.fullmatch),
        "a token (RFC 6455 4.1)",
        "NAME",
        "The first that the client offers and that is listed is accepted.",
        repeatable=True,
    )
    allow_origin: Sequence[str] = _option(
        (),
        _text(upgrade.origin),
        "scheme://host, scheme://host:port or null",
        "ORIGIN",
        "Refuse browsers from elsewhere with 403; without it, any may come.",
        repeatable=True,
    )
    trusted_proxy: Sequence[str] = _option(
        (),
        _text(forwarded.trusted),
        "an address, a network without host bits as 10.0.0.0/8, or unix:",
        "CIDR",
        "Proxies whose Forwarded or X-Forwarded-For header names the client.",
        repeatable=True,
    )
    controls: bool = _option(
        True,
        _boolean,
        "one of " + ", ".join(_BOOLEANS),
        "",
        "Query controls: ?delay=0.5 and the like shape that one connection.",
    )
    log_format: str = _option(
        "text",
        _one_of({"text": "text", "json": "json"}),
        "text or json",
        "FORMAT",
        "How the log on stderr is written.",
    )
    log_level: str = _option(
        "info",
        _one_of({level: level for level in ("debug", "info", "warning", "error")}),
        "debug, info, warning or error",
        "LEVEL",
        "The least that is logged.",
    )

    def __post_init__(self) -> None:
        for name, option in OPTIONS.items():
            object.__setattr__(self, name, _read(name, option, getattr(self, name)))
        if not self.bind:
            raise ConfigError("bind", "", OPTIONS["bind"].accepted)
        if self.tls_key is None and self.tls_cert is not None:
            raise ConfigError("tls_cert", self.tls_cert, "a certificate whose key is given too")
        if self.tls_cert is None and self.tls_key is not None:
            raise ConfigError("tls_key", self.tls_key, "a key whose certificate is given too")

    @cached_property
    def origins(self) -> frozenset[upgrade.Origin | None] | None:
        """The allowed origins, to compare with; None where any may come."""
        return frozenset(map(upgrade.origin, self.allow_origin)) or None

    @cached_property
    def proxies(self) -> tuple[forwarded.Trusted, ...]:
        """The proxies that may name the client, to compare with."""
        return tuple(map(forwarded.trusted, self.trusted_proxy))

    @property
    def admin_addresses(self) -> tuple[str, ...]:
        """The second address, if there is one."""
        return () if self.admin_bind is None else (self.admin_bind,)

    @property
    def scheme(self) -> str:
        """The scheme of the addresses served, ``ws`` or ``wss``."""
        return "ws" if self.tls_cert is None else "wss"


OPTIONS: Final[Mapping[str, Option]] = {
    row.name: row.metadata["option"] for row in dataclasses.fields(Config)
}
"""The table, by the names of `Config`."""

_DEFAULTS: Final = {row.name: row.default for row in dataclasses.fields(Config)}


def _read(name: str, option: Option, value: object) -> object:
    """The value to use for an option; raises `ConfigError`."""
    if value is None and _DEFAULTS[name] is None:
        return None
    if not option.repeatable:
        return _read_one(name, option, value)
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(name, value, f"a list, of {option.accepted}")
    return tuple(_read_one(name, option, each) for each in value)


def _read_one(name: str, option: Option, value: object) -> object:
    try:
        return option.read(value)
    except (ValueError, TypeError, OverflowError):
        raise ConfigError(name, value, option.accepted) from None


def flag(name: str) -> str:
    """How an option is written on the command line."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """How an option is written in the environment."""
    return ENVIRONMENT + name.upper()


def spoken(error: ConfigError) -> str:
    """The error, with the option as a user of the command knows it."""
    if error.option in OPTIONS:
        known = f"{flag(error.option)} ({variable(error.option)})"
        return str(ConfigError(known, error.value, error.accepted))
    return str(error)


def from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    """The options that are set in the environment, as text; several are split at spaces.

    Raises `ConfigError` for an ``ECHO_SERVICE_`` variable that is none of ours.
    """
    given: dict[str, object] = {}
    for key, value in environ.items():
        if not key.startswith(ENVIRONMENT) or _KUBERNETES.fullmatch(key, len(ENVIRONMENT)):
            continue
        name = key.removeprefix(ENVIRONMENT).lower()
        if name not in OPTIONS or key != variable(name):
            raise ConfigError(key, value, "the variables of the options in `serve --help`")
        given[name] = value.split() if OPTIONS[name].repeatable else value
    return given
