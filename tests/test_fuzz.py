"""The laws that the fuzzers in Python hold: that their seeds keep them, and that they can fail."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from echo_service import compression, controls, forwarded, intake, policy, session, upgrade
from echo_service.policy import Violation
from echo_service.request import Refused
from fuzz import frames
from tests import wire

SEEDS = Path(__file__).parents[1] / "fuzz" / "seeds"

TARGETS = ["controls", "frames", "handshake", "offers", "proxies"]


def check_seeds(target):
    check = import_module(f"fuzz.{target}").check
    for path in sorted((SEEDS / target).iterdir()):
        check(path.read_bytes())


def test_every_target_has_seeds():
    assert sorted(path.name for path in SEEDS.iterdir()) == TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_the_seeds_keep_the_law(target):
    check_seeds(target)


def test_what_a_session_keeps_is_measured():
    idle = session.Session(100_000)
    assert frames.held(idle) < 500
    idle.receive(wire.frame(wire.BINARY, bytes(100_000))[:60_000])
    assert 59_000 < frames.held(idle) < 70_000


def test_the_query_controls_that_are_fuzzed_are_all_that_there_are():
    parameters = import_module("fuzz.controls").PARAMETERS
    assert [name.decode() for name in parameters] == list(controls.CONTROLS)


FAULTS = {
    # what is done wrong: the target that sees it, and where it is done
    "echoes are not counted": ("frames", session.Session, "_count", lambda *_, **__: None),
    "any Close is a good one": ("frames", policy, "row", lambda _: policy.CLOSE_CODES[1]),
    "half a character is one": ("frames", intake.Intake, "_is_utf8", lambda *_, **__: True),
    "messages end anywhere": (
        "frames", compression.PerMessageDeflate, "_ends_well", lambda *_: True,
    ),
    "too much is wrong data": ("frames", Violation.TOO_BIG, "code", 1007),
    "a delay has no end": (
        "controls", controls.CONTROLS, "delay", controls.Control(float, "a number"),
    ),
    "any spelling of a number will do": ("controls", controls, "_NUMBER", re.compile(".*")),
    "a reason is cut": (
        "controls", controls.CONTROLS, "reason", controls.Control(lambda text: text[:123], ""),
    ),
    "what has no effect is taken": ("controls", controls, "_check_together", lambda _: None),
    "the parameter is not named": ("controls", controls, "_refused", lambda *_: Refused(400, "no")),
    "another key is accepted": ("handshake", upgrade, "accept_key", lambda _: "A" * 27 + "="),
    "any version will do": ("handshake", upgrade, "_check_version", lambda _: None),
    "any key will do": ("handshake", upgrade, "_KEY", re.compile(".*")),
    "the window is larger": ("offers", compression, "WINDOW_BITS", 13),
    "8 bits can be done": ("offers", compression._VALUES, "client_max_window_bits", {"8"}),
    "any value is allowed": ("offers", compression, "_acceptable", lambda *_: True),
    "every proxy is trusted": ("proxies", forwarded, "_trusts", lambda *_: True),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_by_the_seeds(monkeypatch, fault):
    target, place, name, wrong = FAULTS[fault]
    if isinstance(place, dict):
        monkeypatch.setitem(place, name, wrong)
    else:
        monkeypatch.setattr(place, name, wrong)
    with pytest.raises((AssertionError, KeyError, ValueError)):
        check_seeds(target)
