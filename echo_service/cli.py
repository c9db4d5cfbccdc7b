"""The command: options from flags and environment, signals, exit codes."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import click
import trio

import echo_service
from echo_service import config, cpus, listeners, logs, process, workers
from echo_service.codec import BEST
from echo_service.config import OPTIONS, Config, ConfigError
from echo_service.listeners import BindError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROGRAM: Final = "echo-service"

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
        fail(2, config.spoken(error))
    except (BindError, click.Abort) as error:
        fail(1, str(error) or "interrupted")


def fail(code: int, words: str) -> NoReturn:
    """Exit with ``code`` after one line on stderr."""
    click.echo(f"{PROGRAM}: {' '.join(words.split())}", err=True)
    sys.exit(code)


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


class _Commands(click.Group):
    """The commands; ``check`` is imported only where it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return ["check", *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "check":
            return super().get_command(ctx, cmd_name)
        from echo_service.check.command import check  # noqa: PLC0415 - `serve` need not pay for it

        return check


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
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
    log = logs.configure(chosen.log_format, chosen.log_level)
    try:
        many = cpus.available() if chosen.workers == "auto" else chosen.workers
        if many == 1:
            return trio.run(process.run, dataclasses.replace(chosen, workers=1))
        return trio.run(workers.run, many, chosen)
    except BaseExceptionGroup as group:
        raise _only(group) from None
    finally:
        log.close()  # what was logged comes before any last words


def load(flags: Mapping[str, object], environ: Mapping[str, str], pid: int) -> Config:
    """The configuration: flags over the environment over the defaults.

    Sockets that the service manager passed are listened on, beside the addresses that
    were named, and instead of the default one.  Raises `ConfigError`.
    """
    given = config.from_environment(environ)
    given |= {name: value for name, value in flags.items() if value is not None and value != ()}
    if passed := listeners.passed_by_manager(environ, pid):
        named = cast("list[str]", given.get("bind", []))
        elsewhere = [*named, given.get("admin_bind")]
        given["bind"] = [*(each for each in passed if each not in elsewhere), *named]
    return Config(**given)  # type: ignore[arg-type]  # Config itself checks every value


def _only(error: BaseException) -> BaseException:
    """The one exception in a group of one, the group itself otherwise."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
