"""Where reports go: files and stdout, and what is said where they can't be written."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator


def opened(option: str, path: str) -> IO[Any]:
    """The file for a report, empty; raises `click.BadParameter` where it can't be opened."""
    try:
        return click.open_file(path, "w", encoding="utf-8")
    except OSError as error:
        words = f"{path!r} can't be opened: {error.strerror}"
        raise click.BadParameter(words, param_hint=option) from error


@contextmanager
def writing(name: str, file: IO[Any]) -> Iterator[None]:
    """Around writing and a flush; closes the file and raises `click.ClickException` on an error.

    What the file's encoding does not have is escaped.
    """
    if isinstance(file, TextIOWrapper):
        file.reconfigure(errors="backslashreplace")
    try:
        yield
    except OSError as error:
        with suppress(OSError):
            file.close()  # what it still holds would be tried again when Python exits
        raise click.ClickException(f"{name} can't be written: {error.strerror}") from error
