"""The command ``check``: its options, and exit codes."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

import click
import trio

from echo_service.check import endpoint
from echo_service.check.quick import quick

if TYPE_CHECKING:
    from echo_service.check.endpoint import Endpoint


def _seconds(text: str | float) -> float:
    """A time to wait; raises `click.BadParameter`."""
    with suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise click.BadParameter(f"{text!r} is not a number of seconds over 0")


@click.command()
@click.argument("url")
@click.option("--quick", "is_quick", is_flag=True, help="A health check: connect, one echo, close.")
@click.option(
    "--timeout", type=_seconds, metavar="S", default=5, show_default=True, help="For one check."
)
@click.option("--cacert", metavar="FILE", help="A PEM file with the authorities to trust.")
@click.option("--insecure", is_flag=True, help="Trust any certificate.")
def check(url: str, *, is_quick: bool, timeout: float, cacert: str | None, insecure: bool) -> int:
    """Grade a WebSocket echo endpoint.

    URL is ws://HOST[:PORT]/PATH, wss://HOST[:PORT]/PATH or ws+unix:PATH.  Exit code 0: all
    passed; 1: a check failed; 2: no connection.
    """
    target = _endpoint(url, cacert, insecure=insecure)
    if is_quick:
        return _quick(target, timeout)
    raise click.UsageError("only --quick is there yet")


def _endpoint(url: str, cacert: str | None, *, insecure: bool) -> Endpoint:
    """What the URL names; raises `click.BadParameter`."""
    try:
        return endpoint.parse(url, lambda: endpoint.trusting(cacert, insecure=insecure))
    except OSError as error:
        words = f"{cacert!r} can't be used: {error.strerror or error}"
        raise click.BadParameter(words, param_hint="--cacert") from error
    except ValueError as error:
        words = f"{url!r} is not {endpoint.ACCEPTED}"
        raise click.BadParameter(words, param_hint="URL") from error


def _quick(target: Endpoint, timeout: float) -> int:
    try:
        wrong = trio.run(quick, target, timeout)
    except endpoint.UnreachableError as error:
        click.echo(f"no connection to {target.url}: {error}", err=True)
        return 2
    click.echo(f"{target.url}: {wrong or 'echoes'}", err=bool(wrong))
    return 1 if wrong else 0
