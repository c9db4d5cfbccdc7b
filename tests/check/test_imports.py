"""What grades the service shares no code with it, and what needs no wire knows none."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from echo_service import check
from tests.test_imports import foreign, imported

TREES = {
    path.stem: ast.parse(path.read_bytes()) for path in Path(check.__file__).parent.glob("*.py")
}
PURE = ("wire", "judge", "transcript", "annotate", "report", "junit", "page")


def names(module: str, *, types: bool = False) -> set[str]:
    return imported(TREES[module], types=types)


@pytest.mark.parametrize("module", TREES)
def test_nothing_of_the_service_is_imported_but_its_version(module: str):
    ours = {name for name in names(module) if name.split(".")[0] == "echo_service"}
    allowed = {"echo_service"} if module == "page" else set()
    assert {name for name in ours if not name.startswith("echo_service.check")} == allowed
    assert foreign(names(module)) <= {"trio", "click", "rich"}


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_waits_for_nothing(module: str):
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert not [node for node in ast.walk(TREES[module]) if isinstance(node, waiting)]
    assert not {name.split(".")[0] for name in names(module)} & {"trio", "socket", "time"}


def test_rich_is_imported_in_one_function():
    assert [m for m in TREES if any(n.startswith("rich") for n in names(m))] == ["report"]
    top = [
        ast.unparse(n) for n in TREES["report"].body if isinstance(n, ast.Import | ast.ImportFrom)
    ]
    assert not [line for line in top if "rich" in line]
