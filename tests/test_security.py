"""The threat model: each test that it names is there, and each attack is named in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.attacks import test_frames, test_handshakes, test_peers

ROOT = Path(__file__).resolve().parent.parent
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "security.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| who |")
]
NAMED = [name for row in ROWS for name in re.findall(r"`([^`]+)`", row[-1])]
ATTACKS = [
    attack.name
    for module in (test_handshakes, test_frames, test_peers)
    for attack in module.ATTACKS
]


def test_an_attack_has_one_name():
    assert len(set(ATTACKS)) == len(ATTACKS)


def test_every_attack_is_named_in_the_threat_model():
    assert set(ATTACKS) <= set(NAMED)


def test_every_row_names_a_test():
    assert [row for row in ROWS if len(row) != 5 or "`" not in row[-1]] == []


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_is_named_is_there(name):
    file, _, function = name.partition("::")
    if function:
        assert f"def {function}(" in (ROOT / file).read_text()
    else:
        assert name in ATTACKS


@pytest.mark.parametrize(
    "module", sorted({m for row in ROWS for m in re.findall(r"\w+\.py", row[3])})
)
def test_the_module_that_sets_a_bound_is_there(module):
    assert (ROOT / "echo_service" / module).exists()
