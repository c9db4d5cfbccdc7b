"""What the tests of a deployment share: the tools they need, and where things are."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.deploy.containers import Podman

ROOT = Path(__file__).parents[2]

CACHE = os.environ.get("DEPLOY_CACHE", str(ROOT / ".cache"))
"""Where the small Debians are kept from one run to the next."""


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


@pytest.fixture(scope="session")
def podman(tool) -> Iterator[Podman]:
    """Podman, and the base of the image."""
    from tests.deploy.containers import podman_below

    for name in ("podman", "runc", "mmdebstrap", "iptables", "/usr/lib/podman/netavark"):
        tool(name, f"Debian's {Path(name).name}")
    if os.geteuid() != 0:
        missing("to make the base of the image takes root")
    with tempfile.TemporaryDirectory() as folder, podman_below(Path(folder), CACHE) as podman:
        yield podman


@pytest.fixture(scope="session")
def image(podman) -> str:
    """The name of the image, built from the Dockerfile."""
    podman.build("echo-service", "--build-arg=REVISION=0123abc")
    return "echo-service"
