"""The command: options from flags and environment, signals, exit codes."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import platform
import signal
import sys
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import click
import trio

import echo_service
from echo_service import config, listeners, logs
from echo_service.codec import BEST
from echo_service.config import OPTIONS, Config, ConfigError
from echo_service.listeners import BindError
from echo_service.logs import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from echo_service.server import Server

PROGRAM: Final = "echo-service"

_MALLOPT: Final = {
    -3: 2 * 1024 * 1024,  # M_MMAP_THRESHOLD
    -1: 4 * 1024 * 1024,  # M_TRIM_THRESHOLD
}
"""What glibc is told (mallopt(3)): from how many bytes on a block is taken from the system and
given back at once, and how many bytes of free memory may be kept."""

VERSION: Final = (
    f"{PROGRAM} {echo_service.__version__}, Python {platform.python_version()},"
    f" wsproto {version('wsproto')}, codec in {BEST.name}"
)


def main() -> NoReturn:
    """Run the command and exit: 0 when all went well, 1 when not, 2 for a wrong option."""
    try:
        sys.exit(cli.main(prog_name=PROGRAM, standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.ClickException as error:
        fail(2, f"{error.format_message().rstrip('.')}. See --help.")
    except ConfigError as error:
        fail(2, _spoken(error))
    except (BindError, click.Abort) as error:
        fail(1, str(error) or "interrupted")


def fail(code: int, words: str) -> NoReturn:
    """Exit with ``code`` after one line on stderr."""
    click.echo(f"{PROGRAM}: {' '.join(words.split())}", err=True)
    sys.exit(code)


def _spoken(error: ConfigError) -> str:
    """The error, with the option as a user of the command knows it."""
    if error.option in OPTIONS:
        known = f"{config.flag(error.option)} ({config.variable(error.option)})"
        return str(ConfigError(known, error.value, error.accepted))
    return str(error)


def _in_words(default: object) -> str:
    if default is dataclasses.MISSING:
        return "as many as the file limit allows, less 64"
    if isinstance(default, bool):
        return "on" if default else "off"
    if default is None or default == ():
        return "not set"
    if isinstance(default, float):
        return f"{default:g}"
    return " ".join(default) if isinstance(default, tuple) else str(default)


_DEFAULTS: Final = {row.name: _in_words(row.default) for row in dataclasses.fields(Config)}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version=echo_service.__version__, message=VERSION)
def cli() -> None:
    """A WebSocket echo service that is right."""


def _with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give the command a flag for every option in the table, in its order."""
    for name, option in reversed(list(OPTIONS.items())):
        command = _flag(name, option)(command)
    return command


def _flag(name: str, option: config.Option) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    spelling = config.flag(name)
    words = f"{option.help}  [{_DEFAULTS[name]}]"
    if option.metavar:
        multiple = option.repeatable
        return click.option(spelling, name, metavar=option.metavar, multiple=multiple, help=words)
    both = f"{spelling}/--no-{spelling.removeprefix('--')}"
    return click.option(both, name, default=None, help=words)


@cli.command(epilog="Every option is also a variable: --drain-code is ECHO_SERVICE_DRAIN_CODE.")
@_with_options
def serve(**flags: object) -> int:
    """Serve in the foreground until SIGTERM or SIGINT.

    Every path echoes; /healthz and /readyz are for probes.  Logs go to stderr.
    """
    chosen = load(flags, os.environ, os.getpid())
    logs.configure(chosen.log_format, chosen.log_level)
    try:
        _bound_kept_memory()
        return trio.run(run, chosen)
    except BaseExceptionGroup as group:
        raise _only(group) from None


def load(flags: Mapping[str, object], environ: Mapping[str, str], pid: int) -> Config:
    """The configuration: flags over the environment over the defaults.

    Sockets that the service manager passed are listened on, beside the addresses that
    were named, and instead of the default one.  Raises `ConfigError`.
    """
    given = config.from_environment(environ)
    given |= {name: value for name, value in flags.items() if value is not None and value != ()}
    if passed := listeners.passed_by_manager(environ, pid):
        named = cast("list[str]", given.get("bind", []))
        given["bind"] = [*passed, *named]
    return Config(**given)  # type: ignore[arg-type]  # Config itself checks every value


def _bound_kept_memory() -> None:
    """Have glibc give back what a message of more than 2 MiB took, and keep what others took.

    Left alone, glibc moves both bounds with what it sees freed: it would keep 16 MiB for the
    next message of that size, and after a start without large ones give back each MiB at once.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, size in _MALLOPT.items():
            mallopt(parameter, size)


def _only(error: BaseException) -> BaseException:
    """The one exception in a group of one, the group itself otherwise."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def run(chosen: Config) -> int:
    """Serve until a signal; returns the exit code.

    The first SIGTERM or SIGINT drains, a second one ends it at once with 1.  SIGHUP
    reads the certificate again.
    """
    code = 0
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(echo_service.serve, chosen)
            draining = False
            async for number in signals:
                if number == signal.SIGHUP:
                    _reload(server, chosen)
                elif draining:
                    code = 1
                    nursery.cancel_scope.cancel()
                else:
                    draining = True
                    nursery.start_soon(_drain, server, nursery.cancel_scope)
    return code


async def _drain(server: Server, scope: trio.CancelScope) -> None:
    await server.drain()
    scope.cancel()


def _reload(server: Server, chosen: Config) -> None:
    if chosen.tls_cert is None:
        logger.info("reload.ignored", cause="there is no certificate to read again")
        return
    try:
        server.reload()
    except ConfigError as error:
        logger.error("certificate.kept", error=_spoken(error))
    else:
        logger.info("certificate.reloaded")
