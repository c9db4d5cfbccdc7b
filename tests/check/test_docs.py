"""docs/check.md: its list of checks, its options, and what it shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from echo_service.check.command import check
from echo_service.check.run import CHECKS, STRESS
from echo_service.testing import running

PAGE = (Path(__file__).parents[2] / "docs" / "check.md").read_text(encoding="utf-8")


def test_every_check_stands_in_the_list_as_it_is():
    rows = re.findall(
        r"^\| `([a-z0-9-]+\.[^`]+)` \| (.*?) \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE
    )
    expected = [
        (each.name, each.clause, each.autobahn, each.expected) for each in (*CHECKS, *STRESS)
    ]
    assert rows == expected


@pytest.mark.parametrize(
    "option",
    [o.opts[-1] if o.opts[-1].startswith("--") else o.opts[0] for o in check.params[1:]],
)
def test_every_option_stands_on_the_page(option: str):
    assert isinstance(check, click.Command)
    row = next(line for line in PAGE.splitlines() if line.startswith("| `-") and option in line)
    assert row


def test_the_example_shows_what_is_seen():
    shown = re.search(r"\$ .*(--select closing.code-0 -v)\n(.*?)```", PAGE, re.DOTALL)
    assert shown
    with running() as server:
        (url,) = server.urls
        command = [sys.executable, "-m", "echo_service", "check", url, *shown[1].split()]
        seen = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    variable = re.compile(r"(Host|Sec-WebSocket-(Key|Accept)): \S+")
    assert variable.sub(r"\1", seen) == variable.sub(r"\1", shown[2])
