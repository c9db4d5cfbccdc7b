"""The threat model: each test that it names is there, and each attack is named in it.

Of the record of the fuzzing the same: each target has its row, and each finding its test.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.attacks import test_frames, test_handshakes, test_peers

ROOT = Path(__file__).resolve().parent.parent
MODEL, FUZZING = (ROOT / "docs" / "security.md").read_text().split("\n## Fuzzing\n")
FUZZING = FUZZING.partition("\n## ")[0]


def rows(text):
    """The rows of its tables, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0] not in ("who", "target")]


ROWS = rows(MODEL)
FUZZED = rows(FUZZING)
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


def test_every_target_of_the_fuzzing_has_a_row():
    targets = [f"`{path.name}`" for path in (ROOT / "fuzz" / "seeds").iterdir()]
    assert sorted(row[0] for row in FUZZED) == sorted([*targets, "the codec in C"])
    assert {len(row) for row in FUZZED} == {5}


@pytest.mark.parametrize("row", FUZZED, ids=lambda row: row[0].strip("`"))
def test_every_finding_of_the_fuzzing_is_a_test(row):
    count = {"none": 0, "one": 1, "two": 2, "three": 3, "TODO-FIGURE": 0}[row[-1].split(":")[0]]
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", row[-1])
    assert len(named) == count
    for file, function in named:
        assert f"def {function}(" in (ROOT / file).read_text()
