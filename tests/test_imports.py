"""Who may import what: the design's rules, read from the imports themselves."""

from __future__ import annotations

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import echo_service

PACKAGE = Path(echo_service.__file__).parent

TREES = {path.stem: ast.parse(path.read_bytes()) for path in sorted(PACKAGE.glob("*.py"))}
"""The modules of the package, parsed, by name."""

PURE = {
    # module: what it imports of ours, of others, and of others for its types only
    "policy": (set(), set(), set()),
    "request": (set(), {"h11"}, set()),
    "forwarded": (set(), set(), set()),
    "compression": (set(), {"wsproto"}, set()),
    "endpoints": ({"page", "request"}, set(), {"h11"}),
    "page": (set(), set(), set()),
    "counts": ({"policy"}, set(), set()),
    "registry": ({"counts", "policy"}, set(), set()),
    "upgrade": ({"compression", "request"}, set(), {"h11"}),
    "controls": ({"policy", "request"}, set(), set()),
    "codec": ({"_codec"}, set(), set()),
    "intake": ({"compression", "policy"}, {"wsproto"}, set()),
    "session": ({"codec", "compression", "intake", "policy"}, {"wsproto"}, set()),
    "shaping": (
        {"codec", "compression", "controls", "intake", "policy", "session"},
        {"wsproto"},
        set(),
    ),
}

FORBIDDEN = {"trio", "socket", "time", "select", "ssl", "asyncio", "threading", "structlog"}
"""What no pure module may know: I/O, clocks, and the log."""


def named(node):
    """The modules that an import statement names, in full."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    assert node.level == 0, "imports are absolute"
    if node.module == "echo_service":
        return {f"echo_service.{alias.name}" for alias in node.names}
    return {node.module}


def imported(tree, *, types):
    """The modules imported at run time, or with ``types`` those imported for types only."""
    guarded = [
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in branch.body
    ]
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    return set().union(*(named(node) for node in imports if (node in guarded) is types))


def ours(names):
    """The modules of the package among these, by their names within it."""
    parts = [name.split(".") for name in names if name.split(".")[0] == "echo_service"]
    modules = {*TREES, "_codec"}
    return {part[1] if len(part) > 1 and part[1] in modules else "__init__" for part in parts}


def foreign(names):
    """The packages of others among these, but for the standard library."""
    return {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"echo_service"}


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_imports_what_the_design_allows_it(module):
    allowed_ours, allowed_others, allowed_types = PURE[module]
    runtime = imported(TREES[module], types=False)
    for_types = imported(TREES[module], types=True)
    assert ours(runtime | for_types) == allowed_ours
    assert foreign(runtime) == allowed_others
    assert foreign(for_types) - allowed_others == allowed_types


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_knows_no_clock_no_socket_and_no_options(module):
    names = imported(TREES[module], types=False) | imported(TREES[module], types=True)
    assert not {name.split(".")[0] for name in names} & FORBIDDEN
    assert "echo_service.config" not in names


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_waits_for_nothing(module):
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert not [node for node in ast.walk(TREES[module]) if isinstance(node, waiting)]


@pytest.mark.parametrize(
    "call, allowed",
    [
        *[(call, {"transport", "channel"}) for call in ("receive_some", "send_all")],
        *[(call, {"transport"}) for call in ("send_eof", "shutdown")],
        *[(f"os.{call}", {"transport", "lane"}) for call in ("read", "readv", "write", "writev")],
        *[(call, set()) for call in ("recv", "recv_into", "sendall", "sendmsg")],
    ],
)
def test_only_the_transports_and_the_lane_touch_the_wire(call, allowed):
    callers = {
        module
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and call in (node.attr, ast.unparse(node))
    }
    assert callers <= allowed


def test_the_modules_import_each_other_in_one_direction():
    """Types included: what needs the type of its caller has the arrow the wrong way round."""
    arrows = {
        module: ours(imported(tree, types=False) | imported(tree, types=True))
        for module, tree in TREES.items()
    }
    assert list(TopologicalSorter(arrows).static_order())
