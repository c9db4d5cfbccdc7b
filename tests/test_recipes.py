"""The recipes of docs/controls.md: run as they stand, they print what is written below them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from echo_service.controls import CONTROLS
from echo_service.testing import running

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "controls.md").read_text()

RECIPES = re.findall(r"### (.*?)\n.*?```python\n(.*?)```\n\n```\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("program, printed", [recipe[1:] for recipe in RECIPES],
                         ids=[title for title, _, _ in RECIPES])  # fmt: skip
def test_a_recipe_prints_what_is_written_below_it(program: str, printed: str):
    with running() as server:
        port = server.urls[0].rpartition(":")[2]
        command = [sys.executable, "-X", "utf8", "-c", program.replace("8080", port)]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (result.stdout, result.stderr) == (printed, "")


def test_every_recipe_is_run():
    assert len(RECIPES) == PAGE.count("### ") == PAGE.count("```python")


@pytest.mark.parametrize("name", CONTROLS)
def test_every_control_is_in_the_table_and_in_a_recipe(name: str):
    assert re.search(rf"^\| `{name}=", PAGE, re.MULTILINE)
    assert any(re.search(rf"[?&\"]{name}=", program) for _, program, _ in RECIPES)
