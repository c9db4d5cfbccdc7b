"""The command ``check``: options, exit codes, and what it says."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from echo_service import cli
from echo_service.testing import running

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("in_time")


@pytest.fixture
def check(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process; returns exit code, stdout and stderr."""

    def check(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["echo-service", "check", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        return exit_.value.code, *capsys.readouterr()

    return check


@pytest.fixture
def nobody() -> str:
    """The URL of a port that nobody listens on."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield "ws://127.0.0.1:{1}/".format(*unused.getsockname())


def test_quick_exits_with_0_where_there_is_an_echo(check):
    with running() as server:
        (url,) = server.urls
        assert check("--quick", url) == (0, f"{url}: echoes\n", "")


def test_quick_exits_with_2_where_there_is_no_connection(check, nobody):
    code, out, err = check(nobody, "--quick")
    assert (code, out) == (2, "")
    assert err.startswith(f"no connection to {nobody}: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], ["URL"]),
        (["http://a"], ["URL", "'http://a'", "ws://HOST"]),
        (["wss://a", "--cacert=nowhere"], ["--cacert", "'nowhere'", "No such file"]),
        (["wss://a", f"--cacert={__file__}"], ["--cacert", "can't be used"]),
        (["ws://a", "--timeout=0"], ["--timeout", "'0'", "seconds over 0"]),
        (["ws://a", "--timeout=x"], ["--timeout", "'x'", "seconds over 0"]),
        (["ws://a", "--timeout=inf"], ["--timeout", "'inf'"]),
        (["ws://a", "--fast"], ["--fast"]),
    ],
    ids=str,
)
def test_wrong_option_is_one_line_that_names_it_and_exit_code_2(
    check, arguments: list[str], words: list[str]
):
    code, out, err = check(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert [word for word in words if word not in err] == []


def test_quick_imports_nothing_that_it_does_not_need(nobody):
    program = (
        "import sys; from echo_service import cli\n"
        f"sys.argv = ['echo-service', 'check', '--quick', {nobody!r}]\n"
        "try: cli.main()\n"
        "except SystemExit: print(*sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    modules = set(result.stdout.split())
    assert "echo_service.check.quick" in modules
    ours = {module for module in modules if module.startswith("echo_service.check.")}
    needed = {"command", "endpoint", "client", "wire", "quick"}
    assert ours == {f"echo_service.check.{name}" for name in needed}
    assert not modules & {"rich", "html", "websockets"}
