"""What `make install` puts where, and that `make uninstall` takes out that and nothing else."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.deploy.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.deploy


def make(target: str, *variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", target, *variables], cwd=ROOT, capture_output=True, text=True, check=False
    )


def content(tree: Path) -> dict[str, bytes]:
    """Every file and directory below, with what is in it."""
    return {
        path.relative_to(tree).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in tree.rglob("*")
    }


@pytest.mark.parametrize("prefix", ["/usr/local", "/usr"])
def test_after_install_and_uninstall_the_tree_is_as_it_was(tmp_path, prefix: str):
    (tmp_path / "usr/local/bin").mkdir(parents=True)  # empty, and not ours
    (tmp_path / "usr/lib/systemd/system").mkdir(parents=True)
    (tmp_path / "usr/lib/systemd/system/other.service").write_text("[Service]\n")
    (tmp_path / "etc/default").mkdir(parents=True)
    (tmp_path / "etc/default/echo-service").write_text("ECHO_SERVICE_DRAIN_CODE=1012\n")
    before = content(tmp_path)
    destination = [f"DESTDIR={tmp_path}", f"PREFIX={prefix}"]

    assert make("install", *destination).returncode == 0
    once = content(tmp_path)
    assert make("install", *destination).returncode == 0
    assert content(tmp_path).keys() == once.keys()
    assert before.items() <= once.items()

    (unit,) = tmp_path.rglob("echo-service.service")
    assert unit.parent == tmp_path / prefix.strip("/") / "lib/systemd/system"
    assert f"\nExecStart={prefix}/bin/echo-service serve\n" in unit.read_text()
    assert "@PREFIX@" not in "".join(path.read_text() for path in tmp_path.rglob("echo-service.*"))

    assert make("uninstall", *destination).returncode == 0
    assert content(tmp_path) == before
    assert make("uninstall", *destination).returncode == 0, "there is nothing to be done"


def test_what_is_installed_runs_from_its_bytecode(tmp_path):
    prefix = tmp_path / "there"
    installed = make("install", f"PREFIX={prefix}")
    assert installed.returncode == 0, installed.stderr
    command = prefix / "bin/echo-service"
    files = content(tmp_path)
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("echo-service ")
    assert content(tmp_path) == files, "it has nothing to write"

    python = command.read_text().split()[0].removeprefix("#!")
    (compiled,) = (prefix / "lib/echo-service/echo_service/__pycache__").glob("cli.*.pyc")
    show = "import marshal, sys; print(marshal.load(sys.stdin.buffer).co_filename)"
    code = compiled.read_bytes()[16:]
    named = subprocess.run([python, "-c", show], input=code, capture_output=True, check=True)
    assert named.stdout.decode().strip() == str(prefix / "lib/echo-service/echo_service/cli.py")


@pytest.mark.parametrize("prefix", ["there", "/with space", "/with|bar"])
def test_a_prefix_that_does_not_fit_into_a_unit_is_refused(tmp_path, prefix: str):
    refused = make("install", f"DESTDIR={tmp_path}", f"PREFIX={prefix}")
    assert refused.returncode != 0
    assert f"PREFIX={prefix}: an absolute path" in refused.stderr
    assert content(tmp_path) == {}
