"""The command ``check``: its options, and exit codes."""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
import trio

from echo_service.check import endpoint
from echo_service.check.output import writing
from echo_service.check.quick import quick

if TYPE_CHECKING:
    from collections.abc import Mapping

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
@click.option("--stress", is_flag=True, help="The gentle forms of known attacks, too.")
@click.option(
    "--select",
    "patterns",
    metavar="PATTERN",
    multiple=True,
    help="Only the checks of this name or area: closing.code-0, 'closing.*', closing. Repeatable.",
)
@click.option(
    "--timeout", type=_seconds, metavar="S", default=5, show_default=True, help="For one check."
)
@click.option("--json", "is_json", is_flag=True, help="JSON on stdout, instead of a table.")
@click.option("--junit", metavar="FILE", help="Write JUnit's XML to it, too.")
@click.option("--html", metavar="FILE", help="Write one page to it, too.")
@click.option("--cacert", metavar="FILE", help="A PEM file with the authorities to trust.")
@click.option("--insecure", is_flag=True, help="Trust any certificate.")
@click.option("-v", "--verbose", is_flag=True, help="Show the bytes both ways.")
def check(url: str, *, is_quick: bool, cacert: str | None, insecure: bool, **chosen: Any) -> int:
    """Grade a WebSocket echo endpoint.

    URL is ws://HOST[:PORT]/PATH, wss://HOST[:PORT]/PATH or ws+unix:PATH.  Exit code 0: all
    passed, or are allowed; 1: a check failed; 2: no connection, or no report.
    """
    target = _endpoint(url, cacert, insecure=insecure)
    if is_quick:
        return _quick(target, **chosen)
    from echo_service.check.grade import grade  # noqa: PLC0415 - a health check has to be fast

    try:
        return grade(target, **chosen)
    except endpoint.UnreachableError as error:
        return _unreachable(target, error)


def _endpoint(url: str, cacert: str | None, *, insecure: bool) -> Endpoint:
    """What the URL names; raises `click.UsageError`."""
    trust = {"--cacert": cacert is not None, "--insecure": insecure}
    try:
        target = endpoint.parse(url, lambda: endpoint.trusting(cacert, insecure=insecure))
    except OSError as error:
        words = f"{cacert!r} can't be used: {error.strerror or error}"
        raise click.BadParameter(words, param_hint="--cacert") from error
    except ValueError as error:
        words = f"{url!r} is not {endpoint.ACCEPTED}"
        raise click.BadParameter(words, param_hint="URL") from error
    if target.tls is None:
        _refuse(trust, f"is for TLS, and {url!r} has none")
    return target


def _refuse(given: Mapping[str, bool], why: str) -> None:
    """Raises `click.UsageError` for the options that are given and would do nothing."""
    if idle := [option for option, is_given in given.items() if is_given]:
        raise click.UsageError(f"{', '.join(idle)} {why}")


def _quick(target: Endpoint, timeout: float, **others: Any) -> int:
    options = {name: "--" + name.removeprefix("is_") for name in others}
    options["patterns"] = "--select"
    given = {options[name]: value not in (None, False, ()) for name, value in others.items()}
    _refuse(given, "can't go with --quick")
    try:
        wrong = trio.run(quick, target, timeout)
    except endpoint.UnreachableError as error:
        return _unreachable(target, error)
    if wrong:
        click.echo(f"{target.url}: {wrong}", err=True)
        return 1
    with writing("stdout", sys.stdout):
        click.echo(f"{target.url}: echoes")
    return 0


def _unreachable(target: Endpoint, error: endpoint.UnreachableError) -> int:
    click.echo(f"no connection to {target.url}: {error}", err=True)
    return 2
