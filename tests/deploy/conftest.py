"""What the tests of a deployment share: the tools they need, and where things are."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]

STRICT = "NOTHING_SKIPPED"
"""The variable with which a tool that is missing is a failure, as it is in CI."""


def missing(words: str) -> None:
    """Skip the test and say what is missing; where nothing may be skipped, fail."""
    if os.environ.get(STRICT):
        pytest.fail(words)
    pytest.skip(words)


@pytest.fixture(scope="session")
def tool() -> Callable[[str, str], str]:
    """The path of a program that is in the environment or on the machine.

    ``source`` says where it comes from, for whoever lacks it.
    """

    def find(name: str, source: str) -> str:
        places = os.pathsep.join(
            [str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"]
        )
        path = shutil.which(name, path=places)
        if path is None:
            missing(f"{name} is not here; it comes from {source}")
        return str(path)

    return find
