"""What the documents show: snippets that run, options that are there, links that lead somewhere."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from echo_service import config, policy
from echo_service.testing import running
from tests.conftest import missing

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
DASH = "\N{EN DASH}"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]
PAGES += [*ROOT.glob("deploy/*.md"), *ROOT.glob("examples/*/*.md")]


def snippet(words: str) -> str:
    """The README's Python snippet that holds these words."""
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (block,) = (block for block in blocks if words in block)
    return block


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_first_snippet_shows_what_is_written_below_it():
    with running() as server:
        port = server.urls[0].rpartition(":")[2]
        shown = run(snippet("makefile").replace("8080", port))
    assert f"```\n{shown}```" in README
    assert shown.startswith("1002 ")


@pytest.mark.parametrize("words", ["server.drain()", "with running("])
def test_a_snippet_runs(words):
    run(snippet(words))


def test_the_fixture_is_used_as_it_is_shown(pytester_path):
    (pytester_path / "my_client.py").write_text(
        "import trio\n\nasync def echo(url, text):\n    await trio.sleep(0)\n    return text\n"
    )
    (pytester_path / "test_it.py").write_text(snippet("echo_server"))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(pytester_path)]
    result = subprocess.run(
        command, cwd=pytester_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert "1 passed" in result.stdout, result.stdout


def test_a_certificate_of_ones_own_is_made_and_trusted_as_it_is_shown(tmp_path):
    make, serve, check = re.findall(
        r"^\$ ((?:openssl|echo-service) .*cert\.pem.*)$", README, re.MULTILINE
    )
    if shutil.which("openssl") is None:
        missing("openssl is not here; it comes from Debian's package of this name")
    subprocess.run(shlex.split(make), cwd=tmp_path, capture_output=True, check=True, timeout=60)
    assert serve.startswith("echo-service serve --bind 127.0.0.1:8443 --tls-cert cert.pem")
    files = {"tls_cert": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}
    with running(**files) as server:
        port = server.urls[0].rpartition(":")[2]
        _, *arguments = shlex.split(check.replace("8443", port))
        command = [sys.executable, "-m", "echo_service", *arguments, "--quick"]
        result = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
        )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def pytester_path(tmp_path):
    """A project of somebody else's, with a configuration of its own."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


@pytest.mark.parametrize("field", dataclasses.fields(config.Config), ids=lambda field: field.name)
def test_an_option_stands_in_the_readme_with_its_default(field):
    rows = [line for line in README.splitlines() if line.startswith("| `--")]
    (row,) = (line for line in rows if f"`{config.flag(field.name)}" in line)
    if isinstance(field.default, bool):
        expected = "| on |"
    elif isinstance(field.default, float | int):
        expected = f"| {field.default:g} |" if field.default < 10**6 else f"| {field.default} |"
    elif isinstance(field.default, str):
        expected = f"| {field.default} |"
    else:
        return
    assert expected in row


def valid_codes() -> str:
    """The close codes that a Close may have, in words, as `CLOSE_CODES` has them."""
    ranges: list[tuple[int, int]] = []
    for row in policy.CLOSE_CODES:
        if row.valid and ranges and ranges[-1][1] + 1 == row.first:
            ranges[-1] = ranges[-1][0], row.last
        elif row.valid:
            ranges.append((row.first, row.last))
    return ", ".join(f"{first}{DASH}{last}" for first, last in ranges)


@pytest.mark.parametrize("page", ["README.md", "echo_service/page.html"])
def test_the_valid_close_codes_are_those_of_the_table_in_words(page):
    assert f"Close with {valid_codes()}<" in (ROOT / page).read_text().replace(" |", "<")


def test_each_row_of_the_close_codes_stands_in_the_page_on_closing():
    page = (ROOT / "docs/closing.md").read_text()
    told = {}
    for numbers, answer in re.findall(
        r"^\| (\d\S*(?:, \d+)*) \| (1002|the same)", page, re.MULTILINE
    ):
        for each in numbers.split(", "):
            first, _, last = each.partition(DASH)
            told |= dict.fromkeys(range(int(first), int(last or first) + 1), answer != "1002")
    assert told == {code: policy.row(code).valid for code in range(65536)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_link_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert link.startswith("https://") or (page.parent / link).exists(), link


def test_every_test_that_the_page_on_reliability_names_is_there():
    page = (ROOT / "docs/reliability.md").read_text()
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", page)
    assert len(named) > 20
    named += [("network/test_faults.py", test) for test in re.findall(r"`(test_[a-z_0-9]+)`", page)]
    for module, test in named:
        assert f"def {test}(" in (ROOT / "tests" / module).read_text(), (module, test)
