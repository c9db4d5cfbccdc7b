"""Podman, with a store of its own of which nothing is left in the end.

The base of the image comes from a registry, which a test machine need not reach: a small Debian,
made on the spot, stands in for it.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.deploy.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

BASE = re.search(r"^ARG PYTHON=(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[1]

TREE = [
    "trixie",
    "python3,python3-venv,ca-certificates,netbase",
    # Python's headers alone: their package would bring a part of the compiler
    """--customize-hook=chroot "$1" sh -ec 'cd /tmp
        apt-get download --quiet=2 libpython3.13-dev
        dpkg-deb --fsys-tarfile libpython3.13-dev_* | tar -C / -x --wildcards "./usr/include/*.h"
        rm libpython3.13-dev_*'""",
    """--customize-hook=cd "$1/usr/local/bin"
        ln -s /usr/bin/python3 python3
        ln -s python3 python""",
    """--customize-hook=find "$1/usr/lib" -name __pycache__ -prune -exec rm -r {} +""",
]
"""What stands in for the base: the same Debian, with Debian's own Python where the base has one of
its own; with its headers, and without bytecode, as the base."""

AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
"""Whom this machine trusts: the package index may be behind a proxy that it knows."""

CONFIGURATION = """
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""
"""For a machine without systemd, on which no limit can be raised."""


class Podman:
    """The program; ``command`` starts it in ``environ``, and it keeps all below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        configuration = folder / "containers.conf"
        configuration.write_text(
            CONFIGURATION.format(
                folder=folder, files=_most(resource.RLIMIT_NOFILE), processes=most_processes()
            )
        )
        self.command = [
            "podman",
            f"--root={folder}/store",
            f"--runroot={folder}/run",
            f"--tmpdir={folder}/tmp",
        ]
        self.environ = os.environ | {
            "CONTAINERS_CONF": str(configuration),
            "DISABLE_HC_SYSTEMD": "true",  # a health check is made when it is asked for
        }

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What it says, once it has ended with ``code``."""
        done = subprocess.run(
            [*self.command, *arguments],
            env=self.environ,
            cwd=self.folder,  # conmon leaves files where it is started
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"{arguments} ended with {done.returncode}: {done.stdout}"
        return done.stdout.strip()

    def inspect(self, kind: str, name: str) -> dict[str, object]:
        """All about an image or a container."""
        (found,) = json.loads(self(kind, "inspect", name))
        return found

    def build(self, name: str, *options: str, context: Path = ROOT) -> None:
        """Build an image, on a base that is here."""
        self("build", *BUILD, "--quiet", *options, f"--tag={name}", str(context))


BUILD = [
    "--pull=never",
    "--format=docker",  # the other one has no HEALTHCHECK
    "--network=host",
    f"--secret=id=ca,src={AUTHORITIES}",
]
"""What a build takes on a machine without a registry, and perhaps behind a proxy."""


def _most(limit: int) -> int:
    return resource.getrlimit(limit)[1]


def most_processes() -> int:
    """The limit of processes that podman can set here."""
    most = int(Path("/proc/sys/kernel/pid_max").read_text())
    limit = _most(resource.RLIMIT_NPROC)
    return most if limit == resource.RLIM_INFINITY else min(most, limit)


@contextmanager
def podman_below(folder: Path, cache: str) -> Iterator[Podman]:
    """Podman with the base in its store."""
    made = subprocess.run(
        [ROOT / "tests/deploy/tree", cache, *TREE], stdout=subprocess.PIPE, text=True, check=True
    )
    with _firewall_kept(), _files_kept():
        podman = Podman(folder)
        try:
            podman("import", "--quiet", made.stdout.strip(), f"localhost/python:{BASE}")
            yield podman
        finally:
            podman("rm", "--force", "--all", "--time=0")
            podman("rmi", "--force", "--all")


LEFT = [
    "/dev/shm/libpod_lock",
    "/etc/containers/networks",
    "/run/containers",
    "/run/libpod",
    "/var/lib/containers",
]
"""What podman leaves, whatever it is told."""


@contextmanager
def _files_kept() -> Iterator[None]:
    """What was not there is not there in the end, nor a cgroup of ours."""
    new = [path for path in LEFT if not Path(path).exists()]
    yield
    subprocess.run(["rm", "-rf", *new], check=True)
    for parent in Path("/sys/fs/cgroup").glob("**/libpod_parent"):
        for each in (parent / "conmon", parent):
            with suppress(OSError):  # somebody else's are in use
                each.rmdir()


@contextmanager
def _firewall_kept() -> Iterator[None]:
    """The chains that podman makes go again, if there were none."""
    before = _rules()
    yield
    if "NETAVARK" in "".join(before.values()):
        return
    for table, rules in _rules().items():
        ours = [shlex.split(rule) for rule in rules.splitlines() if "NETAVARK" in rule]
        chains = [words[1] for words in ours if words[0] == "-N"]
        jumps = [words for words in ours if words[0] == "-A" and words[1] not in chains]
        for words in jumps:
            _iptables(table, "--delete", *words[1:])
        for action in ("--flush", "--delete-chain"):
            for chain in chains:
                _iptables(table, action, chain)


def _rules() -> dict[str, str]:
    return {table: _iptables(table, "--list-rules") for table in ("filter", "nat")}


def _iptables(table: str, *words: str) -> str:
    command = ["iptables", f"--table={table}", *words]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
